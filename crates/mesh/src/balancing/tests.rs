//! Tests of endpoint choice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::NamespacedHostname;
use crate::service::{AppProtocol, HealthPolicy, Port, Service};
use crate::snapshot::{Change, Snapshot};
use crate::workload::{ApplicationProtocol, ApplicationTunnel, WorkloadStatus};

const PORT: u16 = 80;
const DRAWS: usize = 3000;

/// One endpoint: name, and where it is as `network/region/zone/node`.
fn endpoint(name: &str, place: &str) -> Workload {
    let mut parts = place.split('/').map(Arc::<str>::from);
    let mut part = || parts.next().expect("four parts");
    let mut workload = Workload::new(name, name, "shop");
    workload.addresses = [[10, 0, 0, 1].into()].into_iter().collect();
    workload.network = part();
    let locality = Arc::make_mut(&mut workload.locality);
    locality.region = part();
    locality.zone = part();
    workload.node = part();
    let key = NamespacedHostname::new("shop", "web");
    workload.services.insert(key, Vec::new());
    workload
}

fn service(mode: LoadBalancingMode, scopes: &[Scope]) -> Service {
    let mut service = Service::new("web", "shop", "web");
    service.load_balancing.mode = mode;
    service.load_balancing.routing_preference = scopes.to_vec();
    service.ports = vec![Port {
        service_port: PORT,
        target_port: 8080,
        app_protocol: AppProtocol::Unknown,
    }];
    service
}

fn entry(service: Service, endpoints: Vec<Workload>) -> Arc<ServiceEntry> {
    let key = service.key();
    let mut snapshot = Snapshot::default();
    snapshot.apply(endpoints.into_iter().map(Change::Workload));
    snapshot.apply([Change::Service(service)]);
    snapshot.service(&key).expect("applied").clone()
}

fn client() -> Workload {
    endpoint("client", "/west/a/node-1")
}

/// Names in the order to try them, once.
fn once(entry: &Arc<ServiceEntry>, limit: usize, seed: u64) -> Vec<String> {
    let mut random = SmallRng::seed_from_u64(seed);
    let selection = Selection::new(entry, &client(), PORT);
    let observed = Observed::nothing(Instant::now());
    let mut drawn = Vec::new();
    while drawn.len() < limit
        && let Some(next) = selection.draw(&drawn, observed, &mut random)
    {
        drawn.push(next);
    }
    let name = |one: &Drawn| selection.endpoint(*one).workload.name().to_owned();
    drawn.iter().map(name).collect()
}

/// How often each endpoint comes first.
fn firsts(entry: &Arc<ServiceEntry>) -> BTreeMap<String, usize> {
    let mut random = SmallRng::seed_from_u64(7);
    let selection = Selection::new(entry, &client(), PORT);
    let observed = Observed::nothing(Instant::now());
    let mut firsts = BTreeMap::new();
    for _ in 0..DRAWS {
        if let Some(first) = selection.draw(&[], observed, &mut random) {
            let name = selection.endpoint(first).workload.name().to_owned();
            *firsts.entry(name).or_default() += 1;
        }
    }
    firsts
}

fn names(entry: &Arc<ServiceEntry>) -> Vec<String> {
    firsts(entry).into_keys().collect()
}

#[test]
fn equals_are_drawn_equally() {
    let places = ["a", "b", "c"].map(|name| endpoint(name, "///"));
    let entry = entry(service(LoadBalancingMode::Standard, &[]), places.into());
    for (name, count) in firsts(&entry) {
        assert!((900..1100).contains(&count), "{name}: {count}");
    }
}

#[test]
fn capacity_weighs_and_none_means_never() {
    let mut endpoints = ["idle", "one", "two"].map(|name| endpoint(name, "///"));
    endpoints[0].capacity = 0;
    endpoints[2].capacity = 2;
    let entry = entry(service(LoadBalancingMode::Standard, &[]), endpoints.into());
    let firsts = firsts(&entry);
    assert_eq!(firsts.len(), 2);
    assert!((900..1100).contains(&firsts["one"]), "{firsts:?}");
}

#[test]
fn several_are_returned_each_once_up_to_the_limit() {
    let endpoints = (0..20)
        .map(|n| endpoint(&format!("pod-{n}"), "///"))
        .collect();
    let entry = entry(service(LoadBalancingMode::Standard, &[]), endpoints);
    for seed in 0..50 {
        let mut drawn = once(&entry, 5, seed);
        assert_eq!(drawn.len(), 5);
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 5);
    }
    assert_eq!(once(&entry, 50, 1).len(), 20);
    assert!(once(&entry, 0, 1).is_empty());
}

#[test]
fn the_one_usable_endpoint_among_many_is_found() {
    let mut endpoints: Vec<_> = (0..100)
        .map(|n| endpoint(&format!("pod-{n:02}"), "far///"))
        .collect();
    endpoints[42].network = "".into();
    let entry = entry(service(LoadBalancingMode::Standard, &[]), endpoints);
    assert_eq!(names(&entry), ["pod-42"]);
}

