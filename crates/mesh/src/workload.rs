//! One endpoint of the mesh: a pod, a WorkloadEntry, an inline endpoint.

mod memberships;
mod template;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use smallvec::SmallVec;

pub use self::memberships::Memberships;
pub use self::template::Template;
use crate::identity::Identity;

/// Primary key of a workload, for example `Kubernetes//Pod/shop/web-0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct WorkloadUid(pub Arc<str>);

/// One endpoint and all that is known of it: its own fields and those of its [`Template`]. Text
/// fields may be empty where the wire leaves them out; `trust_domain`, `service_account` and
/// `cluster_id` never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub uid: WorkloadUid,
    /// None where it is the last part of the uid, as every pod's is.
    name: Option<Box<str>>,
    pub node: Arc<str>,
    pub addresses: SmallVec<[IpAddr; 1]>,
    pub locality: Arc<Locality>,
    pub status: WorkloadStatus,
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

    fn last_part(&self) -> &str {
        let after = self.0.rfind('/').map_or(0, |slash| slash + 1);
        &self.0[after..]
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
        Self::of_template(uid, name, Arc::new(Template::new(namespace)))
    }

    /// A healthy one like its siblings, for callers to fill in.
    pub fn of_template(uid: &str, name: &str, template: Arc<Template>) -> Self {
        let uid = WorkloadUid::new(uid);
        Self {
            name: (uid.last_part() != name).then(|| name.into()),
            uid,
            node: Arc::default(),
            addresses: SmallVec::new(),
            locality: Arc::default(),
            status: WorkloadStatus::Healthy,
            template,
        }
    }

    pub fn name(&self) -> &str {
        let own = self.name.as_deref();
        own.unwrap_or_else(|| self.uid.last_part())
    }

    pub fn identity(&self) -> Identity {
        Identity {
            trust_domain: self.trust_domain.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
        }
    }
}

impl Serialize for Workload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shown<'a> {
            uid: &'a WorkloadUid,
            name: &'a str,
            node: &'a str,
            workload_ips: &'a [IpAddr],
            locality: &'a Locality,
            status: WorkloadStatus,
            #[serde(flatten)]
            template: &'a Template,
        }
        let shown = Shown {
            uid: &self.uid,
            name: self.name(),
            node: &self.node,
            workload_ips: &self.addresses,
            locality: &self.locality,
            status: self.status,
            template: &self.template,
        };
        shown.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once_where_the_uid_ends_with_it() {
        for (uid, name, is_end) in [
            ("Kubernetes//Pod/shop/web-0", "web-0", true),
            ("Kubernetes//Pod/shop/web-0", "eb-0", false),
            (
                "Kubernetes/networking.istio.io/ServiceEntry/shop/api/10.0.0.1",
                "api",
                false,
            ),
            ("web-0", "web-0", true),
            ("web-0", "", false),
        ] {
            let workload = Workload::new(uid, name, "shop");
            assert_eq!(workload.name(), name, "{uid}");
            assert_eq!(workload.name.is_none(), is_end, "{uid} {name}");
        }
    }

    /// A mesh has a hundred thousand.
    #[test]
    fn it_is_small() {
        assert!(size_of::<Workload>() <= 112);
    }
}
