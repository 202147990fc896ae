//! Tests of the destination tables, row by row.

mod network_gateway;

mod service_entry;

mod waypoint;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::{NamespacedHostname, NetworkAddress, NetworkCidr};
use crate::balancing::{Ejections, Observed, Selections};
use crate::identity::Identity;
use crate::service::{
    AppProtocol, HealthPolicy, IpFamilies, LoadBalancingMode, Port, Service, WeightedWaypoint,
};
use crate::snapshot::Change;
use crate::workload::{
    ApplicationProtocol, ApplicationTunnel, NetworkMode, TunnelProtocol, Workload, WorkloadStatus,
    WorkloadUid,
};

const VIP: &str = "10.96.0.1";
const POD: &str = "10.244.2.1";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal")
}

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("literal")
}

fn pod(name: &str, addresses: &[&str]) -> Workload {
    let uid = format!("Kubernetes//Pod/shop/{name}");
    let mut workload = Workload::new(&uid, name, "shop");
    workload.service_account = name.into();
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    workload.addresses = addresses.iter().map(|address| ip(address)).collect();
    workload
}

fn member(mut workload: Workload, service: &Service, ports: &[(u16, u16)]) -> Workload {
    workload.services.insert(service.key(), mapped(ports));
    workload
}

fn mapped(ports: &[(u16, u16)]) -> Vec<Port> {
    let port = |(service_port, target_port): &(u16, u16)| Port {
        service_port: *service_port,
        target_port: *target_port,
        app_protocol: AppProtocol::Unknown,
    };
    ports.iter().map(port).collect()
}

fn service(name: &str, vip: &str) -> Service {
    let hostname = format!("{name}.shop.svc.cluster.local");
    let mut service = Service::new(name, "shop", &hostname);
    service.addresses = vec![NetworkAddress::new("", ip(vip))];
    service.ports = mapped(&[(80, 8080)]);
    service
}

fn waypoint_at(address: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Address(NetworkAddress::new("", ip(address))),
        hbone_mtls_port: HBONE_PORT,
    }
}

fn waypoint_named(hostname: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname::new("shop", hostname)),
        hbone_mtls_port: HBONE_PORT,
    }
}

struct Scenario(Snapshot);

impl Scenario {
    fn new(services: &[&Service], workloads: &[&Workload]) -> Self {
        let mut snapshot = Snapshot::default();
        let services = services.iter().map(|one| Change::Service((*one).clone()));
        let workloads = workloads.iter().map(|one| Change::Workload((*one).clone()));
        snapshot.apply(services.chain(workloads));
        Self(snapshot)
    }

    fn outbound(&self, client: &Workload, destination: &str) -> Outbound {
        let mut random = SmallRng::seed_from_u64(7);
        self.plan(client, destination).draw(observed(), &mut random)
    }

    fn plan(&self, client: &Workload, destination: &str) -> Arc<Plan> {
        Arc::new(Plan::new(
            &self.0,
            &Arc::new(client.clone()),
            socket(destination),
            &mut Selections::default(),
        ))
    }

    /// The decision of an ordinary client, in one line.
    fn route(&self, destination: &str) -> String {
        let client = pod("client", &["10.244.1.1", "fd00:244:1::1"]);
        describe(self.outbound(&client, destination).route)
    }

    fn inbound(&self, workload: &Workload, authority: &str) -> Result<SocketAddr, InboundRefusal> {
        let authority = authority.parse().map_or_else(
            |_| {
                let (host, port) = authority.rsplit_once(':').expect("host:port");
                Authority::Hostname(host.into(), port.parse().expect("a port"))
            },
            Authority::Address,
        );
        inbound(&self.0, workload, ip(POD), &authority).map(|inbound| inbound.application)
    }
}

fn observed() -> Observed<'static> {
    Observed::nothing(Instant::now())
}

fn all(mut hops: Hops) -> Vec<Hop> {
    let mut random = SmallRng::seed_from_u64(7);
    std::iter::from_fn(|| hops.next(observed(), &mut random)).collect()
}

