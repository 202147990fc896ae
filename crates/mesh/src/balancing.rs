//! Which endpoints of a service a client should try, best first.
//!
//! Connections are drawn one by one from a [`Selection`], past those that are [`ejection`]'s;
//! requests go by a [`balancer`], which remembers what every endpoint of a tier has to do.

pub mod balancer;

pub mod selection;

pub mod ejection;

pub mod active;

mod least_request;
mod peak_ewma;
mod round_robin;
mod weights;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rand::Rng;

pub use self::active::{Active, ActiveConnection};
pub use self::ejection::{Candidates, Ejected, Ejections, ServicePort};
pub use self::selection::{Drawn, Observed, Selection, Selections};
use self::weights::Weights;
use crate::service::{LoadBalancing, LoadBalancingMode, Scope};
use crate::snapshot::{Endpoint, ServiceEntry};
use crate::workload::{TunnelProtocol, Workload};

/// The endpoints of `client`'s own network that are eligible on `service_port` by how close they
/// are, best first: one tier, but with FAILOVER one for each rank that any has. A tier serves
/// while it has an endpoint that is fit to.
pub fn tiers<'a>(
    entry: &'a ServiceEntry,
    client: &Workload,
    service_port: u16,
) -> Vec<Vec<&'a Endpoint>> {
    let balancing = &entry.service.load_balancing;
    let mut tiers: BTreeMap<Reverse<usize>, Vec<&Endpoint>> = BTreeMap::new();
    let usable = |one: &&Endpoint| is_usable(entry, one, &client.network, service_port);
    for endpoint in entry.endpoints.iter().filter(usable) {
        if let Some(rank) = eligible_rank(balancing, client, &endpoint.workload) {
            tiers.entry(Reverse(rank)).or_default().push(endpoint);
        }
    }
    tiers.into_values().collect()
}

/// How close an endpoint is, as far as that counts: all equally, but with FAILOVER. None where it
/// is not to be used for that.
fn eligible_rank(
    balancing: &LoadBalancing,
    client: &Workload,
    endpoint: &Workload,
) -> Option<usize> {
    match balancing.mode {
        LoadBalancingMode::Standard | LoadBalancingMode::Passthrough => Some(0),
        LoadBalancingMode::Strict => {
            let mut scopes = balancing.routing_preference.iter();
            let matches = scopes.all(|scope| matches(*scope, client, endpoint));
            matches.then_some(0)
        }
        LoadBalancingMode::Failover => Some(rank(balancing, client, endpoint)),
    }
}

/// A proxy of a gateway into another network, by its place in the list. Its addresses are dialled
/// from any.
pub(crate) fn gateway(
    entry: &ServiceEntry,
    qualifies: impl Fn(usize) -> bool,
    random: &mut impl Rng,
) -> Option<usize> {
    let all = entry.endpoints.iter();
    let weights: Weights = all.map(|endpoint| endpoint.workload.capacity).collect();
    let has_address = |at: usize| !entry.endpoints[at].workload.addresses.is_empty();
    weights.draw(|at| has_address(at) && qualifies(at), random)
}

/// Whether the endpoint can be reached from a network: in it, or through the gateway of another.
fn is_reachable(
    entry: &ServiceEntry,
    endpoint: &Endpoint,
    network: &str,
    service_port: u16,
) -> bool {
    let workload = &endpoint.workload;
    match *workload.network == *network {
        true => is_usable(entry, endpoint, network, service_port),
        false => {
            workload.capacity != 0
                && workload.network_gateway.is_some()
                && endpoint_port(entry, endpoint, service_port).is_some()
        }
    }
}

/// Whether the endpoint can be reached in its own network. DNS is no authority on where a tunnel
/// ends.
fn is_usable(entry: &ServiceEntry, endpoint: &Endpoint, network: &str, service_port: u16) -> bool {
    let workload = &endpoint.workload;
    let families = entry.service.ip_families;
    let is_found = match workload.addresses.is_empty() {
        true => workload.hostname.is_some() && workload.tunnel_protocol == TunnelProtocol::None,
        false => workload.addresses.iter().any(|one| families.admit(one)),
    };
    is_found
        && workload.capacity != 0
        && *workload.network == *network
        && endpoint_port(entry, endpoint, service_port).is_some()
}

/// The port on the endpoint. An application tunnel with a port of its own takes any.
pub(crate) fn endpoint_port(
    entry: &ServiceEntry,
    endpoint: &Endpoint,
    service_port: u16,
) -> Option<u16> {
    let tunnel = endpoint.workload.application_tunnel.as_ref();
    entry
        .target_port(endpoint, service_port)
        .or_else(|| tunnel.and_then(|tunnel| tunnel.port).map(|_| service_port))
}

/// How close an endpoint is: the number of leading scopes it shares with the client. NETWORK
/// as the first scope outweighs all others together, and missing it does not end the count.
fn rank(balancing: &LoadBalancing, client: &Workload, endpoint: &Workload) -> usize {
    let scopes = &balancing.routing_preference;
    let Some((Scope::Network, rest)) = scopes.split_first() else {
        return leading(scopes, client, endpoint);
    };
    let network = if matches(Scope::Network, client, endpoint) {
        scopes.len()
    } else {
        0
    };
    network + leading(rest, client, endpoint)
}

fn leading(scopes: &[Scope], client: &Workload, endpoint: &Workload) -> usize {
    scopes
        .iter()
        .take_while(|scope| matches(**scope, client, endpoint))
        .count()
}

fn matches(scope: Scope, client: &Workload, endpoint: &Workload) -> bool {
    match scope {
        Scope::Region => client.locality.region == endpoint.locality.region,
        Scope::Zone => client.locality.zone == endpoint.locality.zone,
        Scope::Subzone => client.locality.subzone == endpoint.locality.subzone,
        Scope::Node => client.node == endpoint.node,
        Scope::Cluster => client.cluster_id == endpoint.cluster_id,
        Scope::Network => client.network == endpoint.network,
    }
}

#[cfg(test)]
mod tests;
