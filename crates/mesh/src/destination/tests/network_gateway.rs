//! Destinations in another network.

use std::collections::BTreeSet;

use super::*;
use crate::service::Scope;

const SAN: &str = "spiffe://cluster.local/ns/shop/sa/far-web";

/// `web` with one endpoint that stands for those of the network `far`, as istiod folds them.
fn far_web(gateway: GatewayAddress) -> (Service, Workload) {
    let mut service = service("web", VIP);
    service.subject_alt_names = vec![SAN.into(), "not-a-workload.example".into()];
    let uid = "far/SplitHorizonWorkload/gateway/shop/web.shop.svc.cluster.local";
    let mut workload = Workload::new(uid, "web", "shop");
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    workload.network = "far".into();
    workload.network_gateway = Some(gateway);
    (service.clone(), member(workload, &service, &[(80, 8080)]))
}

fn gateway_at(address: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Address(NetworkAddress::new("far", ip(address))),
        hbone_mtls_port: 15018,
    }
}

/// The gateway's own workload, at an address of its network.
fn gateway(address: &str) -> Workload {
    let mut gateway = pod("eastwest", &[address]);
    gateway.network = "far".into();
    gateway
}

#[test]
fn another_network_is_entered_by_its_gateway_as_whom_the_service_vouches_for() {
    let (service, far) = far_web(gateway_at("192.0.2.9"));
    let scenario = Scenario::new(&[&service], &[&far, &gateway("192.0.2.9")]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "through 192.0.2.9:15018 as eastwest for web.shop.svc.cluster.local:80 as far-web"
    );
    assert_eq!(
        scenario.route("10.96.0.1:81"),
        "refuse: service shop/web.shop.svc.cluster.local has no port 81"
    );
}

#[test]
fn nothing_goes_to_another_network_in_plaintext() {
    let (service, mut far) = far_web(gateway_at("192.0.2.9"));
    far.tunnel_protocol = TunnelProtocol::None;
    far.addresses = [ip("10.244.9.9")].into_iter().collect();
    let scenario = Scenario::new(&[&service], &[&far, &gateway("192.0.2.9")]);
    let route = scenario.route("10.96.0.1:80");
    assert!(route.starts_with("through 192.0.2.9:15018"), "{route}");
}

#[test]
fn a_gateway_may_be_a_service_whose_proxies_answer_for_each_other() {
    let mut eastwest = service("eastwest", "10.96.0.9");
    eastwest.ports = mapped(&[(15008, 15108)]);
    eastwest.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/eastwest-2".into()];
    let mut proxy = member(pod("eastwest", &["192.0.2.9"]), &eastwest, &[]);
    proxy.network = "far".into();
    let named = waypoint_named("eastwest.shop.svc.cluster.local");
    let (web, far) = far_web(named);
    let scenario = Scenario::new(&[&web, &eastwest], &[&far, &proxy]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "through 192.0.2.9:15108 as eastwest+eastwest-2 for web.shop.svc.cluster.local:80 as far-web"
    );
    proxy.status = WorkloadStatus::Unhealthy;
    let scenario = Scenario::new(&[&web, &eastwest], &[&far, &proxy]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "refuse: the gateway shop/eastwest.shop.svc.cluster.local:15008 of network \"far\" is not \
         known to the mesh or has no usable endpoint"
    );
}