fn describe(route: Route) -> String {
    match route {
        Route::Passthrough => "passthrough".to_owned(),
        Route::Unknown => "unknown".to_owned(),
        Route::Refuse(refusal) => format!("refuse: {refusal}"),
        Route::Endpoints(hops) => {
            let mut hops: Vec<String> = all(hops).iter().map(describe_hop).collect();
            hops.sort();
            hops.join(", ")
        }
    }
}

fn describe_hop(hop: &Hop) -> String {
    match &hop.transport {
        Transport::Tcp => format!("tcp {}", hop.target),
        Transport::Resolve { hostname, port } => format!("resolve {hostname}:{port}"),
        Transport::Hbone { address, expected } => {
            let accounts: Vec<&str> = expected.iter().map(|id| &*id.service_account).collect();
            format!(
                "hbone {address} for {} as {}",
                hop.target,
                accounts.join("+")
            )
        }
        Transport::DoubleHbone(crossing) => {
            let accounts = |expected: &[Identity]| {
                let accounts: Vec<&str> = expected.iter().map(|id| &*id.service_account).collect();
                accounts.join("+")
            };
            format!(
                "through {} as {} for {} as {}",
                crossing.address,
                accounts(&crossing.gateway_expected),
                crossing.authority,
                accounts(&crossing.expected)
            )
        }
    }
}

#[test]
fn an_authority_is_an_address_or_a_name_with_a_port() {
    for (text, address) in [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("[fd00::1]:80", "[fd00::1]:80"),
    ] {
        assert_eq!(text.parse(), Ok(Authority::Address(socket(address))));
    }
    for host in ["web", "web.shop.svc", "web.shop.svc.", "1.web", "10.0.0.1a"] {
        let name = Authority::Hostname(host.into(), 80);
        assert_eq!(format!("{host}:80").parse(), Ok(name));
    }
    for text in [
        "",
        "web",
        "web:",
        "web:0",
        "web:x",
        "web:+80",
        "web:65536",
        ":80",
        ".:80",
        "a/b:80",
        "a@b:80",
        "10.0.0.256:80",
        "10.0.0.1.:80",
        "10.0.0:80",
        "10.0.0.1:+80",
        "1:80",
        "fd00::1:80",
        "[fd00::1:80",
    ] {
        assert_eq!(
            text.parse::<Authority>(),
            Err(MalformedAuthority),
            "{text:?}"
        );
    }
}

#[test]
fn what_the_mesh_does_not_know_is_unknown() {
    let scenario = Scenario::new(&[], &[]);
    assert_eq!(scenario.route("192.0.2.1:443"), "unknown");
    assert_eq!(scenario.route("127.0.0.1:8080"), "unknown");
}

#[test]
fn a_call_to_the_tunnel_itself_is_refused() {
    let scenario = Scenario::new(&[], &[]);
    for port in OWN_PORTS {
        for host in ["127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]"] {
            let route = scenario.route(&format!("{host}:{port}"));
            assert!(route.starts_with("refuse: destination"), "{route}");
        }
        let route = scenario.route(&format!("192.0.2.1:{port}"));
        assert_eq!(route, "unknown");
    }
}

#[test]
fn a_pod_is_reached_by_its_own_address_whatever_its_health() {
    let mut web = pod("web", &[POD]);
    web.status = WorkloadStatus::Unhealthy;
    let scenario = Scenario::new(&[], &[&web]);
    let expected = "hbone 10.244.2.1:15008 for 10.244.2.1:9090 as web";
    assert_eq!(scenario.route("10.244.2.1:9090"), expected);
    assert_eq!(scenario.route("[::ffff:10.244.2.1]:9090"), expected);
}

#[test]
fn an_uncaptured_pod_is_reached_in_plaintext() {
    let mut web = pod("web", &[POD]);
    web.tunnel_protocol = TunnelProtocol::None;
    let service = service("web", VIP);
    let scenario = Scenario::new(&[&service], &[&member(web, &service, &[])]);
    assert_eq!(scenario.route("10.244.2.1:9090"), "tcp 10.244.2.1:9090");
    assert_eq!(scenario.route("10.96.0.1:80"), "tcp 10.244.2.1:8080");
}

