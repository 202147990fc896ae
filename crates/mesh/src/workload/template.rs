//! What the workloads of one Deployment have in common.
//!
//! A mesh has a hundred thousand pods and a few thousand Deployments. What pods of one have in
//! common is kept once and shared, which is most of what is known of each.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;

use super::{ApplicationTunnel, Memberships, NetworkMode, TunnelProtocol, Workload, WorkloadType};
use crate::address::GatewayAddress;
use crate::authorization::PolicyKey;
use crate::identity::Identity;

/// The fields of a [`Workload`] that its siblings have as well; it gives access to them as if
/// they were its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
    pub trust_domain: Arc<str>,
    pub cluster_id: Arc<str>,
    pub network: Arc<str>,
    /// Resolved by DNS when there is no address.
    pub hostname: Option<Arc<str>>,
    #[serde(rename = "protocol")]
    pub tunnel_protocol: TunnelProtocol,
    pub native_tunnel: bool,
    pub network_mode: NetworkMode,
    pub network_gateway: Option<GatewayAddress>,
    pub waypoint: Option<GatewayAddress>,
    pub application_tunnel: Option<ApplicationTunnel>,
    pub canonical_name: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub workload_name: Arc<str>,
    pub workload_type: WorkloadType,
    /// Load balancing weight; 1 where unset.
    pub capacity: u32,
    /// Policies with a selector that chose this workload.
    pub authorization_policies: Vec<PolicyKey>,
    /// AuthorizationPolicies with a selector that chose this workload, whole, for its waypoint to
    /// evaluate.
    pub request_policies: Vec<PolicyKey>,
    /// RequestAuthentications with a selector that chose this workload. Apart from
    /// `request_policies`: one of each kind may have the same name.
    pub request_authentications: Vec<PolicyKey>,
    /// Identities of the waypoints in front of this workload: a connection of theirs has been
    /// authorized, with its client's identity, and is admitted.
    pub admitted_waypoints: Vec<Identity>,
    /// Membership: the services this workload backs and its ports for each.
    pub services: Memberships,
}

// === impl Template ===

impl Template {
    /// Uncaptured, with the wire's defaults, for callers to fill in.
    pub(super) fn new(namespace: &str) -> Self {
        let empty: Arc<str> = "".into();
        Self {
            namespace: namespace.into(),
            service_account: "default".into(),
            trust_domain: crate::identity::DEFAULT_TRUST_DOMAIN.into(),
            cluster_id: "Kubernetes".into(),
            network: empty.clone(),
            hostname: None,
            tunnel_protocol: TunnelProtocol::None,
            native_tunnel: false,
            network_mode: NetworkMode::Standard,
            network_gateway: None,
            waypoint: None,
            application_tunnel: None,
            canonical_name: empty.clone(),
            canonical_revision: empty.clone(),
            workload_name: empty,
            workload_type: WorkloadType::Pod,
            capacity: 1,
            authorization_policies: Vec::new(),
            request_policies: Vec::new(),
            request_authentications: Vec::new(),
            admitted_waypoints: Vec::new(),
            services: Memberships::default(),
        }
    }
}

// === impl Workload ===

impl Deref for Workload {
    type Target = Template;

    fn deref(&self) -> &Template {
        &self.template
    }
}

impl DerefMut for Workload {
    /// What is changed through this is the workload's own from then on.
    fn deref_mut(&mut self) -> &mut Template {
        Arc::make_mut(&mut self.template)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_one_is_not_its_siblings() {
        let one = Workload::new("Kubernetes//Pod/shop/web-0", "web-0", "shop");
        let mut other = one.clone();
        assert!(Arc::ptr_eq(&one.template, &other.template));
        other.canonical_revision = "v2".into();
        assert_eq!(&*one.canonical_revision, "");
        assert_eq!(&*other.canonical_revision, "v2");
    }
}
