//! Kubernetes Service to service.

use mesh::address::NetworkAddress;
use mesh::service::{
    Algorithm, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope,
    Service as MeshService,
};

use crate::kind::Kind;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::service::{InternalTrafficPolicy, IpFamily, Service, ServiceType};
use crate::labels;
use crate::translate::namespace::{inherited_annotation, inherited_label};
use crate::translate::{Translation, ports, waypoint};
use crate::view::View;

pub(super) fn translate(view: &View, service: &Service) -> Translation {
    let metadata = &service.metadata;
    let spec = &service.spec;
    if spec.type_ == ServiceType::ExternalName {
        return Translation::default();
    }
    let hostname = view
        .context
        .service_hostname(&metadata.name, &metadata.namespace);
    let front = waypoint::of_service(view, Kind::Service, metadata);
    let conditions = front.iter().map(|front| front.condition.clone()).collect();
    let network = &view.context.network;
    let service = MeshService {
        addresses: service
            .cluster_ips()
            .into_iter()
            .map(|address| NetworkAddress::new(network.clone(), address))
            .collect(),
        ports: ports::of_service(service),
        waypoint: front.as_ref().map(|front| front.address.clone()),
        weighted_waypoints: front
            .as_ref()
            .map_or(Vec::new(), |one| one.weighted.clone()),
        load_balancing: load_balancing(view, service),
        ip_families: ip_families(&spec.ip_families),
        canonical: true,
        ingress_use_waypoint: ingress_use_waypoint(view, metadata),
        ..MeshService::new(&metadata.name, &metadata.namespace, &hostname)
    };
    Translation {
        services: vec![service],
        conditions,
        binding: front.map(|front| front.binding),
        ..Translation::default()
    }
}

pub(super) fn ingress_use_waypoint(view: &View, metadata: &ObjectMeta) -> bool {
    inherited_label(view, metadata, labels::INGRESS_USE_WAYPOINT) == Some("true")
}

fn load_balancing(view: &View, service: &Service) -> LoadBalancing {
    let spec = &service.spec;
    let preference = match spec.internal_traffic_policy {
        InternalTrafficPolicy::Local => LoadBalancing {
            mode: LoadBalancingMode::Strict,
            routing_preference: vec![Scope::Node],
            ..LoadBalancing::default()
        },
        InternalTrafficPolicy::Cluster if !spec.traffic_distribution.is_empty() => {
            traffic_distribution(&spec.traffic_distribution)
        }
        InternalTrafficPolicy::Cluster => annotated(view, &service.metadata),
    };
    LoadBalancing {
        health_policy: match spec.publish_not_ready_addresses {
            true => HealthPolicy::AllowAll,
            false => HealthPolicy::OnlyHealthy,
        },
        algorithm: algorithm(view, &service.metadata),
        ..preference
    }
}

/// The annotations', the object's own or its namespace's.
pub(super) fn annotated(view: &View, metadata: &ObjectMeta) -> LoadBalancing {
    let preference = inherited_annotation(view, metadata, labels::TRAFFIC_DISTRIBUTION)
        .map_or_else(LoadBalancing::default, traffic_distribution);
    LoadBalancing {
        algorithm: algorithm(view, metadata),
        ..preference
    }
}

/// In any letter case; what is not known means none.
fn algorithm(view: &View, metadata: &ObjectMeta) -> Algorithm {
    match inherited_annotation(view, metadata, labels::LOAD_BALANCER) {
        Some(value) if value.eq_ignore_ascii_case("LEAST_REQUEST") => Algorithm::LeastRequest,
        Some(_) | None => Algorithm::Random,
    }
}

/// In any letter case; what is not known means no preference.
fn traffic_distribution(text: &str) -> LoadBalancing {
    const ZONE: [Scope; 3] = [Scope::Network, Scope::Region, Scope::Zone];
    let routing_preference = match text.to_ascii_lowercase().as_str() {
        "preferclose" | "prefersamezone" => ZONE.to_vec(),
        "prefersamenode" => [&ZONE[..], &[Scope::Subzone, Scope::Node]].concat(),
        _ => return LoadBalancing::default(),
    };
    LoadBalancing {
        mode: LoadBalancingMode::Failover,
        routing_preference,
        ..LoadBalancing::default()
    }
}

fn ip_families(families: &[IpFamily]) -> IpFamilies {
    let has = |family| families.contains(&family);
    match (has(IpFamily::Ipv4), has(IpFamily::Ipv6)) {
        (true, true) => IpFamilies::Dual,
        (true, false) => IpFamilies::Ipv4Only,
        (false, true) => IpFamilies::Ipv6Only,
        (false, false) => IpFamilies::Automatic,
    }
}
