//! Who of a service's members is an endpoint, and of what kind.

use std::sync::Arc;

use super::Endpoint;
use crate::identity::Identity;
use crate::service::{HealthPolicy, Service};
use crate::workload::{Workload, WorkloadStatus};

/// What a service decides of its endpoints.
pub(super) struct Membership<'a> {
    service: &'a Service,
    vouched: Vec<Identity>,
}

// === impl Membership ===

impl<'a> Membership<'a> {
    pub(super) fn of(service: &'a Service) -> Self {
        let vouched = service.subject_alt_names.iter();
        Self {
            service,
            // A name of another shape is no workload's and can't be presented.
            vouched: vouched.filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// Whether a member of the service may be an endpoint of it.
    pub(super) fn admits(&self, workload: &Workload) -> bool {
        let healthy = match self.service.load_balancing.health_policy {
            HealthPolicy::AllowAll => true,
            HealthPolicy::OnlyHealthy => workload.status == WorkloadStatus::Healthy,
        };
        healthy && workload.services.of(self.service).is_some()
    }

    /// The workload as an endpoint, which shares with a sibling what both have.
    pub(super) fn endpoint(
        &self,
        workload: &Arc<Workload>,
        sibling: Option<&Endpoint>,
    ) -> Endpoint {
        let identity = std::iter::once(workload.identity());
        let expected: Vec<Identity> = identity.chain(self.vouched.iter().cloned()).collect();
        let same_expected = sibling.filter(|sibling| *sibling.expected == *expected);
        Endpoint {
            workload: workload.clone(),
            expected: same_expected
                .map_or_else(|| expected.into(), |sibling| sibling.expected.clone()),
        }
    }
}
