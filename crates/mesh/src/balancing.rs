//! Which endpoints of a service a client should try, best first.
//!
//! Connections draw [`candidates`] once each; requests go by a [`balancer`], which remembers
//! what every endpoint of a tier has to do.

pub mod balancer;

mod least_request;
mod peak_ewma;
mod round_robin;
mod weights;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rand::Rng;

use crate::service::{LoadBalancing, LoadBalancingMode, Scope};
use crate::snapshot::{Endpoint, Endpoints, ServiceEntry};
use crate::workload::Workload;

/// The endpoints eligible for `client` on `service_port`, in the order to try them:
/// the locality scopes decide who takes part, capacity weighs a random draw among them.
/// With FAILOVER, endpoints of a lower rank follow those of the best.
///
/// At most `limit` endpoints are returned; an empty answer means no usable endpoint.
pub fn candidates<'a>(
    entry: &'a ServiceEntry,
    client: &Workload,
    service_port: u16,
    limit: usize,
    random: &mut impl Rng,
) -> Vec<&'a Endpoint> {
    let usable = |endpoint: &&Endpoint| is_usable(entry, endpoint, client, service_port);
    let balancing = &entry.service.load_balancing;
    match balancing.mode {
        LoadBalancingMode::Standard | LoadBalancingMode::Passthrough => {
            if entry.endpoints.have_equal_capacity() {
                let drawn = draw(&entry.endpoints, limit, random);
                let drawn: Vec<_> = drawn.filter(usable).collect();
                if !drawn.is_empty() {
                    return drawn;
                }
            }
            weigh(entry.endpoints.iter().filter(usable), |_| 0, limit, random)
        }
        LoadBalancingMode::Strict => {
            let scopes = &balancing.routing_preference;
            let matching = entry.endpoints.iter().filter(usable).filter(|endpoint| {
                let workload = &endpoint.workload;
                scopes.iter().all(|scope| matches(*scope, client, workload))
            });
            weigh(matching, |_| 0, limit, random)
        }
        LoadBalancingMode::Failover => {
            let rank = |endpoint: &Endpoint| rank(balancing, client, &endpoint.workload);
            weigh(entry.endpoints.iter().filter(usable), rank, limit, random)
        }
    }
}

/// The endpoints eligible for `client` on `service_port` by how close they are, best first: one
/// tier, but with FAILOVER one for each rank that any has. A tier serves while it has an
/// endpoint that is fit to.
pub fn tiers<'a>(
    entry: &'a ServiceEntry,
    client: &Workload,
    service_port: u16,
) -> Vec<Vec<&'a Endpoint>> {
    let balancing = &entry.service.load_balancing;
    let scopes = &balancing.routing_preference;
    let usable = entry
        .endpoints
        .iter()
        .filter(|endpoint| is_usable(entry, endpoint, client, service_port));
    let mut tiers: BTreeMap<Reverse<usize>, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in usable {
        let workload = &endpoint.workload;
        let rank = match balancing.mode {
            LoadBalancingMode::Standard | LoadBalancingMode::Passthrough => Some(0),
            LoadBalancingMode::Strict => scopes
                .iter()
                .all(|scope| matches(*scope, client, workload))
                .then_some(0),
            LoadBalancingMode::Failover => Some(rank(balancing, client, workload)),
        };
        if let Some(rank) = rank {
            tiers.entry(Reverse(rank)).or_default().push(endpoint);
        }
    }
    tiers.into_values().collect()
}

/// Whether this node could reach the endpoint at all. One in another network is behind a
/// gateway, which a node cannot pass.
fn is_usable(
    entry: &ServiceEntry,
    endpoint: &Endpoint,
    client: &Workload,
    service_port: u16,
) -> bool {
    let workload = &endpoint.workload;
    workload.capacity != 0
        && workload.network == client.network
        && (!workload.addresses.is_empty() || workload.hostname.is_some())
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

/// Some endpoints in random order, in time that does not depend on how many there are.
fn draw<'a>(
    endpoints: &'a Endpoints,
    limit: usize,
    random: &mut impl Rng,
) -> impl Iterator<Item = &'a Endpoint> {
    let amount = limit.min(endpoints.len());
    rand::seq::index::sample(random, endpoints.len(), amount)
        .into_iter()
        .map(|index| &endpoints[index])
}

/// Orders by rank, highest first, and within a rank as a weighted draw without replacement:
/// each endpoint waits an exponential time of rate capacity, the shortest goes first.
fn weigh<'a>(
    endpoints: impl Iterator<Item = &'a Endpoint>,
    rank: impl Fn(&Endpoint) -> usize,
    limit: usize,
    random: &mut impl Rng,
) -> Vec<&'a Endpoint> {
    let mut ordered: Vec<(Reverse<usize>, f64, &Endpoint)> = endpoints
        .map(|endpoint| {
            let uniform: f64 = random.random_range(f64::MIN_POSITIVE..1.0);
            let wait = -uniform.ln() / f64::from(endpoint.workload.capacity);
            (Reverse(rank(endpoint)), wait, endpoint)
        })
        .collect();
    ordered.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    ordered.truncate(limit);
    ordered
        .into_iter()
        .map(|(_, _, endpoint)| endpoint)
        .collect()
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
