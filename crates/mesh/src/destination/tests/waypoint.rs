//! Destinations behind a waypoint, and the waypoint itself.

use super::*;

/// A service of one waypoint pod, as its Gateway's controller makes it.
fn waypoint(name: &str, vip: &str, address: &str) -> (Service, Workload) {
    let mut proxy_service = service(name, vip);
    proxy_service.ports = mapped(&[(HBONE_PORT, HBONE_PORT)]);
    let proxy = member(pod(name, &[address]), &proxy_service, &[]);
    (proxy_service, proxy)
}

#[test]
fn a_service_behind_a_waypoint_is_asked_for_at_the_waypoint() {
    let (proxy_service, proxy) = waypoint("waypoint", "10.96.0.9", "10.244.3.1");
    for waypoint in [
        waypoint_named("waypoint.shop.svc.cluster.local"),
        waypoint_at("10.96.0.9"),
        waypoint_at("10.244.3.1"),
    ] {
        let mut web_service = service("web", VIP);
        web_service.waypoint = Some(waypoint);
        let web = member(pod("web", &[POD]), &web_service, &[]);
        let scenario = Scenario::new(&[&proxy_service, &web_service], &[&web, &proxy]);
        assert_eq!(
            scenario.route("10.96.0.1:80"),
            "hbone 10.244.3.1:15008 for 10.96.0.1:80 as waypoint"
        );
        let asked = scenario.outbound(&pod("client", &["10.244.1.1"]), "10.96.0.1:80");
        assert_eq!(&*asked.service.expect("a service").name, "web");
        // The service's waypoint is not the pod's.
        assert_eq!(
            scenario.route("10.244.2.1:8080"),
            "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as web"
        );
    }
}

#[test]
fn a_workload_behind_a_waypoint_is_asked_for_by_its_own_address() {
    let (proxy_service, proxy) = waypoint("waypoint", "10.96.0.9", "10.244.3.1");
    let web_service = service("web", VIP);
    let mut web = member(pod("web", &[POD]), &web_service, &[]);
    web.waypoint = Some(waypoint_named("waypoint.shop.svc.cluster.local"));
    let scenario = Scenario::new(&[&proxy_service, &web_service], &[&web, &proxy]);
    assert_eq!(
        scenario.route("10.244.2.1:8080"),
        "hbone 10.244.3.1:15008 for 10.244.2.1:8080 as waypoint"
    );
    // The pod's waypoint is not the service's.
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as web"
    );
}

/// Of an address that is a workload's as well as a service's, what the workload says of its waypoint
/// comes first, as with Istio's.
#[test]
fn a_service_that_covers_a_workloads_address_does_not_lead_around_its_waypoint() {
    let (proxy_service, proxy) = waypoint("waypoint", "10.96.0.9", "10.244.3.1");
    let (other_service, other) = waypoint("other", "10.96.0.8", "10.244.3.2");
    let mut at_address = service("external", POD);
    at_address.addresses = vec![NetworkAddress::new("", ip(POD))];
    let mut at_range = service("external", VIP);
    at_range.cidr_vips = vec![NetworkCidr {
        network: "".into(),
        cidr: "10.244.2.0/24".parse().expect("literal"),
    }];
    for covering in [at_address, at_range] {
        let elsewhere = member(pod("external", &["10.244.9.9"]), &covering, &[]);
        for mode in [LoadBalancingMode::Standard, LoadBalancingMode::Passthrough] {
            for service_waypoint in [None, Some(waypoint_at("10.244.3.2"))] {
                let mut covering = covering.clone();
                covering.load_balancing.mode = mode;
                covering.waypoint = service_waypoint;
                let mut web = pod("web", &[POD]);
                let services = [&proxy_service, &other_service, &covering];
                web.waypoint = Some(waypoint_named("waypoint.shop.svc.cluster.local"));
                let scenario = Scenario::new(&services, &[&web, &elsewhere, &proxy, &other]);
                assert_eq!(
                    scenario.route("10.244.2.1:80"),
                    "hbone 10.244.3.1:15008 for 10.244.2.1:80 as waypoint"
                );
                // Nobody passes a waypoint twice.
                let route = describe(scenario.outbound(&proxy, "10.244.2.1:80").route);
                assert!(!route.contains("10.244.3.1"), "{route}");
            }
        }
    }
}

#[test]
fn a_waypoint_is_asked_at_its_own_port_as_whom_its_service_vouches_for() {
    let (mut proxy_service, proxy) = waypoint("waypoint", "10.96.0.9", "10.244.3.1");
    proxy_service.ports = mapped(&[(15009, 25008)]);
    proxy_service.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/canary".into()];
    let mut web_service = service("web", VIP);
    web_service.waypoint = Some(GatewayAddress {
        hbone_mtls_port: 15009,
        ..waypoint_named("waypoint.shop.svc.cluster.local")
    });
    let scenario = Scenario::new(&[&proxy_service, &web_service], &[&proxy]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "hbone 10.244.3.1:25008 for 10.96.0.1:80 as waypoint+canary"
    );
}