#[test]
fn each_proxy_of_a_gateway_is_tried_and_rather_one_that_is_not_ejected() {
    let mut eastwest = service("eastwest", "10.96.0.9");
    eastwest.ports = mapped(&[(15008, 15008)]);
    let proxies = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|address| {
        let proxy = pod(&format!("eastwest-{address}"), &[address]);
        member(proxy, &eastwest, &[])
    });
    let (web, far) = far_web(waypoint_named("eastwest.shop.svc.cluster.local"));
    let [one, two, three] = &proxies;
    let scenario = Scenario::new(&[&web, &eastwest], &[&far, one, two, three]);
    let mut ejections = Ejections::default();
    let client = pod("client", &["10.244.1.1"]);
    let plan = scenario.plan(&client, "10.96.0.1:80");
    let mut failed = None;
    for seed in 0..20 {
        let random = &mut SmallRng::seed_from_u64(seed);
        let observed = Observed {
            ejections: Some(&ejections),
            ..observed()
        };
        let Route::Endpoints(mut hops) = plan.draw(observed, random).route else {
            panic!("an endpoint");
        };
        let hops = std::iter::from_fn(|| hops.next(observed, random));
        let crossings: Vec<_> = hops
            .map(|hop| match hop.transport {
                Transport::DoubleHbone(crossing) => crossing,
                other => panic!("{other:?}"),
            })
            .collect();
        let last: Vec<_> = crossings.iter().map(|crossing| crossing.is_last).collect();
        assert_eq!(last, [false, false, true]);
        let addresses: Vec<_> = crossings.iter().map(|one| one.address).collect();
        let distinct: BTreeSet<_> = addresses.iter().collect();
        assert_eq!(distinct.len(), 3, "{addresses:?}");
        match failed {
            Some(failed) => assert_eq!(addresses[2], failed),
            None => {
                let first = &crossings[0];
                let among = first.proxies.as_ref().expect("a service");
                let among = among.candidates();
                let now = observed.now;
                ejections.failed(among.destination, among.count, &first.gateway, now);
                failed = Some(first.address);
            }
        }
    }
}

#[test]
fn a_gateway_that_nobody_is_and_a_service_that_names_nobody_are_refused() {
    let (mut service, far) = far_web(gateway_at("192.0.2.9"));
    let scenario = Scenario::new(&[&service], &[&far]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "refuse: the gateway 192.0.2.9:15018 of network \"far\" is not known to the mesh or has \
         no usable endpoint"
    );
    service.subject_alt_names.clear();
    let scenario = Scenario::new(&[&service], &[&far, &gateway("192.0.2.9")]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "refuse: no identity may answer for service shop/web.shop.svc.cluster.local in network \
         \"far\": it names no subject alternative names"
    );
}

#[test]
fn the_own_network_comes_first_and_another_takes_over() {
    let (mut service, far) = far_web(gateway_at("192.0.2.9"));
    service.load_balancing.mode = LoadBalancingMode::Failover;
    service.load_balancing.routing_preference = vec![Scope::Network];
    let near = member(pod("near", &[POD]), &service, &[]);
    let gateway = gateway("192.0.2.9");
    let scenario = Scenario::new(&[&service], &[&far, &near, &gateway]);
    let hops = scenario.route("10.96.0.1:80");
    let near_first = "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as near+far-web, through ";
    assert!(hops.starts_with(near_first), "{hops}");
    let scenario = Scenario::new(&[&service], &[&far, &gateway]);
    let hops = scenario.route("10.96.0.1:80");
    assert!(hops.starts_with("through "), "{hops}");
}

#[test]
fn a_waypoint_of_another_network_is_asked_for_the_service_behind_it() {
    let mut web = service("web", VIP);
    web.waypoint = Some(waypoint_named("waypoint.shop.svc.cluster.local"));
    let mut waypoint = service("waypoint", "10.96.0.15");
    waypoint.ports = mapped(&[(15008, 15008)]);
    waypoint.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/far-waypoint".into()];
    let mut far = member(pod("far-waypoint", &[]), &waypoint, &[]);
    far.network = "far".into();
    far.network_gateway = Some(gateway_at("192.0.2.9"));
    let mut api = pod("api", &[POD]);
    api.waypoint = web.waypoint.clone();
    let scenario = Scenario::new(&[&web, &waypoint], &[&far, &gateway("192.0.2.9"), &api]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "through 192.0.2.9:15018 as eastwest for web.shop.svc.cluster.local:80 as far-waypoint"
    );
    // An address means nothing in another network.
    let refused = scenario.route("10.244.2.1:8080");
    let why = "answers for 10.244.2.1:8080 is in network \"far\", where only services are reached";
    assert!(
        refused.starts_with("refuse: ") && refused.contains(why),
        "{refused}"
    );
}
