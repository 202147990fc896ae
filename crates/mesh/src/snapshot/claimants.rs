//! Who claims an address: nearly always one workload, for which no list is allocated.

use std::sync::Arc;

use crate::workload::{TunnelProtocol, Workload, WorkloadUid};

#[derive(Clone, Debug)]
pub(super) enum Claimants {
    One(Arc<Workload>),
    /// The first of them has it: a pod, then one that speaks HBONE, then the lowest uid.
    Several(Arc<[Arc<Workload>]>),
}

// === impl Claimants ===

impl Claimants {
    pub(super) fn first(&self) -> Option<&Arc<Workload>> {
        self.as_slice().first()
    }

    pub(super) fn with(&self, workload: Arc<Workload>) -> Self {
        let mut all = self.as_slice().to_vec();
        all.push(workload);
        all.sort_by_key(|workload| {
            let hbone = workload.tunnel_protocol == TunnelProtocol::Hbone;
            (!workload.uid.is_pod(), !hbone, workload.uid.clone())
        });
        Self::Several(all.into())
    }

    /// None where nobody else claims it.
    pub(super) fn without(&self, uid: &WorkloadUid) -> Option<Self> {
        let others = self.as_slice().iter().filter(|known| known.uid != *uid);
        let others: Vec<Arc<Workload>> = others.cloned().collect();
        match <[_; 1]>::try_from(others) {
            Ok([one]) => Some(Self::One(one)),
            Err(others) => (!others.is_empty()).then(|| Self::Several(others.into())),
        }
    }

    fn as_slice(&self) -> &[Arc<Workload>] {
        match self {
            Self::One(workload) => std::slice::from_ref(workload),
            Self::Several(workloads) => workloads,
        }
    }
}
