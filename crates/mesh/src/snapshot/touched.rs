//! Which services a batch of changes touches, and how.

use std::collections::HashMap;
use std::collections::hash_map::IntoIter;

use crate::address::NamespacedHostname;
use crate::workload::WorkloadUid;

/// What has to be done for each service that a batch of changes touches.
#[derive(Default)]
pub(super) struct Touched(HashMap<NamespacedHostname, Touch>);

pub(super) enum Touch {
    /// These have come, gone or changed.
    Members(Vec<WorkloadUid>),
    /// The service itself has.
    Service,
}

// === impl Touched ===

impl Touched {
    pub(super) fn insert(&mut self, key: NamespacedHostname, touch: Touch) {
        match (self.0.get_mut(&key), touch) {
            (Some(Touch::Members(known)), Touch::Members(uids)) => known.extend(uids),
            (Some(Touch::Service), Touch::Members(_)) => {}
            (_, touch) => _ = self.0.insert(key, touch),
        }
    }
}

impl IntoIterator for Touched {
    type Item = (NamespacedHostname, Touch);
    type IntoIter = IntoIter<NamespacedHostname, Touch>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
