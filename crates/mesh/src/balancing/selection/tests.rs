//! Tests of draws, against a naive reading of the rules.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::NamespacedHostname;
use crate::balancing::ejection::Limits;
use crate::service::{
    AppProtocol, HealthPolicy, IpFamilies, LoadBalancingMode, Port, Scope, Service,
};
use crate::snapshot::Change;
use crate::workload::WorkloadStatus;

const PORT: u16 = 80;

/// `network/region/zone/node/cluster`.
fn at(mut workload: Workload, place: [&str; 5]) -> Workload {
    let [network, region, zone, node, cluster] = place;
    workload.network = network.into();
    let locality = Arc::make_mut(&mut workload.locality);
    locality.region = region.into();
    locality.zone = zone.into();
    workload.node = node.into();
    workload.cluster_id = cluster.into();
    workload
}

fn place() -> impl Strategy<Value = [&'static str; 5]> {
    let of = |names: [&'static str; 2]| select(names.to_vec());
    (
        prop_oneof![4 => Just(""), 1 => Just("far")],
        of(["west", "east"]),
        of(["a", "b"]),
        of(["node-1", "node-2"]),
        of(["blue", "green"]),
    )
        .prop_map(|(network, region, zone, node, cluster)| [network, region, zone, node, cluster])
}

fn endpoint() -> impl Strategy<Value = Workload> {
    let addresses = select(vec!["", "10.0.0.1", "fd00::1"]);
    let port = select(vec![None, Some(0), Some(8080)]);
    (place(), 0..4_u32, any::<bool>(), addresses, port).prop_map(
        |(place, capacity, healthy, address, port)| {
            let mut workload = at(Workload::new("", "", "shop"), place);
            workload.capacity = capacity;
            workload.addresses = address.parse().into_iter().collect();
            if !healthy {
                workload.status = WorkloadStatus::Unhealthy;
            }
            let port = port.map(|target_port| Port {
                service_port: PORT,
                target_port,
                app_protocol: AppProtocol::Unknown,
            });
            let key = NamespacedHostname::new("shop", "web");
            workload.services.insert(key, port.into_iter().collect());
            workload
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let scope = select(vec![
        Scope::Region,
        Scope::Zone,
        Scope::Node,
        Scope::Cluster,
        Scope::Network,
    ]);
    let mode = select(vec![
        LoadBalancingMode::Standard,
        LoadBalancingMode::Strict,
        LoadBalancingMode::Failover,
    ]);
    (
        prop::collection::vec(scope, 0..5),
        mode,
        any::<(bool, bool, bool)>(),
        select(vec![IpFamilies::Automatic, IpFamilies::Ipv4Only]),
    )
        .prop_map(
            |(scopes, mode, (healthy_only, named_port, least), families)| {
                let mut service = Service::new("web", "shop", "web");
                service.load_balancing.mode = mode;
                service.load_balancing.routing_preference = scopes;
                service.ip_families = families;
                if !healthy_only {
                    service.load_balancing.health_policy = HealthPolicy::AllowAll;
                }
                if least {
                    service.load_balancing.algorithm = Algorithm::LeastRequest;
                }
                service.ports = vec![Port {
                    service_port: PORT,
                    target_port: if named_port { 0 } else { 8080 },
                    app_protocol: AppProtocol::Unknown,
                }];
                service
            },
        )
}

fn entry(service: &Service, endpoints: &[Workload]) -> Arc<ServiceEntry> {
    let mut snapshot = Snapshot::default();
    let named = endpoints.iter().cloned().enumerate();
    let named = named.map(|(n, mut workload)| {
        workload.uid = crate::workload::WorkloadUid::new(format!("{n:02}"));
        workload
    });
    snapshot.apply(named.map(Change::Workload));
    snapshot.apply([Change::Service(service.clone())]);
    snapshot.service(&service.key()).expect("applied").clone()
}

/// The rules, as they are written down: who may be used, and how close it is.
fn naive(service: &Service, client: &Workload, endpoint: &Workload) -> Option<usize> {
    let balancing = &service.load_balancing;
    let healthy = endpoint.status == WorkloadStatus::Healthy
        || balancing.health_policy == HealthPolicy::AllowAll;
    let reachable = endpoint.network == client.network
        && match (endpoint.addresses.first(), service.ip_families) {
            (None, _) => false,
            (Some(address), IpFamilies::Ipv4Only) => address.is_ipv4(),
            (Some(_), _) => true,
        };
    let own = endpoint.services.get(&service.key());
    let own = own.and_then(|ports| ports.first());
    let own = own.is_some_and(|port| port.target_port != 0);
    let has_port = own || service.ports[0].target_port != 0;
    if !(healthy && reachable && has_port && endpoint.capacity > 0) {
        return None;
    }
    let same = |scope: &Scope| match scope {
        Scope::Region => endpoint.locality.region == client.locality.region,
        Scope::Zone => endpoint.locality.zone == client.locality.zone,
        Scope::Subzone => endpoint.locality.subzone == client.locality.subzone,
        Scope::Node => endpoint.node == client.node,
        Scope::Cluster => endpoint.cluster_id == client.cluster_id,
        Scope::Network => endpoint.network == client.network,
    };
    let scopes = &balancing.routing_preference;
    match balancing.mode {
        LoadBalancingMode::Strict => scopes.iter().all(same).then_some(0),
        LoadBalancingMode::Failover => Some(scopes.iter().take_while(|one| same(one)).count()),
        LoadBalancingMode::Standard | LoadBalancingMode::Passthrough => Some(0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Drawn until none is left: exactly those that may be used, each once, those that failed
    /// last, and within that the closest first.
    #[test]
    fn draws_are_what_the_rules_say(
        service in service(),
        endpoints in prop::collection::vec(endpoint(), 0..12),
        client in place().prop_map(|place| at(Workload::new("client", "client", "shop"), place)),
        failed in prop::collection::vec(any::<bool>(), 12),
        under_way in prop::collection::vec(0..4_usize, 12),
        seed: u64,
    ) {
        let entry = entry(&service, &endpoints);
        let selection = Selection::new(&entry, &client, PORT);
        let now = Instant::now();
        let mut ejections = Ejections::default();
        let active = Active::default();
        let mut open = Vec::new();
        for endpoint in entry.endpoints.iter() {
            let number: usize = endpoint.workload.uid.0.parse().expect("a number");
            let workload = &endpoint.workload;
            if failed[number] {
                ejections.failed(selection.destination(), 24, workload, now);
            }
            open.extend((0..under_way[number]).map(|_| active.begin(&workload.uid)));
        }
        let observed = Observed {
            ejections: Some(&ejections),
            active: Some(&active),
            now,
        };
        let mut random = SmallRng::seed_from_u64(seed);
        let mut drawn = Vec::new();
        while let Some(next) = selection.draw(&drawn, observed, &mut random) {
            drawn.push(next);
        }
        let drawn: Vec<usize> = drawn
            .iter()
            .map(|one| selection.endpoint(*one).workload.uid.0.parse().expect("a number"))
            .collect();

        let order = |n: &usize| {
            let rank = naive(&service, &client, &endpoints[*n]);
            (failed[*n], std::cmp::Reverse(rank))
        };
        prop_assert!(drawn.is_sorted_by_key(order), "{drawn:?}");
        let mut sorted = drawn.clone();
        sorted.sort_unstable();
        let usable = (0..endpoints.len())
            .filter(|n| naive(&service, &client, &endpoints[*n]).is_some());
        prop_assert_eq!(sorted, usable.collect::<Vec<_>>());
        // A time later nobody is left alone.
        let later = Observed { now: now + Limits::default().base, ..observed };
        let first = selection.draw(&[], later, &mut random);
        let first = first.map(|one| &selection.endpoint(one).workload.uid);
        let first = first.map(|uid| uid.0.parse::<usize>().expect("a number"));
        let best = drawn.iter().map(|n| naive(&service, &client, &endpoints[*n])).max();
        prop_assert_eq!(first.map(|n| naive(&service, &client, &endpoints[n])), best);
    }
}

/// More endpoints than a chunk of the list holds.
const MANY: usize = 400;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_selection_made_of_the_former_one_is_as_made_anew(
        service in service(),
        other in service(),
        endpoints in prop::collection::vec(endpoint(), MANY),
        changes in prop::collection::vec((0..MANY + 40, prop::option::of(endpoint())), 1..60),
        client in place().prop_map(|place| at(Workload::new("client", "client", "shop"), place)),
    ) {
        let named = |number: usize, mut workload: Workload| {
            workload.uid = crate::workload::WorkloadUid::new(format!("{number:03}"));
            Change::Workload(workload)
        };
        let mut snapshot = Snapshot::default();
        snapshot.apply(endpoints.into_iter().enumerate().map(|(n, one)| named(n, one)));
        snapshot.apply([Change::Service(service.clone())]);
        let mut selections = Selections::default();
        let half = changes.len() / 2;
        for (step, (number, endpoint)) in changes.into_iter().enumerate() {
            let entry = snapshot.service(&service.key()).expect("applied");
            let kept = selections.of(entry, &client, PORT);
            let anew = Selection::new(entry, &client, PORT);
            prop_assert_eq!(format!("{:?}", kept.tiers), format!("{:?}", anew.tiers));
            let change = match endpoint {
                Some(endpoint) => named(number, endpoint),
                None => Change::RemoveAddress(format!("{number:03}").into()),
            };
            snapshot.apply([change]);
            if step == half {
                snapshot.apply([Change::Service(other.clone())]);
            }
            selections.follow(&snapshot);
        }
    }
}

#[test]
fn a_change_of_one_endpoint_has_only_its_neighbours_ranked_anew() {
    let mut service = Service::new("web", "shop", "web");
    service.load_balancing.mode = LoadBalancingMode::Failover;
    let endpoint = |number: usize, zone: &str| {
        let name = format!("web-{number:03}");
        let mut workload = Workload::new(&name, &name, "shop");
        Arc::make_mut(&mut workload.locality).zone = zone.into();
        workload.services.insert(service.key(), Vec::new());
        Change::Workload(workload)
    };
    let mut snapshot = Snapshot::default();
    snapshot.apply((0..MANY).map(|number| endpoint(number, "a")));
    snapshot.apply([Change::Service(service.clone())]);
    let (mut selections, client) = (Selections::default(), Workload::new("c", "c", "shop"));
    let mut select = |snapshot: &Snapshot| {
        let entry = snapshot.service(&service.key()).expect("applied");
        selections.of(entry, &client, PORT)
    };
    let before = select(&snapshot);
    snapshot.apply([endpoint(7, "b")]);
    let after = select(&snapshot);
    let (of_all, anew) = (after.ranking.len(), after.ranking.not_of(&before.ranking));
    assert!(of_all > 3 && anew == 1, "{anew} of {of_all}");
}

/// A service of endpoints that are all alike.
fn alike(count: usize, algorithm: Algorithm) -> Selection {
    let mut service = Service::new("web", "shop", "web");
    service.load_balancing.algorithm = algorithm;
    service.ports = vec![Port {
        service_port: PORT,
        target_port: 8080,
        app_protocol: AppProtocol::Unknown,
    }];
    let mut one = Workload::new("", "", "shop");
    one.addresses = [[10, 0, 0, 1].into()].into_iter().collect();
    one.services.insert(service.key(), Vec::new());
    let entry = entry(&service, &vec![one; count]);
    Selection::new(&entry, &Workload::new("client", "client", "shop"), PORT)
}

#[test]
fn least_request_evens_out_connections_that_last() {
    let spread = |algorithm| {
        let (selection, active) = (alike(10, algorithm), Active::default());
        let mut random = SmallRng::seed_from_u64(7);
        let observed = Observed {
            active: Some(&active),
            ..Observed::nothing(Instant::now())
        };
        let mut open = Vec::new();
        let mut counts: BTreeMap<_, u32> = BTreeMap::new();
        for _ in 0..1000 {
            let drawn = selection.draw(&[], observed, &mut random).expect("one");
            let uid = &selection.endpoint(drawn).workload.uid;
            open.push(active.begin(uid));
            *counts.entry(uid.clone()).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or_default();
        most - counts.values().min().copied().unwrap_or_default()
    };
    let (least, random) = (spread(Algorithm::LeastRequest), spread(Algorithm::Random));
    assert!(least <= 6 && random > 20, "{least}, {random}");
}

#[test]
fn selections_are_kept_while_their_service_is_the_same() {
    let (mut selections, client) = (Selections::default(), Workload::new("c", "c", "shop"));
    let entry = |port| {
        let mut service = Service::new("web", "shop", "web");
        service.ports = vec![Port {
            service_port: port,
            target_port: port,
            app_protocol: AppProtocol::Unknown,
        }];
        let mut snapshot = Snapshot::default();
        snapshot.apply([Change::Service(service)]);
        let key = NamespacedHostname::new("shop", "web");
        (snapshot.service(&key).expect("applied").clone(), snapshot)
    };
    let (first, snapshot) = entry(80);
    let made = selections.of(&first, &client, 80);
    assert!(Arc::ptr_eq(&made, &selections.of(&first, &client, 80)));
    let mut elsewhere = client.clone();
    elsewhere.node = "node-2".into();
    assert!(!Arc::ptr_eq(&made, &selections.of(&first, &elsewhere, 80)));
    selections.follow(&snapshot);
    assert!(Arc::ptr_eq(&made, &selections.of(&first, &client, 80)));

    let (second, changed) = entry(81);
    assert!(!Arc::ptr_eq(&made, &selections.of(&second, &client, 80)));
    for _ in 0..5 {
        selections.follow(&changed);
    }
    // What is of the old one has gone; what is of the new one has not.
    assert_eq!(selections.known.len(), 1);
    assert_eq!(Arc::strong_count(&made), 1);
}

#[test]
fn what_others_are_made_of_is_kept_while_it_is_used() {
    let (mut selections, client) = (Selections::default(), Workload::new("c", "c", "shop"));
    let service = Service::new("web", "shop", "web");
    let endpoint = |revision: &str| {
        let mut workload = Workload::new("web-1", "web-1", "shop");
        workload.canonical_revision = revision.into();
        workload.services.insert(service.key(), Vec::new());
        Change::Workload(workload)
    };
    let mut snapshot = Snapshot::default();
    snapshot.apply([Change::Service(service.clone()), endpoint("v1")]);
    let entry = snapshot.service(&service.key()).expect("applied").clone();
    selections.of(&entry, &client, 80);
    let mut kept = || {
        snapshot.apply([endpoint("v2")]);
        // It is looked at every other time.
        selections.follow(&snapshot);
        selections.follow(&snapshot);
        selections.known.len()
    };
    assert_eq!((kept(), kept()), (1, 0));
}
