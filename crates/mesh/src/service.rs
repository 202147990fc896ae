//! A group of endpoints under one hostname.

use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::address::{GatewayAddress, NamespacedHostname, NetworkAddress, NetworkCidr};

/// A service and how to balance over its endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub hostname: Arc<str>,
    /// Virtual addresses; empty when headless.
    #[serde(rename = "vips")]
    pub addresses: Vec<NetworkAddress>,
    pub cidr_vips: Vec<NetworkCidr>,
    pub ports: Vec<Port>,
    /// Server identities accepted besides the endpoints' own.
    pub subject_alt_names: Vec<Arc<str>>,
    pub waypoint: Option<GatewayAddress>,
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    pub load_balancing: LoadBalancing,
    pub ip_families: IpFamilies,
    /// Preferred owner of its hostname.
    pub canonical: bool,
    pub ingress_use_waypoint: bool,
    pub visibility: Visibility,
}

/// A frontend port and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    pub service_port: u16,
    /// 0: each endpoint says for itself (a named target port).
    pub target_port: u16,
    pub app_protocol: AppProtocol,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AppProtocol {
    #[default]
    Unknown,
    Http11,
    Http2,
    Grpc,
    Tcp,
    Tls,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WeightedWaypoint {
    pub destination: GatewayAddress,
    /// 0 means no traffic.
    pub weight: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancing {
    pub mode: LoadBalancingMode,
    /// Locality scopes, most significant first.
    #[serde(rename = "routingPreferences")]
    pub routing_preference: Vec<Scope>,
    pub health_policy: HealthPolicy,
    #[serde(skip_serializing_if = "Algorithm::is_default")]
    pub algorithm: Algorithm,
}

/// How a connection's endpoint is chosen among equals, under the names of DestinationRule's
/// `simple`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Algorithm {
    /// By weight.
    #[default]
    Random,
    /// Of two drawn by weight, the one with fewer connections under way.
    LeastRequest,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum LoadBalancingMode {
    /// All endpoints are equal.
    #[default]
    Standard,
    /// An endpoint must match every scope.
    Strict,
    /// The longest run of matching scopes wins.
    Failover,
    /// The original destination is used; endpoints are not consulted.
    Passthrough,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Scope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum HealthPolicy {
    #[default]
    OnlyHealthy,
    AllowAll,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum IpFamilies {
    #[default]
    Automatic,
    Ipv4Only,
    Ipv6Only,
    Dual,
}

/// Which clients may resolve the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Visibility {
    #[default]
    Public,
    /// Clients of the same namespace only.
    Namespace,
}

// === impl Algorithm ===

impl Algorithm {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

// === impl IpFamilies ===

impl IpFamilies {
    /// Whether endpoints may be reached at an address of this family.
    pub fn admit(self, address: &IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::Ipv4Only => address.is_ipv4(),
            Self::Ipv6Only => address.is_ipv6(),
        }
    }
}

// === impl Service ===

impl Service {
    /// A public service with the wire's defaults, for callers to fill in.
    pub fn new(name: &str, namespace: &str, hostname: &str) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            hostname: hostname.into(),
            addresses: Vec::new(),
            cidr_vips: Vec::new(),
            ports: Vec::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::default(),
            canonical: false,
            ingress_use_waypoint: false,
            visibility: Visibility::default(),
        }
    }

    pub fn key(&self) -> NamespacedHostname {
        NamespacedHostname {
            namespace: self.namespace.clone(),
            hostname: self.hostname.clone(),
        }
    }

    pub fn port(&self, service_port: u16) -> Option<&Port> {
        self.ports
            .iter()
            .find(|port| port.service_port == service_port)
    }
}
