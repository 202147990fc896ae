//! One endpoint of the mesh: a pod, a WorkloadEntry, an inline endpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::address::{GatewayAddress, NamespacedHostname};
use crate::authorization::PolicyKey;
use crate::identity::Identity;
use crate::service::Port;

/// Primary key of a workload, for example `Kubernetes//Pod/shop/web-0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct WorkloadUid(pub Arc<str>);

/// One endpoint and all that is known of it. Text fields may be empty where the
/// wire leaves them out; `trust_domain`, `service_account` and `cluster_id` never are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub uid: WorkloadUid,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
    pub trust_domain: Arc<str>,
    pub cluster_id: Arc<str>,
    pub network: Arc<str>,
    pub node: Arc<str>,
    #[serde(rename = "workloadIps")]
    pub addresses: Vec<IpAddr>,
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
    pub locality: Locality,
    pub status: WorkloadStatus,
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
    #[serde(serialize_with = "services_as_map")]
    pub services: BTreeMap<NamespacedHostname, Vec<Port>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TunnelProtocol {
    /// Reached in plaintext.
    #[serde(rename = "TCP")]
    None,
    Hbone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum NetworkMode {
    /// The address is unique in its network.
    Standard,
    /// The address is shared with the host: never looked up by IP.
    HostNetwork,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum WorkloadStatus {
    Healthy,
    Unhealthy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum WorkloadType {
    Deployment,
    CronJob,
    Pod,
    Job,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub subzone: Arc<str>,
}

/// What the application behind the tunnel expects in front of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApplicationTunnel {
    pub protocol: ApplicationProtocol,
    /// Overrides the port asked for.
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ApplicationProtocol {
    None,
    /// PROXY protocol version 2.
    Proxy,
}

// === impl WorkloadUid ===

impl WorkloadUid {
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// Pods win over other workloads that claim the same address.
    pub fn is_pod(&self) -> bool {
        self.0.contains("//Pod/")
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Workload ===

impl Workload {
    /// A healthy, uncaptured workload with the wire's defaults, for callers to fill in.
    pub fn new(uid: &str, name: &str, namespace: &str) -> Self {
        let empty: Arc<str> = "".into();
        Self {
            uid: WorkloadUid::new(uid),
            name: name.into(),
            namespace: namespace.into(),
            service_account: "default".into(),
            trust_domain: crate::identity::DEFAULT_TRUST_DOMAIN.into(),
            cluster_id: "Kubernetes".into(),
            network: empty.clone(),
            node: empty.clone(),
            addresses: Vec::new(),
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
            locality: Locality::default(),
            status: WorkloadStatus::Healthy,
            capacity: 1,
            authorization_policies: Vec::new(),
            request_policies: Vec::new(),
            request_authentications: Vec::new(),
            admitted_waypoints: Vec::new(),
            services: BTreeMap::new(),
        }
    }

    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }
}

fn services_as_map<S: serde::Serializer>(
    services: &BTreeMap<NamespacedHostname, Vec<Port>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(services.iter().map(|(key, ports)| (key.to_string(), ports)))
}