#[test]
fn a_service_is_its_endpoints_on_their_target_ports() {
    let service = service("web", VIP);
    let own_port = member(pod("a", &["10.244.2.1"]), &service, &[(80, 9999)]);
    let services_port = member(pod("b", &["10.244.2.2"]), &service, &[]);
    let scenario = Scenario::new(&[&service], &[&own_port, &services_port]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "hbone 10.244.2.1:15008 for 10.244.2.1:9999 as a, \
         hbone 10.244.2.2:15008 for 10.244.2.2:8080 as b"
    );
    let client = pod("client", &[]);
    let asked = scenario.outbound(&client, "10.96.0.1:80").service;
    assert_eq!(asked.as_deref(), Some(&service));
}

#[test]
fn a_service_may_vouch_for_other_identities() {
    let mut service = service("web", VIP);
    service.subject_alt_names = vec![
        "spiffe://cluster.local/ns/shop/sa/other".into(),
        "web.example.com".into(),
    ];
    let web = member(pod("web", &[POD]), &service, &[]);
    let scenario = Scenario::new(&[&service], &[&web]);
    let expected = "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as web+other";
    assert_eq!(scenario.route("10.96.0.1:80"), expected);
    // Dialled by address, only the workload itself answers.
    let expected = "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as web";
    assert_eq!(scenario.route("10.244.2.1:8080"), expected);
}

/// A service with so many endpoints, and how a connection to it goes on.
fn hops_of(endpoints: usize) -> Hops {
    let service = service("web", VIP);
    let endpoints: Vec<Workload> = (1..=endpoints)
        .map(|n| {
            member(
                pod(&format!("web-{n}"), &[&format!("10.244.2.{n}")]),
                &service,
                &[],
            )
        })
        .collect();
    let scenario = Scenario::new(&[&service], &endpoints.iter().collect::<Vec<_>>());
    match scenario.outbound(&pod("client", &[]), "10.96.0.1:80").route {
        Route::Endpoints(hops) => hops,
        other => panic!("{other:?}"),
    }
}

#[test]
fn those_that_give_no_sign_are_tried_again_in_turn() {
    for (endpoints, tried_once) in [(2, 2), (3, 3), (9, 5)] {
        let (mut hops, mut random) = (hops_of(endpoints), SmallRng::seed_from_u64(7));
        let mut next = || {
            let hop = hops.next(observed(), &mut random).expect("another");
            let name = hop.workload.name().to_owned();
            assert!(hops.may_have_others(), "than {name}");
            hops.postpone(hop);
            (name, hops.repeats())
        };
        let first: Vec<_> = (0..tried_once).map(|_| next()).collect();
        let again: Vec<_> = (0..tried_once * 2).map(|_| next()).collect();
        assert!(first.iter().all(|(_, repeats)| !repeats), "{first:?}");
        assert!(again.iter().all(|(_, repeats)| *repeats), "{again:?}");
        let distinct: BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), tried_once, "{first:?}");
        let names = |of: &[(String, bool)]| -> Vec<String> {
            of.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&again), [names(&first), names(&first)].concat());
    }
}

#[test]
fn the_last_that_may_answer_has_no_others() {
    let (mut hops, mut random) = (hops_of(2), SmallRng::seed_from_u64(7));
    let mut next = || hops.next(observed(), &mut random);
    let (silent, refused) = (next().expect("one"), next().expect("another"));
    assert!(!hops.may_have_others());
    hops.postpone(silent.clone());
    assert!(hops.may_have_others());
    let again = hops.next(observed(), &mut random).expect("the one");
    assert_eq!(again.workload, silent.workload);
    assert_ne!(again.workload, refused.workload);
    assert!(!hops.may_have_others());
    assert!(hops.next(observed(), &mut random).is_none());

    let mut alone = hops_of(1);
    assert!(alone.next(observed(), &mut random).is_some());
    assert!(!alone.may_have_others());
}

#[test]
fn at_most_five_endpoints_are_tried() {
    let hops = hops_of(19);
    let mut names: Vec<_> = all(hops)
        .iter()
        .map(|hop| hop.workload.uid.clone())
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 5);
}

