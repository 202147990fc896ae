//! One endpoint of the mesh: a pod, a WorkloadEntry, an inline endpoint.

mod template;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

pub use self::template::Template;
use crate::address::NamespacedHostname;
use crate::identity::Identity;
use crate::service::Port;

/// Primary key of a workload, for example `Kubernetes//Pod/shop/web-0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct WorkloadUid(pub Arc<str>);

/// One endpoint and all that is known of it: its own fields and those of its [`Template`]. Text
/// fields may be empty where the wire leaves them out; `trust_domain`, `service_account` and
/// `cluster_id` never are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    pub uid: WorkloadUid,
    pub name: Arc<str>,
    pub node: Arc<str>,
    #[serde(rename = "workloadIps")]
    pub addresses: Vec<IpAddr>,
    pub locality: Arc<Locality>,
    pub status: WorkloadStatus,
    #[serde(flatten)]
    pub template: Arc<Template>,
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
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ApplicationTunnel {
    pub protocol: ApplicationProtocol,
    /// Overrides the port asked for.
    pub port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
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
        Self {
            uid: WorkloadUid::new(uid),
            name: name.into(),
            node: "".into(),
            addresses: Vec::new(),
            locality: Arc::default(),
            status: WorkloadStatus::Healthy,
            template: Arc::new(Template::new(namespace)),
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
