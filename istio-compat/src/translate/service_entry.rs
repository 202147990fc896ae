//! ServiceEntry to one service for each host, and a workload for each inline endpoint.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh::address::{NamespacedHostname, NetworkAddress, NetworkCidr};
use mesh::service::{
    HealthPolicy, LoadBalancing, LoadBalancingMode, Service as MeshService, Visibility,
};
use mesh::workload::{Memberships, Workload};

use crate::kind::Kind;
use crate::kinds::metadata::Condition;
use crate::kinds::service_entry::{Resolution, ServiceEntry};
use crate::kinds::workload_entry::WorkloadEntrySpec;
use crate::object::Resource;
use crate::translate::workload::Endpoint;
use crate::translate::{Translation, ports, service, waypoint, workload, workload_entry};
use crate::view::View;

/// What hosts that another object owns mean for the status.
const CONFLICTED: &str = "weft.dev/HostConflict";
const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";

pub(super) fn translate(view: &View, entry: &ServiceEntry) -> Translation {
    let metadata = &entry.metadata;
    let hosts: Vec<&str> = owned_hosts(view, entry).collect();
    let front = waypoint::of_service(view, Kind::ServiceEntry, metadata);
    let mut conditions: Vec<Condition> = front.iter().map(|one| one.condition.clone()).collect();
    conditions.extend(conflicts(view, entry));
    if front.is_none() && entry.spec.resolution == Resolution::DynamicDns {
        conditions.push(Condition::new(
            WAYPOINT_MISSING,
            true,
            "NoWaypointForWildcardService",
            "resolution DYNAMIC_DNS needs a waypoint: label the entry with istio.io/use-waypoint",
        ));
    }
    let services = hosts
        .iter()
        .map(|host| {
            let (addresses, cidr_vips) = addresses(view, entry, host);
            MeshService {
                addresses,
                cidr_vips,
                ports: ports::of_service_entry(entry),
                subject_alt_names: entry
                    .spec
                    .subject_alt_names
                    .iter()
                    .map(|name| name.as_str().into())
                    .collect(),
                waypoint: front.as_ref().map(|one| one.address.clone()),
                weighted_waypoints: front
                    .as_ref()
                    .map_or(Vec::new(), |one| one.weighted.clone()),
                load_balancing: load_balancing(view, entry),
                canonical: view.owner(host, None) == Some(&entry.key()),
                ingress_use_waypoint: service::ingress_use_waypoint(view, metadata),
                visibility: Visibility::Public,
                ..MeshService::new(&metadata.name, &metadata.namespace, host)
            }
        })
        .collect();
    Translation {
        services,
        workloads: endpoints(view, entry, &hosts),
        conditions,
        binding: front.map(|front| front.binding),
        ..Translation::default()
    }
}

/// The hosts that are this entry's in its namespace: a Service of the same name, or an
/// older entry, takes a host away.
pub(super) fn owned_hosts<'a>(
    view: &'a View,
    entry: &'a ServiceEntry,
) -> impl Iterator<Item = &'a str> {
    let key = entry.key();
    entry
        .spec
        .hosts
        .iter()
        .map(String::as_str)
        .filter(move |host| view.owner(host, Some(&entry.metadata.namespace)) == Some(&key))
}

fn conflicts(view: &View, entry: &ServiceEntry) -> Option<Condition> {
    let lost: Vec<String> = entry
        .spec
        .hosts
        .iter()
        .filter_map(|host| {
            let owner = view.owner(host, Some(&entry.metadata.namespace))?;
            (*owner != entry.key()).then(|| format!("{host} belongs to {owner}"))
        })
        .collect();
    (!lost.is_empty()).then(|| Condition::new(CONFLICTED, true, "HostTaken", lost.join("; ")))
}

/// What the entry says, else what was allocated to the host.
fn addresses(
    view: &View,
    entry: &ServiceEntry,
    host: &str,
) -> (Vec<NetworkAddress>, Vec<NetworkCidr>) {
    let network = &view.context.network;
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut ranges = Vec::new();
    for text in &entry.spec.addresses {
        match text.parse::<IpNet>() {
            Ok(range) if range.prefix_len() != range.max_prefix_len() => ranges.push(NetworkCidr {
                network: network.clone(),
                cidr: range.trunc(),
            }),
            Ok(range) => addresses.push(range.addr()),
            Err(_) => addresses.extend(text.parse::<IpAddr>()),
        }
    }
    addresses.extend(view.allocated(&entry.key(), host).into_iter().flatten());
    let addresses = addresses
        .into_iter()
        .map(|address| NetworkAddress::new(network.clone(), address))
        .collect();
    (addresses, ranges)
}

fn load_balancing(view: &View, entry: &ServiceEntry) -> LoadBalancing {
    match entry.spec.resolution {
        Resolution::None => LoadBalancing {
            mode: LoadBalancingMode::Passthrough,
            health_policy: HealthPolicy::AllowAll,
            ..LoadBalancing::default()
        },
        Resolution::Static
        | Resolution::Dns
        | Resolution::DnsRoundRobin
        | Resolution::DynamicDns => service::annotated(view, &entry.metadata),
    }
}

fn endpoints(view: &View, entry: &ServiceEntry, hosts: &[&str]) -> Vec<Workload> {
    if hosts.is_empty() {
        return Vec::new();
    }
    let spec = &entry.spec;
    let given = spec
        .endpoints
        .iter()
        .map(|endpoint| inline(view, entry, endpoint, hosts));
    let resolved = match spec.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns => {
            spec.endpoints.is_empty() && spec.workload_selector.is_none()
        }
        Resolution::None | Resolution::Static => false,
    };
    // A wildcard is no name to resolve: without a waypoint it has no endpoint.
    let names = hosts
        .iter()
        .filter(|host| resolved && !host.starts_with('*'));
    let implicit = names.map(|host| {
        let endpoint = WorkloadEntrySpec {
            address: (*host).to_owned(),
            ..WorkloadEntrySpec::default()
        };
        inline(view, entry, &endpoint, &[host])
    });
    given.chain(implicit).collect()
}

fn inline(
    view: &View,
    entry: &ServiceEntry,
    endpoint: &WorkloadEntrySpec,
    hosts: &[&str],
) -> Workload {
    let (name, namespace) = (&entry.metadata.name, &entry.metadata.namespace);
    let uid = format!(
        "{}/networking.istio.io/ServiceEntry/{namespace}/{name}/{}",
        view.context.cluster_id, endpoint.address
    );
    let own_ports = endpoint.service_entry_ports(entry);
    let services: Memberships = hosts
        .iter()
        .map(|host| {
            let key = NamespacedHostname::new(namespace.as_str(), *host);
            (key, own_ports.clone())
        })
        .collect();
    let mut workload = workload::new(view, &uid, name, namespace);
    workload.workload_name = name.as_str().into();
    workload.authorization_policies = workload::policies(view, namespace, &endpoint.labels);
    workload.services = services;
    workload_entry::set_spec(&mut workload, endpoint);
    workload::set_tunnel(&mut workload, &Default::default(), &endpoint.labels);
    workload::set_request_policies(&mut workload, view, &endpoint.labels);
    workload::set_canonical(&mut workload, &endpoint.labels);
    workload
}