#[test]
fn a_service_without_usable_endpoint_is_refused() {
    let service = service("web", VIP);
    let mut sick = member(pod("sick", &[POD]), &service, &[]);
    sick.status = WorkloadStatus::Unhealthy;
    let refused = "refuse: no healthy upstream: service shop/web.shop.svc.cluster.local has no \
                   usable endpoint";
    for workloads in [&[][..], &[&sick]] {
        let scenario = Scenario::new(&[&service], workloads);
        assert_eq!(scenario.route("10.96.0.1:80"), refused);
    }
    let mut tolerant = service.clone();
    tolerant.load_balancing.health_policy = HealthPolicy::AllowAll;
    let scenario = Scenario::new(&[&tolerant], &[&sick]);
    assert!(scenario.route("10.96.0.1:80").starts_with("hbone"));
}

#[test]
fn a_port_the_service_does_not_have_is_refused() {
    let service = service("web", VIP);
    let web = member(pod("web", &[POD]), &service, &[(81, 8181)]);
    let scenario = Scenario::new(&[&service], &[&web]);
    assert_eq!(
        scenario.route("10.96.0.1:8080"),
        "refuse: service shop/web.shop.svc.cluster.local has no port 8080"
    );
    assert_eq!(
        scenario.route("10.96.0.1:81"),
        "hbone 10.244.2.1:15008 for 10.244.2.1:8181 as web"
    );
}

#[test]
fn a_passthrough_service_goes_to_the_address_dialled() {
    let mut external = service("external", VIP);
    external.load_balancing.mode = LoadBalancingMode::Passthrough;
    external.cidr_vips = vec![NetworkCidr {
        network: "".into(),
        cidr: "10.244.0.0/16".parse().expect("literal"),
    }];
    let scenario = Scenario::new(&[&external], &[&pod("web", &[POD])]);
    assert_eq!(scenario.route("10.96.0.1:80"), "passthrough");
    assert_eq!(scenario.route("10.244.9.9:7"), "passthrough");
    // No plaintext to a captured pod.
    assert!(scenario.route("10.244.2.1:80").starts_with("hbone"));
}

#[test]
fn endpoints_in_other_networks_without_a_gateway_are_left_out_and_named_when_nothing_else_is_there()
{
    let service = service("web", VIP);
    let mut far = member(pod("far", &["10.244.2.9"]), &service, &[]);
    far.network = "far".into();
    let near = member(pod("near", &[POD]), &service, &[]);
    let scenario = Scenario::new(&[&service], &[&far, &near]);
    let expected = "hbone 10.244.2.1:15008 for 10.244.2.1:8080 as near";
    assert_eq!(scenario.route("10.96.0.1:80"), expected);
    let scenario = Scenario::new(&[&service], &[&far]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "refuse: workload Kubernetes//Pod/shop/far is in network \"far\" and is reached through \
         a gateway only, which it has none of"
    );
    // The same address in another network is another address.
    assert_eq!(scenario.route("10.244.2.9:8080"), "unknown");
}

#[test]
fn the_family_dialled_is_preferred_and_the_services_families_bind() {
    let mut dual = service("web", VIP);
    dual.addresses
        .push(NetworkAddress::new("", ip("fd00:96::1")));
    let web = member(pod("web", &[POD, "fd00:244:2::1"]), &dual, &[]);
    let route = |service: &Service, destination| {
        let route = Scenario::new(&[service], &[&web]).route(destination);
        let target = route.split(' ').nth(3).map(str::to_owned);
        target.unwrap_or(route)
    };
    assert_eq!(route(&dual, "10.96.0.1:80"), "10.244.2.1:8080");
    assert_eq!(route(&dual, "[fd00:96::1]:80"), "[fd00:244:2::1]:8080");
    dual.ip_families = IpFamilies::Ipv6Only;
    assert_eq!(route(&dual, "10.96.0.1:80"), "[fd00:244:2::1]:8080");
    dual.ip_families = IpFamilies::Ipv4Only;
    assert_eq!(route(&dual, "[fd00:96::1]:80"), "10.244.2.1:8080");

    let only_v4 = member(pod("web", &[POD]), &dual, &[]);
    dual.ip_families = IpFamilies::Ipv6Only;
    let scenario = Scenario::new(&[&dual], &[&only_v4]);
    assert_eq!(
        scenario.route("10.96.0.1:80"),
        "refuse: workload Kubernetes//Pod/shop/web has no address"
    );
}

