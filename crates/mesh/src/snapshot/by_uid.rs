//! Workloads as members of sets that are searched by uid: a key beside each would double a set.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::workload::{Workload, WorkloadUid};

#[derive(Clone, Debug)]
pub(super) struct ByUid(pub(super) Arc<Workload>);

// === impl ByUid ===

impl Borrow<WorkloadUid> for ByUid {
    fn borrow(&self) -> &WorkloadUid {
        &self.0.uid
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

impl PartialOrd for ByUid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByUid {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.uid.cmp(&other.0.uid)
    }
}
