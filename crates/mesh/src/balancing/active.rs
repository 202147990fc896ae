//! The connections under way at each endpoint, as one thread counts its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::workload::WorkloadUid;

/// Endpoints with connections under way. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Active(Rc<RefCell<HashMap<WorkloadUid, u32>>>);

/// One connection, under way until this is dropped.
#[derive(Debug)]
pub struct ActiveConnection {
    active: Active,
    endpoint: WorkloadUid,
}

// === impl Active ===

impl Active {
    pub fn count(&self, endpoint: &WorkloadUid) -> u32 {
        self.0.borrow().get(endpoint).copied().unwrap_or_default()
    }

    pub fn begin(&self, endpoint: &WorkloadUid) -> ActiveConnection {
        *self.0.borrow_mut().entry(endpoint.clone()).or_default() += 1;
        ActiveConnection {
            active: self.clone(),
            endpoint: endpoint.clone(),
        }
    }
}

// === impl ActiveConnection ===

impl Drop for ActiveConnection {
    fn drop(&mut self) {
        let mut counts = self.active.0.borrow_mut();
        if let Some(count) = counts.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert!(active.0.borrow().is_empty());
    }
}
