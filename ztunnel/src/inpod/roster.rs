//! Which pods are served, and what each of the agent's requests changes.
//!
//! ```text
//!              connected           snapshot sent
//! Disconnected ─────────▶ Snapshot ─────────────▶ Live
//!       ▲                    │                      │
//!       └────────────────────┴──────────────────────┘  disconnected
//! ```
//! Pods that are served stay so in every state; the snapshot's end drops those not named in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{NetnsId, NotServed, Pod, Request};

/// See the module's description.
#[derive(Debug)]
pub struct Roster {
    served: BTreeMap<Arc<str>, NetnsId>,
    /// Pods that could not be served yet.
    pending: BTreeMap<Arc<str>, Pending>,
    /// Whether another process serves pods until this one is ready.
    takes_over: bool,
    /// Pods that the agent wants kept, of which this process has nothing.
    missing: BTreeSet<Arc<str>>,
    connection: Connection,
}

#[derive(Debug)]
struct Pending {
    pod: Pod,
    holds_up: bool,
}

#[derive(Debug, Default)]
enum Connection {
    #[default]
    Disconnected,
    Snapshot {
        named: BTreeSet<Arc<str>>,
    },
    Live,
}

/// What is to be done before a request is acknowledged.
#[derive(Debug)]
pub enum Step {
    Nothing,
    Start(Pod),
    /// The uid is served in another namespace: stop that first.
    Replace(Pod),
    Stop(Vec<Arc<str>>),
}

/// A request that no agent of this protocol's version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("AddWorkload without workload_info")]
    MissingWorkloadInfo,
    #[error("SnapshotSent twice on one connection")]
    SecondSnapshot,
    #[error("KeepWorkload after the snapshot")]
    KeepAfterSnapshot,
}

// === impl Roster ===

impl Roster {
    pub fn new(takes_over: bool) -> Self {
        Self {
            served: BTreeMap::new(),
            pending: BTreeMap::new(),
            takes_over,
            missing: BTreeSet::new(),
            connection: Connection::default(),
        }
    }

    /// A new connection: a new snapshot will follow. Pods go on waiting until it is complete, for
    /// the agent may want one kept whose network namespace only this process has.
    pub fn connected(&mut self) {
        self.connection = Connection::Snapshot {
            named: BTreeSet::new(),
        };
        self.missing.clear();
    }

    /// No other process serves pods from here on.
    pub fn took_over(&mut self) {
        self.takes_over = false;
    }

    pub fn disconnected(&mut self) {
        self.connection = Connection::Disconnected;
    }

    pub fn request(&mut self, request: Request) -> Result<Step, ProtocolError> {
        match request {
            Request::Add(pod) => Ok(self.add(pod)),
            Request::Keep(uid) => match &mut self.connection {
                Connection::Snapshot { named } => {
                    named.insert(uid);
                    Ok(Step::Nothing)
                }
                Connection::Live | Connection::Disconnected => {
                    Err(ProtocolError::KeepAfterSnapshot)
                }
            },
            Request::Delete(uid) => Ok(self.delete(&uid)),
            Request::SnapshotSent => {
                match std::mem::replace(&mut self.connection, Connection::Live) {
                    Connection::Snapshot { named } => Ok(self.reconcile(&named)),
                    Connection::Live | Connection::Disconnected => {
                        Err(ProtocolError::SecondSnapshot)
                    }
                }
            }
        }
    }

    fn add(&mut self, pod: Pod) -> Step {
        let uid = pod.spec.uid.clone();
        self.missing.remove(&uid);
        if let Connection::Snapshot { named } = &mut self.connection {
            named.insert(uid.clone());
        }
        match self.served.get(&uid) {
            Some(id) if *id == pod.netns_id => Step::Nothing,
            Some(_) => {
                self.served.remove(&uid);
                Step::Replace(pod)
            }
            None => Step::Start(pod),
        }
    }

    fn delete(&mut self, uid: &Arc<str>) -> Step {
        self.pending.remove(uid);
        self.missing.remove(uid);
        match &mut self.connection {
            // It stays until the snapshot is complete: the agent may still name it.
            Connection::Snapshot { named } => {
                named.remove(uid);
                Step::Nothing
            }
            Connection::Live | Connection::Disconnected => match self.served.remove(uid) {
                Some(_) => Step::Stop(vec![uid.clone()]),
                None => Step::Nothing,
            },
        }
    }

    fn reconcile(&mut self, named: &BTreeSet<Arc<str>>) -> Step {
        self.pending.retain(|uid, _| named.contains(uid));
        let served = self.served.keys();
        let gone: Vec<_> = served
            .filter(|uid| !named.contains(*uid))
            .cloned()
            .collect();
        self.served.retain(|uid, _| named.contains(uid));
        let is_here =
            |uid: &&Arc<str>| self.served.contains_key(*uid) || self.pending.contains_key(*uid);
        self.missing = named.iter().filter(|uid| !is_here(uid)).cloned().collect();
        match gone.is_empty() {
            true => Step::Nothing,
            false => Step::Stop(gone),
        }
    }

    /// The outcome of a start.
    pub fn started(&mut self, pod: Pod, result: &Result<(), NotServed>) {
        let uid = pod.spec.uid.clone();
        match result {
            Ok(()) => {
                self.pending.remove(&uid);
                self.served.insert(uid, pod.netns_id);
            }
            Err(NotServed { holds_up, .. }) => {
                let holds_up = *holds_up;
                self.pending.insert(uid, Pending { pod, holds_up });
            }
        }
    }

    /// Pods to try again.
    pub fn pending(&self) -> Vec<Pod> {
        let pods = self.pending.values().map(|pending| &pending.pod);
        pods.cloned().collect()
    }

    /// How many pods are served, and how many wait to be.
    pub fn counts(&self) -> (usize, usize) {
        (self.served.len(), self.pending.len())
    }

    /// Pods that the agent wants kept, and which this process has not been given.
    pub fn missing(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.missing.iter()
    }

    /// The agent has told of every pod and all of them are served that can be. For what is missing
    /// only another process can be waited for.
    pub fn is_ready(&self) -> bool {
        let pending = self.pending.values().any(|pending| pending.holds_up);
        let missing = self.takes_over && !self.missing.is_empty();
        matches!(self.connection, Connection::Live) && !pending && !missing
    }
}

#[cfg(test)]
mod tests;
