//! One worker's handles on its series, found without making labels.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mesh::identity::Identity;
use mesh::local_reply::response_flag::ResponseFlags;
use mesh::service::Service;
use mesh::workload::Workload;

use super::labels::{Peers, RequestLabels};
use super::registry::{MessageSeries, Registry, RequestSeries, Series, TcpSeries};

/// Handles kept on one worker; beyond that all are found anew.
const HANDLES: usize = 8192;

/// One worker's telemetry.
pub(crate) struct Telemetry {
    worker: usize,
    registry: Arc<Registry>,
    /// Requests under way.
    open: Cell<usize>,
    requests: RefCell<HashMap<Key<RequestLabels>, Held<RequestSeries>>>,
    messages: RefCell<HashMap<Key<()>, Held<MessageSeries>>>,
    connections: RefCell<HashMap<Key<ResponseFlags>, Held<TcpSeries>>>,
}

/// Workloads and services count as what the snapshot shares: one allocation, one object.
#[derive(Debug, PartialEq, Eq)]
struct Key<L> {
    source: usize,
    service: usize,
    destination: usize,
    source_identity: Option<Identity>,
    labels: L,
}

struct Held<S> {
    series: Arc<S>,
    /// Holds the addresses in the key, so that no other object takes them.
    _source: Option<Arc<Workload>>,
    _service: Option<Arc<Service>>,
    _destination: Option<Arc<Workload>>,
}

impl<L: Hash> Hash for Key<L> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // One client's workload has one identity.
        self.source.hash(state);
        self.service.hash(state);
        self.destination.hash(state);
        self.labels.hash(state);
    }
}

// === impl Telemetry ===

impl Telemetry {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self {
            worker: registry.worker(),
            registry,
            open: Cell::new(0),
            requests: RefCell::default(),
            messages: RefCell::default(),
            connections: RefCell::default(),
        }
    }

    /// Requests under way: begun, and not yet over.
    pub(crate) fn open(&self) -> usize {
        self.open.get()
    }

    pub(crate) fn begin(&self) {
        self.open.set(self.open.get() + 1);
    }

    pub(crate) fn end(&self) {
        self.open.set(self.open.get() - 1);
    }

    pub(crate) fn messages(&self, peers: &Peers<'_>) -> Arc<MessageSeries> {
        let make = || self.registry.messages(self.worker, peers.messages());
        held(&mut self.messages.borrow_mut(), peers, (), make)
    }

    pub(crate) fn request(&self, peers: &Peers<'_>, labels: RequestLabels) -> Arc<RequestSeries> {
        let make = || self.registry.request(self.worker, peers.request(&labels));
        held(&mut self.requests.borrow_mut(), peers, labels, make)
    }

    pub(crate) fn connection(&self, peers: &Peers<'_>, flags: ResponseFlags) -> Arc<TcpSeries> {
        let make = || self.registry.connection(self.worker, peers.tcp(flags));
        held(&mut self.connections.borrow_mut(), peers, flags, make)
    }
}

fn held<L: Eq + Hash, S: Series>(
    handles: &mut HashMap<Key<L>, Held<S>>,
    peers: &Peers<'_>,
    labels: L,
    make: impl Fn() -> Arc<S>,
) -> Arc<S> {
    let key = Key {
        source: address_of(peers.source),
        service: address_of(peers.service),
        destination: address_of(peers.destination),
        source_identity: peers.source_identity.cloned(),
        labels,
    };
    if handles.len() >= HANDLES {
        handles.clear();
    }
    let hold = || Held {
        series: make(),
        _source: peers.source.cloned(),
        _service: peers.service.cloned(),
        _destination: peers.destination.cloned(),
    };
    match handles.entry(key) {
        hash_map::Entry::Occupied(mut entry) => {
            if entry.get().series.retired().load(Ordering::Relaxed) {
                entry.insert(hold());
            }
            entry.get().series.clone()
        }
        hash_map::Entry::Vacant(entry) => entry.insert(hold()).series.clone(),
    }
}

fn address_of<T>(shared: Option<&Arc<T>>) -> usize {
    shared.map_or(0, |shared| Arc::as_ptr(shared) as usize)
}