#[test]
fn an_endpoint_known_by_name_is_resolved_but_never_trusted_to_be_a_tunnel() {
    let external = service("external", "240.240.0.1");
    let mut by_name = member(pod("external", &[]), &external, &[(80, 8080)]);
    by_name.hostname = Some("api.example.com".into());
    let scenario = Scenario::new(&[&external], &[&by_name]);
    assert_eq!(
        scenario.route("240.240.0.1:80"),
        "refuse: workload Kubernetes//Pod/shop/external has no address"
    );
    by_name.tunnel_protocol = TunnelProtocol::None;
    let scenario = Scenario::new(&[&external], &[&by_name]);
    assert_eq!(
        scenario.route("240.240.0.1:80"),
        "resolve api.example.com:8080"
    );
}

#[test]
fn host_network_pods_are_endpoints_only() {
    let service = service("web", VIP);
    let mut agent = member(pod("agent", &["172.30.0.1"]), &service, &[]);
    agent.network_mode = NetworkMode::HostNetwork;
    agent.tunnel_protocol = TunnelProtocol::None;
    let scenario = Scenario::new(&[&service], &[&agent]);
    assert_eq!(scenario.route("172.30.0.1:8080"), "unknown");
    assert_eq!(scenario.route("10.96.0.1:80"), "tcp 172.30.0.1:8080");
}

#[test]
fn a_workload_expects_its_own_identity() {
    let web = pod("web", &[POD]);
    let scenario = Scenario::new(&[], &[&web]);
    let route = scenario.outbound(&pod("client", &[]), "10.244.2.1:1").route;
    let Route::Endpoints(hops) = route else {
        panic!("{route:?}");
    };
    let hops = all(hops);
    let Transport::Hbone { expected, .. } = &hops[0].transport else {
        panic!("{hops:?}");
    };
    let identity = Identity::new("cluster.local", "shop", "web");
    assert_eq!(expected, &(Arc::new([identity]) as Arc<[Identity]>));
}

#[test]
fn a_request_for_the_pods_own_address_may_come_in() {
    let web = pod("web", &[POD]);
    let scenario = Scenario::new(&[], &[&web]);
    assert_eq!(
        scenario.inbound(&web, "10.244.2.1:8080"),
        Ok(socket("10.244.2.1:8080"))
    );
    let mapped = scenario.inbound(&web, "[::ffff:10.244.2.1]:8080");
    assert_eq!(mapped, Ok(socket("10.244.2.1:8080")));
}

#[test]
fn a_request_for_another_address_is_refused() {
    let service = service("web", VIP);
    let web = member(pod("web", &[POD]), &service, &[]);
    let other = pod("other", &["10.244.2.2"]);
    let scenario = Scenario::new(&[&service], &[&web, &other]);
    for authority in [
        "10.244.2.2:80",
        "10.96.0.1:80",
        "192.0.2.1:80",
        "127.0.0.1:80",
        "10.244.2.1:0",
    ] {
        let refusal = scenario.inbound(&web, authority).expect_err(authority);
        assert_eq!(refusal, InboundRefusal::WrongAddress(authority.to_owned()));
    }
}

#[test]
fn a_request_for_the_tunnels_own_ports_is_refused() {
    let mut service = service("web", VIP);
    service.ports = mapped(&[(80, 15008)]);
    let web = member(pod("web", &[POD]), &service, &[]);
    let scenario = Scenario::new(&[&service], &[&web]);
    for port in OWN_PORTS {
        let refusal = scenario.inbound(&web, &format!("10.244.2.1:{port}"));
        assert_eq!(refusal, Err(InboundRefusal::OwnPort(port)));
    }
    let refusal = scenario.inbound(&web, "web.shop.svc.cluster.local:80");
    assert_eq!(refusal, Err(InboundRefusal::OwnPort(15008)));
}