#[test]
fn strict_keeps_only_full_matches() {
    let scopes = [Scope::Region, Scope::Zone];
    let places = [
        endpoint("here", "/west/a/node-2"),
        endpoint("next", "/west/b/node-3"),
        endpoint("far", "/east/a/node-4"),
    ];
    let here = entry(service(LoadBalancingMode::Strict, &scopes), places.to_vec());
    assert_eq!(names(&here), ["here"]);
    let none = entry(
        service(LoadBalancingMode::Strict, &scopes),
        places[1..].to_vec(),
    );
    assert!(names(&none).is_empty());
}

#[test]
fn failover_prefers_the_closest_and_falls_back_in_order() {
    let scopes = [Scope::Network, Scope::Region, Scope::Zone];
    let places = vec![
        endpoint("far", "/east/a/node-4"),
        endpoint("here", "/west/a/node-2"),
        endpoint("next", "/west/b/node-3"),
    ];
    let entry = entry(service(LoadBalancingMode::Failover, &scopes), places);
    for seed in 0..20 {
        assert_eq!(once(&entry, 5, seed), ["here", "next", "far"]);
    }
}

#[test]
fn a_zone_counts_only_inside_the_same_region() {
    let scopes = [Scope::Region, Scope::Zone];
    let balancing = service(LoadBalancingMode::Failover, &scopes).load_balancing;
    assert_eq!(rank(&balancing, &client(), &endpoint("a", "/east/a/x")), 0);
    assert_eq!(rank(&balancing, &client(), &endpoint("b", "/west/b/x")), 1);
    assert_eq!(rank(&balancing, &client(), &endpoint("c", "/west/a/x")), 2);
}

#[test]
fn the_own_network_as_first_scope_outweighs_all_others() {
    let scopes = [Scope::Network, Scope::Region, Scope::Zone];
    let balancing = service(LoadBalancingMode::Failover, &scopes).load_balancing;
    let rank = |place| rank(&balancing, &client(), &endpoint("a", place));
    assert!(rank("/east/b/x") > rank("far/west/a/x"));
    assert!(rank("far/west/a/x") > rank("far/west/b/x"));
    assert!(rank("far/west/b/x") > rank("far/east/a/x"));
}

#[test]
fn unhealthy_endpoints_take_part_only_where_the_service_says_so() {
    let mut sick = endpoint("sick", "///");
    sick.status = WorkloadStatus::Unhealthy;
    let endpoints = vec![sick, endpoint("well", "///")];
    let mut service = service(LoadBalancingMode::Standard, &[]);
    assert_eq!(names(&entry(service.clone(), endpoints.clone())), ["well"]);
    service.load_balancing.health_policy = HealthPolicy::AllowAll;
    assert_eq!(names(&entry(service, endpoints)), ["sick", "well"]);
}

#[test]
fn an_endpoint_needs_a_port_and_an_address() {
    let mut nowhere = endpoint("nowhere", "///");
    nowhere.addresses.clear();
    let mut by_name = endpoint("by-name", "///");
    by_name.addresses.clear();
    by_name.hostname = Some("example.com".into());
    let mut tunnel = endpoint("tunnel", "///");
    tunnel.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(15088),
    });
    let endpoints = vec![nowhere, by_name, tunnel, endpoint("plain", "///")];

    let mut service = service(LoadBalancingMode::Standard, &[]);
    let all = entry(service.clone(), endpoints.clone());
    assert_eq!(names(&all), ["by-name", "plain", "tunnel"]);
    // A named target port that these endpoints do not have.
    service.ports[0].target_port = 0;
    assert_eq!(names(&entry(service, endpoints)), ["tunnel"]);
}

#[test]
fn tiers_are_the_ranks_that_any_endpoint_has() {
    let scopes = [Scope::Region, Scope::Zone];
    let places = vec![
        endpoint("far", "/east/a/node-4"),
        endpoint("here", "/west/a/node-2"),
        endpoint("here-too", "/west/a/node-3"),
        endpoint("other-network", "far/west/a/node-2"),
    ];
    let tiers = |mode| -> Vec<Vec<String>> {
        let entry = entry(service(mode, &scopes), places.clone());
        let names = |tier: Vec<&Endpoint>| {
            let names = tier
                .iter()
                .map(|endpoint| endpoint.workload.name().to_owned());
            names.collect()
        };
        let tiers = tiers(&entry, &client(), PORT);
        tiers.into_iter().map(names).collect()
    };
    let here = vec!["here".to_owned(), "here-too".to_owned()];
    let far = vec!["far".to_owned()];
    assert_eq!(tiers(LoadBalancingMode::Failover), [here.clone(), far]);
    assert_eq!(tiers(LoadBalancingMode::Strict), [here]);
    let all = ["far", "here", "here-too"].map(str::to_owned).to_vec();
    assert_eq!(tiers(LoadBalancingMode::Standard), [all]);
    let entry = entry(service(LoadBalancingMode::Standard, &[]), Vec::new());
    assert!(super::tiers(&entry, &client(), PORT).is_empty());
}
