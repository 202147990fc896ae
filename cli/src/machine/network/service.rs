//! What there is to reach in the mesh, as far as addresses and names go.
use std::collections::BTreeMap;
use std::net::IpAddr;

/// A Kubernetes Service with its ready endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) kind: Kind,
    pub(crate) ports: Vec<Port>,
    /// Those that traffic and names may lead to now.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) internal_traffic_policy: InternalTrafficPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its name leads to these addresses, and these to its endpoints.
    ClusterIp(Vec<IpAddr>),
    /// Its name leads to its endpoints.
    Headless,
    /// Its name is another one.
    ExternalName(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum InternalTrafficPolicy {
    #[default]
    Cluster,
    /// Only endpoints on the client's own node.
    Local,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) number: u16,
    pub(crate) protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ips: Vec<IpAddr>,
    /// Where it runs, counted from 1.
    pub(crate) node: usize,
    /// Gives it a name of its own under a headless service.
    pub(crate) hostname: Option<String>,
    /// The service's port and what it is called here; a named target port may differ between pods.
    pub(crate) targets: BTreeMap<(Protocol, u16), u16>,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        }
    }
}
