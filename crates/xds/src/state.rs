//! The mesh as it is now: an immutable snapshot, swapped whole.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use mesh::snapshot::Snapshot;
use tokio::sync::watch;

/// The current snapshot and how often it has changed.
#[derive(Debug)]
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
}

// === impl State ===

impl State {
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            version: watch::channel(0).0,
        }
    }

    /// Puts a snapshot in force and tells everyone who watches.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_modify(|version| *version += 1);
    }

    /// The snapshot in force, for a short look.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The snapshot in force, to keep.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Counts publications.
    pub fn version(&self) -> u64 {
        *self.version.borrow()
    }

    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new(Snapshot::default())
    }
}
