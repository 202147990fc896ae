//! The mesh as it is now: an immutable snapshot, swapped whole.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use mesh::snapshot::{Changed, Snapshot};
use tokio::sync::watch;

/// Publications of which it is remembered what they were about. Whoever misses more has missed all.
const REMEMBERED: usize = 64;
/// Workloads of one publication beyond which it counts as being about everything.
const FEW_WORKLOADS: usize = 256;

/// The current snapshot and how often it has changed.
#[derive(Debug)]
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    /// What the last publications were about, the newest last; none: anything.
    recent: Mutex<VecDeque<Option<Changed>>>,
}

// === impl State ===

impl State {
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            version: watch::channel(0).0,
            recent: Mutex::default(),
        }
    }

    /// Puts a snapshot in force and tells everyone who watches.
    pub fn publish(&self, snapshot: Snapshot) {
        self.put_in_force(snapshot, None);
    }

    /// The same of a snapshot that differs from the one in force by what `changed` says.
    pub fn publish_changed(&self, snapshot: Snapshot, changed: Changed) {
        let few = changed.workloads.len() <= FEW_WORKLOADS;
        self.put_in_force(snapshot, few.then_some(changed));
    }

    fn put_in_force(&self, snapshot: Snapshot, changed: Option<Changed>) {
        // Held until the version counts it, so that both agree for whoever asks.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(changed);
        self.snapshot.store(Arc::new(snapshot));
        self.version.send_modify(|version| *version += 1);
    }

    /// The snapshot in force, and what has changed since a version, which becomes the current one;
    /// none: anything may have.
    pub fn since(&self, version: &mut u64) -> (Arc<Snapshot>, Option<Changed>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.version();
        let missed = usize::try_from(now - *version).unwrap_or(usize::MAX);
        *version = now;
        let changed = recent.len().checked_sub(missed).and_then(|before| {
            let missed = recent.iter().skip(before).cloned();
            missed.collect::<Option<Vec<_>>>()
        });
        let changed = changed.map(|missed| {
            let mut all = Changed::default();
            all.extend(missed);
            all
        });
        (self.snapshot(), changed)
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

#[cfg(test)]
mod tests {
    use mesh::workload::WorkloadUid;

    use super::*;

    fn about(uid: &str) -> Changed {
        Changed {
            workloads: vec![WorkloadUid::new(uid)],
            policies: false,
        }
    }

    #[test]
    fn whoever_looks_is_told_what_has_changed_since() {
        let state = State::default();
        let mut seen = state.version();
        assert_eq!(state.since(&mut seen).1, Some(Changed::default()));
        state.publish_changed(Snapshot::default(), about("web"));
        state.publish_changed(Snapshot::default(), about("api"));
        let both = Changed {
            workloads: vec![WorkloadUid::new("web"), WorkloadUid::new("api")],
            policies: false,
        };
        let mut late = seen;
        assert_eq!(state.since(&mut seen).1, Some(both));
        state.publish_changed(Snapshot::default(), about("db"));
        assert_eq!(state.since(&mut seen).1, Some(about("db")));
        state.publish(Snapshot::default());
        state.publish_changed(Snapshot::default(), about("db"));
        assert_eq!(state.since(&mut late).1, None);
        assert_eq!(late, state.version());
    }

    #[test]
    fn whoever_has_missed_too_much_has_missed_all() {
        let state = State::default();
        let mut seen = state.version();
        for _ in 0..=REMEMBERED {
            state.publish_changed(Snapshot::default(), about("web"));
        }
        assert_eq!(state.since(&mut seen).1, None);
    }
}
