//! The connections under way at each endpoint, counted by all threads together: what one of many
//! threads has open says little about who is busy.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::workload::WorkloadUid;

/// Endpoints with connections under way. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Active(Arc<RwLock<HashMap<WorkloadUid, Arc<AtomicU32>>>>);

/// One connection, under way until this is dropped.
#[derive(Debug)]
pub struct ActiveConnection {
    active: Active,
    endpoint: WorkloadUid,
    count: Arc<AtomicU32>,
}

// === impl Active ===

impl Active {
    pub fn count(&self, endpoint: &WorkloadUid) -> u32 {
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(endpoint);
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub fn begin(&self, endpoint: &WorkloadUid) -> ActiveConnection {
        let connection = |count: &Arc<AtomicU32>| {
            count.fetch_add(1, Ordering::Relaxed);
            ActiveConnection {
                active: self.clone(),
                endpoint: endpoint.clone(),
                count: count.clone(),
            }
        };
        // Counted while the lock is held, so that no count is taken away meanwhile.
        let counts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get(endpoint) {
            return connection(count);
        }
        drop(counts);
        let mut counts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        connection(counts.entry(endpoint.clone()).or_default())
    }
}

// === impl ActiveConnection ===

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        if self.count.fetch_sub(1, Ordering::Relaxed) > 1 {
            return;
        }
        let counts = self.active.0.write();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        // Another may have begun, or this count been taken away and another made.
        let is_idle = |count: &Arc<AtomicU32>| count.load(Ordering::Relaxed) == 0;
        if counts.get(&self.endpoint).is_some_and(is_idle) {
            counts.remove(&self.endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_connection_counts_while_it_lasts() {
        let active = Active::default();
        let (web, db) = (WorkloadUid::new("web"), WorkloadUid::new("db"));
        let first = active.begin(&web);
        let second = active.begin(&web);
        assert_eq!((active.count(&web), active.count(&db)), (2, 0));
        drop(first);
        assert_eq!(active.count(&web), 1);
        drop(second);
        assert!(active.0.read().expect("no panic").is_empty());
    }

    #[test]
    fn every_thread_counts_for_all() {
        let active = Active::default();
        let web = WorkloadUid::new("web");
        let open: Vec<_> = thread::scope(|scope| {
            let begin = || {
                for _ in 0..1000 {
                    drop(active.begin(&web));
                }
                active.begin(&web)
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
            threads
                .into_iter()
                .map(|one| one.join().expect("no panic"))
                .collect()
        });
        assert_eq!(active.count(&web), 4);
        drop(open);
        assert!(active.0.read().expect("no panic").is_empty());
    }
}
