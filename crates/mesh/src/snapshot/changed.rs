//! What a batch of changes was about, for whoever keeps what follows from a snapshot.

use crate::workload::WorkloadUid;

/// The workloads and policies that a batch of changes touches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Those that have come, gone or changed.
    pub workloads: Vec<WorkloadUid>,
    /// Whether policies have that nodes evaluate.
    pub policies: bool,
}

// === impl Changed ===

impl Extend<Changed> for Changed {
    fn extend<T: IntoIterator<Item = Changed>>(&mut self, others: T) {
        for other in others {
            self.workloads.extend(other.workloads);
            self.policies |= other.policies;
        }
    }
}
