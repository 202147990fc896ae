//! Who claims an address: nearly always one workload, for which no list is allocated.

use std::sync::Arc;

use crate::workload::WorkloadUid;

#[derive(Clone, Debug)]
pub(super) enum Claimants {
    One(WorkloadUid),
    /// The first of them has it.
    Several(Arc<[WorkloadUid]>),
}

// === impl Claimants ===

impl Claimants {
    pub(super) fn as_slice(&self) -> &[WorkloadUid] {
        match self {
            Self::One(uid) => std::slice::from_ref(uid),
            Self::Several(uids) => uids,
        }
    }

    pub(super) fn first(&self) -> Option<&WorkloadUid> {
        self.as_slice().first()
    }
}

impl From<Vec<WorkloadUid>> for Claimants {
    fn from(uids: Vec<WorkloadUid>) -> Self {
        match <[WorkloadUid; 1]>::try_from(uids) {
            Ok([one]) => Self::One(one),
            Err(uids) => Self::Several(uids.into()),
        }
    }
}
