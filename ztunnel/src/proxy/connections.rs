//! The open connections of every pod, for dumps.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mesh::destination::Authority;
use serde::Serialize;

use super::access_log::Direction;

/// Every open connection.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    next: AtomicU64,
    /// A tree, which gives back what a crowd needed: a hash table keeps room for all of it.
    open: Mutex<BTreeMap<u64, Entry>>,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<str>,
    direction: Direction,
    connection: OpenConnection,
    /// Whether the other side of the same connection is listed too.
    is_other_side: bool,
}

/// One connection as dumps show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenConnection {
    pub src: SocketAddr,
    /// What the client dialled.
    pub original_dst: Option<Authority>,
    /// Where the bytes go.
    pub actual_dst: SocketAddr,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    Tcp,
    Hbone,
    DoubleHbone,
}

/// The open connections of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodConnections {
    pub inbound: Vec<OpenConnection>,
    pub outbound: Vec<OpenConnection>,
}

/// Keeps a connection listed; dropping it takes it off.
#[derive(Debug)]
pub(crate) struct Listed {
    connections: Connections,
    id: u64,
}

// === impl Connections ===

impl Connections {
    /// The open connections of each pod, by the pod's uid.
    pub fn by_pod(&self) -> HashMap<Arc<str>, PodConnections> {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pods: HashMap<_, PodConnections> = HashMap::new();
        for entry in open.values() {
            let pod = pods.entry(entry.pod.clone()).or_default();
            let list = match entry.direction {
                Direction::Inbound => &mut pod.inbound,
                Direction::Outbound => &mut pod.outbound,
            };
            list.push(entry.connection.clone());
        }
        pods
    }

    /// How many there are; one between two pods of this process is one.
    pub fn count(&self) -> usize {
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter(|entry| !entry.is_other_side).count()
    }

    pub(crate) fn list(
        &self,
        pod: &Arc<str>,
        direction: Direction,
        connection: OpenConnection,
    ) -> Listed {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            pod: pod.clone(),
            direction,
            connection,
            is_other_side: false,
        };
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(id, entry);
        Listed {
            connections: self.clone(),
            id,
        }
    }
}

// === impl Listed ===

impl Listed {
    /// The other side of this connection is about to be listed.
    pub(crate) fn is_other_side(&self) {
        let open = &self.connections.0.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get_mut(&self.id) {
            entry.is_other_side = true;
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let open = &self.connections.0.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.id);
    }
}