#[test]
fn nothing_goes_around_a_waypoint_that_is_not_ready() {
    let (mut proxy_service, proxy) = waypoint("waypoint", "10.96.0.9", "10.244.3.1");
    let mut web_service = service("web", VIP);
    web_service.waypoint = Some(waypoint_named("waypoint.shop.svc.cluster.local"));
    let web = member(pod("web", &[POD]), &web_service, &[]);
    let needs = "refuse: shop/web.shop.svc.cluster.local needs its waypoint \
                 shop/waypoint.shop.svc.cluster.local:15008, which is not ready: ";
    let check = |services: &[&Service], proxy: Option<&Workload>, reason: &str| {
        let workloads: Vec<&Workload> = proxy.into_iter().chain([&web]).collect();
        let scenario = Scenario::new(services, &workloads);
        assert_eq!(scenario.route("10.96.0.1:80"), format!("{needs}{reason}"));
    };
    check(
        &[&web_service],
        Some(&proxy),
        "no service or workload of the mesh is at shop/waypoint.shop.svc.cluster.local:15008",
    );
    let no_endpoint = "no healthy upstream: service shop/waypoint.shop.svc.cluster.local has no \
                       usable endpoint";
    check(&[&web_service, &proxy_service], None, no_endpoint);
    let mut unhealthy = proxy.clone();
    unhealthy.status = WorkloadStatus::Unhealthy;
    check(
        &[&web_service, &proxy_service],
        Some(&unhealthy),
        no_endpoint,
    );
    proxy_service.ports = mapped(&[(80, 8080)]);
    check(
        &[&web_service, &proxy_service],
        Some(&proxy),
        "service shop/waypoint.shop.svc.cluster.local has no port 15008",
    );

    let mut behind = pod("web", &[POD]);
    behind.waypoint = Some(waypoint_at("10.244.3.1"));
    let scenario = Scenario::new(&[], &[&behind, &unhealthy]);
    assert_eq!(
        scenario.route("10.244.2.1:8080"),
        "refuse: Kubernetes//Pod/shop/web needs its waypoint 10.244.3.1:15008, which is not \
         ready: workload Kubernetes//Pod/shop/waypoint is not healthy"
    );
}

#[test]
fn weights_draw_the_waypoint_of_a_connection() {
    let (service_a, a) = waypoint("a", "10.96.0.8", "10.244.3.1");
    let (service_b, b) = waypoint("b", "10.96.0.9", "10.244.3.2");
    let weighted = |name: &str, weight| WeightedWaypoint {
        destination: waypoint_named(&format!("{name}.shop.svc.cluster.local")),
        weight,
    };
    let share_of_b = |weights: (u32, u32), single: Option<GatewayAddress>| {
        let mut web_service = service("web", VIP);
        web_service.waypoint = single;
        web_service.weighted_waypoints = vec![weighted("a", weights.0), weighted("b", weights.1)];
        let web = member(pod("web", &[POD]), &web_service, &[]);
        let services = [&service_a, &service_b, &web_service];
        let Scenario(snapshot) = Scenario::new(&services, &[&a, &b, &web]);
        let client = pod("client", &["10.244.1.1"]);
        let mut random = SmallRng::seed_from_u64(7);
        let mut drawn = [0, 0];
        let mut selections = Selections::default();
        let client = Arc::new(client);
        let plan = Plan::new(&snapshot, &client, socket("10.96.0.1:80"), &mut selections);
        let plan = Arc::new(plan);
        for _ in 0..1000 {
            let Route::Endpoints(hops) = plan.draw(observed(), &mut random).route else {
                panic!("refused");
            };
            match all(hops)[0].workload.name() {
                "a" => drawn[0] += 1,
                "b" => drawn[1] += 1,
                other => panic!("{other}"),
            }
        }
        drawn[1]
    };
    assert!((700..=800).contains(&share_of_b((1, 3), None)));
    assert_eq!(share_of_b((1, 0), None), 0);
    assert!((400..=600).contains(&share_of_b((u32::MAX, u32::MAX), None)));
    // No weight anywhere: the single one.
    let single = waypoint_named("b.shop.svc.cluster.local");
    assert_eq!(share_of_b((0, 0), Some(single)), 1000);
}

#[test]
fn the_waypoint_itself_reaches_what_is_behind_it() {
    let (proxy_service, proxy) = waypoint("waypoint", "10.96.0.9", "10.244.3.1");
    let other = pod("other", &["10.244.3.2"]);
    for waypoint in [
        waypoint_named("waypoint.shop.svc.cluster.local"),
        waypoint_at("10.96.0.9"),
        waypoint_at("10.244.3.1"),
    ] {
        let mut web_service = service("web", VIP);
        web_service.weighted_waypoints = vec![WeightedWaypoint {
            destination: waypoint.clone(),
            weight: 1,
        }];
        let mut web = member(pod("web", &[POD]), &web_service, &[]);
        web.waypoint = Some(waypoint);
        let services = [&proxy_service, &web_service];
        let scenario = Scenario::new(&services, &[&web, &proxy, &other]);
        for destination in ["10.244.2.1:8080", "10.96.0.1:80"] {
            let route = scenario.outbound(&proxy, destination).route;
            let direct = "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as web";
            assert_eq!(describe(route), direct);
            let route = describe(scenario.outbound(&other, destination).route);
            assert!(route.ends_with("as waypoint"), "{route}");
        }
    }
}