#[test]
fn a_hostname_means_the_pods_port_for_that_service() {
    let named = service("web", VIP);
    let foreign = service("other", "10.96.0.2");
    let web = member(pod("web", &[POD]), &named, &[(81, 8181)]);
    let scenario = Scenario::new(&[&named, &foreign], &[&web]);
    let host = |port: u16| scenario.inbound(&web, &format!("web.shop.svc.cluster.local:{port}"));
    assert_eq!(host(80), Ok(socket("10.244.2.1:8080")));
    assert_eq!(host(81), Ok(socket("10.244.2.1:8181")));
    assert!(matches!(host(82), Err(InboundRefusal::UnknownHost(_))));
    for unknown in ["other.shop.svc.cluster.local:80", "nobody.example.com:80"] {
        let refusal = scenario.inbound(&web, unknown);
        assert_eq!(
            refusal,
            Err(InboundRefusal::UnknownHost(unknown.to_owned()))
        );
    }
}

#[test]
fn a_waypoint_takes_what_is_meant_to_pass_it() {
    let proxy_service = service("waypoint", "10.96.0.9");
    let proxy = member(pod("waypoint", &[POD]), &proxy_service, &[]);
    let mut behind = service("web", VIP);
    behind.waypoint = Some(waypoint_named("waypoint.shop.svc.cluster.local"));
    let mut workload = pod("db", &["10.244.2.2"]);
    workload.waypoint = Some(waypoint_at("10.96.0.9"));
    let scenario = Scenario::new(&[&proxy_service, &behind], &[&proxy, &workload]);
    for (authority, port) in [
        ("10.96.0.1:80", 80),
        ("10.244.2.2:5432", 5432),
        ("web.shop.svc.cluster.local:80", 80),
    ] {
        let application = scenario.inbound(&proxy, authority);
        assert_eq!(application, Ok(SocketAddr::new(ip(POD), port)));
    }
    assert!(scenario.inbound(&workload, "10.96.0.1:80").is_err());
}

#[test]
fn an_application_tunnel_takes_any_address_on_its_own_port() {
    let mut web = pod("web", &[POD]);
    web.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(15088),
    });
    let scenario = Scenario::new(&[], &[&web]);
    for authority in ["10.244.2.1:80", "192.0.2.1:443"] {
        let application = scenario.inbound(&web, authority);
        assert_eq!(application, Ok(socket("10.244.2.1:15088")));
    }
}

#[test]
fn each_attempt_goes_to_another_endpoint_and_past_those_that_failed() {
    let service = service("web", VIP);
    let endpoints: Vec<Workload> = (1..=4)
        .map(|n| {
            let workload = pod(&format!("web-{n}"), &[&format!("10.244.2.{n}")]);
            member(workload, &service, &[])
        })
        .collect();
    let scenario = Scenario::new(&[&service], &endpoints.iter().collect::<Vec<_>>());
    let (mut random, now) = (SmallRng::seed_from_u64(7), Instant::now());
    let client = pod("client", &["10.244.1.1"]);
    let first_of = |ejections: &Ejections, random: &mut SmallRng| {
        let mut selections = Selections::default();
        let client = Arc::new(client.clone());
        let dialled = socket("10.96.0.1:80");
        let plan = Arc::new(Plan::new(&scenario.0, &client, dialled, &mut selections));
        let observed = Observed {
            ejections: Some(ejections),
            active: None,
            now,
        };
        let Route::Endpoints(mut hops) = plan.draw(observed, random).route else {
            panic!("refused");
        };
        let first = hops.next(observed, random).expect("an endpoint");
        let selection = hops.selection().expect("a service");
        (first, selection.destination().clone())
    };
    let mut ejections = Ejections::default();
    let (first, destination) = first_of(&ejections, &mut random);
    ejections.failed(&destination, 4, &first.workload, now);
    let (second, _) = first_of(&ejections, &mut random);
    ejections.failed(&destination, 4, &second.workload, now);
    for _ in 0..50 {
        let (other, _) = first_of(&ejections, &mut random);
        assert_ne!(other.workload.name(), first.workload.name());
        assert_ne!(other.workload.name(), second.workload.name());
    }
}
