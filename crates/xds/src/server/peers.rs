//! Who is connected, what they were sent, and what they said to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::node::ProxyNode;
use crate::resource_type::ResourceType;

/// Rejections remembered per client and type.
const NACKS: usize = 10;

/// The clients connected now. Clones share them.
#[derive(Clone, Default)]
pub struct Peers(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    next: u64,
    connected: BTreeMap<u64, Peer>,
}

/// One connected client.
#[derive(Clone, Debug)]
pub struct Peer {
    pub node: ProxyNode,
    pub connected_since: SystemTime,
    pub types: BTreeMap<ResourceType, TypeStatus>,
}

/// Where a client stands with one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeStatus {
    /// Generation of the set that was sent last; 0 before the first.
    pub sent: u64,
    /// Generation that was acknowledged last, in whole or with rejections.
    pub acked: u64,
    /// How many resources the client has been sent and not told to remove.
    pub resources: usize,
    /// The latest rejections, newest last.
    pub nacks: VecDeque<Nack>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    pub time: SystemTime,
    /// `name: reason`, joined.
    pub message: String,
    /// The generation it answered.
    pub generation: u64,
}

/// A client's entry, for as long as it is connected.
pub(super) struct Connected {
    peers: Peers,
    key: u64,
    id: String,
}

// === impl Peers ===

impl Peers {
    /// Everyone connected, longest first.
    pub fn connected(&self) -> Vec<Peer> {
        self.with(|registry| registry.connected.values().cloned().collect())
    }

    pub(super) fn connect(&self, node: ProxyNode, now: SystemTime) -> Connected {
        let id = node.id.clone();
        let key = self.with(|registry| {
            registry.next += 1;
            let peer = Peer {
                node,
                connected_since: now,
                types: BTreeMap::new(),
            };
            registry.connected.insert(registry.next, peer);
            registry.next
        });
        Connected {
            peers: self.clone(),
            key,
            id,
        }
    }

    fn with<R>(&self, act: impl FnOnce(&mut Registry) -> R) -> R {
        // Entries are replaced whole: nothing is half done after a panic.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl TypeStatus ===

impl TypeStatus {
    pub(super) fn reject(&mut self, nack: Nack) {
        if self.nacks.len() == NACKS {
            self.nacks.pop_front();
        }
        self.nacks.push_back(nack);
    }
}

// === impl Connected ===

impl Connected {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn update(&self, types: BTreeMap<ResourceType, TypeStatus>) {
        self.peers.with(|registry| {
            if let Some(peer) = registry.connected.get_mut(&self.key) {
                peer.types = types;
            }
        });
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.peers
            .with(|registry| registry.connected.remove(&self.key));
    }
}
