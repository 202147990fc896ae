//! Services of a local mesh.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::address::{NamespacedHostname, NetworkCidr};
use mesh::service::{
    Algorithm, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope, Service,
    Visibility, WeightedWaypoint,
};
use mesh::workload::WorkloadUid;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{LocalGateway, Ports, address, ports};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalService {
    name: Arc<str>,
    namespace: Arc<str>,
    hostname: Arc<str>,
    /// `network/address`.
    #[serde(default)]
    vips: Vec<String>,
    /// `network/address/prefix length`.
    #[serde(default)]
    cidr_vips: Vec<String>,
    #[serde(default)]
    ports: Ports,
    /// By uid. They follow from the workloads' services; those that are told must be among them.
    #[serde(default)]
    endpoints: BTreeMap<String, IgnoredAny>,
    /// How many back it, which follows as well.
    #[serde(default, rename = "members")]
    _members: IgnoredAny,
    #[serde(default)]
    subject_alt_names: Vec<Arc<str>>,
    waypoint: Option<LocalGateway>,
    #[serde(default)]
    weighted_waypoints: Vec<LocalWeightedWaypoint>,
    load_balancer: Option<LocalLoadBalancer>,
    #[serde(default)]
    ip_families: LocalIpFamilies,
    #[serde(default)]
    canonical: bool,
    #[serde(default)]
    visibility: LocalVisibility,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalWeightedWaypoint {
    destination: LocalGateway,
    weight: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalLoadBalancer {
    mode: LocalMode,
    routing_preferences: Vec<LocalScope>,
    #[serde(default)]
    health_policy: LocalHealthPolicy,
    #[serde(default)]
    algorithm: LocalAlgorithm,
}

#[derive(Debug, Deserialize)]
enum LocalMode {
    Standard,
    Strict,
    Failover,
    Passthrough,
}

#[derive(Debug, Deserialize)]
enum LocalScope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Debug, Default, Deserialize)]
enum LocalHealthPolicy {
    #[default]
    OnlyHealthy,
    AllowAll,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum LocalAlgorithm {
    #[default]
    Random,
    LeastRequest,
}

/// Istio's text names a family as people do, and says nothing where any will do.
#[derive(Debug, Default, Deserialize)]
enum LocalIpFamilies {
    #[default]
    Automatic,
    #[serde(alias = "IPv4")]
    Ipv4Only,
    #[serde(alias = "IPv6")]
    Ipv6Only,
    Dual,
}

#[derive(Debug, Default, Deserialize)]
enum LocalVisibility {
    #[default]
    Public,
    Namespace,
}

// === impl LocalService ===

impl LocalService {
    /// Who it says backs it.
    pub(super) fn endpoints(&self) -> Vec<(NamespacedHostname, WorkloadUid)> {
        let key = NamespacedHostname::new(self.namespace.clone(), self.hostname.clone());
        let uids = self.endpoints.keys();
        uids.map(|uid| (key.clone(), WorkloadUid::new(&**uid)))
            .collect()
    }

    pub(super) fn service(self) -> Result<Service, String> {
        let mut service = Service::new(&self.name, &self.namespace, &self.hostname);
        for vip in &self.vips {
            let parsed = address(vip);
            let parsed = parsed.ok_or_else(|| format!("{vip:?} is not network/address"))?;
            service.addresses.push(parsed);
        }
        for vip in &self.cidr_vips {
            let parsed = cidr(vip);
            let parsed =
                parsed.ok_or_else(|| format!("{vip:?} is not network/address/prefix length"))?;
            service.cidr_vips.push(parsed);
        }
        service.ports = ports(self.ports);
        service.subject_alt_names = self.subject_alt_names;
        service.waypoint = self.waypoint.map(LocalGateway::gateway).transpose()?;
        for waypoint in self.weighted_waypoints {
            service.weighted_waypoints.push(WeightedWaypoint {
                destination: waypoint.destination.gateway()?,
                weight: waypoint.weight,
            });
        }
        service.load_balancing = self
            .load_balancer
            .map_or_else(LoadBalancing::default, Into::into);
        service.ip_families = match self.ip_families {
            LocalIpFamilies::Automatic => IpFamilies::Automatic,
            LocalIpFamilies::Ipv4Only => IpFamilies::Ipv4Only,
            LocalIpFamilies::Ipv6Only => IpFamilies::Ipv6Only,
            LocalIpFamilies::Dual => IpFamilies::Dual,
        };
        service.canonical = self.canonical;
        service.visibility = match self.visibility {
            LocalVisibility::Public => Visibility::Public,
            LocalVisibility::Namespace => Visibility::Namespace,
        };
        Ok(service)
    }
}

fn cidr(text: &str) -> Option<NetworkCidr> {
    let (network, cidr) = text.split_once('/')?;
    Some(NetworkCidr {
        network: network.into(),
        cidr: cidr.parse().ok()?,
    })
}

// === impl LocalLoadBalancer ===

impl From<LocalLoadBalancer> for LoadBalancing {
    fn from(balancer: LocalLoadBalancer) -> Self {
        let scope = |scope| match scope {
            LocalScope::Region => Scope::Region,
            LocalScope::Zone => Scope::Zone,
            LocalScope::Subzone => Scope::Subzone,
            LocalScope::Node => Scope::Node,
            LocalScope::Cluster => Scope::Cluster,
            LocalScope::Network => Scope::Network,
        };
        Self {
            mode: match balancer.mode {
                LocalMode::Standard => LoadBalancingMode::Standard,
                LocalMode::Strict => LoadBalancingMode::Strict,
                LocalMode::Failover => LoadBalancingMode::Failover,
                LocalMode::Passthrough => LoadBalancingMode::Passthrough,
            },
            routing_preference: balancer
                .routing_preferences
                .into_iter()
                .map(scope)
                .collect(),
            health_policy: match balancer.health_policy {
                LocalHealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
                LocalHealthPolicy::AllowAll => HealthPolicy::AllowAll,
            },
            algorithm: match balancer.algorithm {
                LocalAlgorithm::Random => Algorithm::Random,
                LocalAlgorithm::LeastRequest => Algorithm::LeastRequest,
            },
        }
    }
}
