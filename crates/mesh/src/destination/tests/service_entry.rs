//! Endpoints that a ServiceEntry gives by address, which may be the mesh's.

use super::*;

const ENTRY: &str = "240.240.0.1:80";

/// A host whose endpoints listen on 5432.
fn entry(name: &str, vip: &str) -> Service {
    let mut entry = Service::new(name, "shop", &format!("{name}.example"));
    entry.addresses = vec![NetworkAddress::new("", ip(vip))];
    entry.ports = mapped(&[(80, 5432)]);
    entry
}

fn inline(entry: &Service, address: &str) -> Workload {
    let name = &entry.name;
    let uid = format!("Kubernetes/networking.istio.io/ServiceEntry/shop/{name}/{address}");
    let mut endpoint = Workload::new(&uid, name, "shop");
    endpoint.service_account = name.clone();
    endpoint.addresses = [ip(address)].into_iter().collect();
    member(endpoint, entry, &[])
}

fn plain(mut workload: Workload) -> Workload {
    workload.tunnel_protocol = TunnelProtocol::None;
    workload
}

fn captured(mut workload: Workload) -> Workload {
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    workload
}

/// Where connections to an entry with these endpoints go, beside services of captured pods, of
/// plain ones, of both and of none, a captured machine, and ranges that are passed through.
fn route(endpoints: &[Workload]) -> String {
    let mut db = entry("db", "240.240.0.1");
    db.addresses.push(NetworkAddress::new("", ip("192.0.2.7")));
    let (web, legacy) = (service("web", VIP), service("legacy", "10.96.0.2"));
    let (mixed, empty) = (service("mixed", "10.96.0.3"), service("empty", "10.96.0.4"));
    let mut range = entry("range", "240.240.0.9");
    range.load_balancing.mode = LoadBalancingMode::Passthrough;
    range.cidr_vips = vec![NetworkCidr {
        network: "".into(),
        cidr: "198.51.100.0/24".parse().expect("literal"),
    }];
    let mut machine = captured(inline(&entry("machine", "240.240.0.8"), "203.0.113.1"));
    machine.uid = WorkloadUid::new("Kubernetes/networking.istio.io/WorkloadEntry/shop/machine");
    let mut workloads = vec![
        member(pod("web", &[POD]), &web, &[]),
        member(pod("web-6", &["fd00:244:2::1"]), &web, &[]),
        plain(member(pod("legacy", &["10.244.2.2"]), &legacy, &[])),
        plain(member(pod("mixed-0", &["10.244.2.3"]), &mixed, &[])),
        member(pod("mixed-1", &["10.244.2.4"]), &mixed, &[]),
        machine,
    ];
    workloads.extend(endpoints.iter().cloned());
    let workloads: Vec<&Workload> = workloads.iter().collect();
    let services = [&db, &web, &legacy, &mixed, &empty, &range];
    Scenario::new(&services, &workloads).route(ENTRY)
}

/// What an enrolled pod gets in plaintext, it can't know to be from whom, and STRICT refuses it.
#[test]
fn istio_56865_an_entrys_endpoint_at_an_address_of_the_mesh_gets_no_plaintext() {
    let db = entry("db", "240.240.0.1");
    for (address, owner) in [
        (POD, Some("captured workload Kubernetes//Pod/shop/web's")),
        (
            "fd00:244:2::1",
            Some("captured workload Kubernetes//Pod/shop/web-6's"),
        ),
        (
            "203.0.113.1",
            Some("captured workload Kubernetes/networking.istio.io/WorkloadEntry/shop/machine's"),
        ),
        // Behind it are captured pods, some, or it is not known who.
        (VIP, Some("service shop/web.shop.svc.cluster.local's")),
        (
            "10.96.0.3",
            Some("service shop/mixed.shop.svc.cluster.local's"),
        ),
        (
            "10.96.0.4",
            Some("service shop/empty.shop.svc.cluster.local's"),
        ),
        // Nobody behind it is captured.
        ("10.96.0.2", None),
        ("10.244.2.2", None),
        ("10.244.2.3", None),
        ("192.0.2.1", None),
        ("2001:db8::1", None),
        // The entry's own, and one that is passed through.
        ("192.0.2.7", None),
        ("198.51.100.1", None),
    ] {
        let endpoint = inline(&db, address);
        let target = SocketAddr::new(ip(address), 5432);
        let expected = match owner {
            Some(owner) => format!(
                "refuse: {} is at {address}, which is {owner}: plaintext is not sent there",
                endpoint.uid
            ),
            None => format!("tcp {target}"),
        };
        assert_eq!(route(&[endpoint]), expected, "{address}");
    }
}

#[test]
fn an_entrys_endpoint_that_speaks_hbone_is_reached_as_itself_at_any_address() {
    let db = entry("db", "240.240.0.1");
    for address in [POD, VIP, "203.0.113.1", "192.0.2.1"] {
        let endpoint = captured(inline(&db, address));
        let expected = format!("hbone {address}:15008 for {address}:5432 as db");
        assert_eq!(route(&[endpoint]), expected);
    }
    // A pod that the entry's workloadSelector chooses.
    let chosen = member(pod("chosen", &["10.244.2.9"]), &db, &[]);
    assert_eq!(
        route(&[chosen]),
        "hbone 10.244.2.9:15008 for 10.244.2.9:5432 as chosen"
    );
}

#[test]
fn an_entrys_endpoints_that_get_no_plaintext_leave_the_others() {
    let db = entry("db", "240.240.0.1");
    let mut endpoints = vec![
        inline(&db, POD),
        inline(&db, VIP),
        inline(&db, "192.0.2.1"),
        plain(member(pod("legacy-1", &["10.244.2.8"]), &db, &[])),
        captured(inline(&db, "203.0.113.2")),
    ];
    let others = "hbone 203.0.113.2:15008 for 203.0.113.2:5432 as db, \
                  tcp 10.244.2.8:5432, tcp 192.0.2.1:5432";
    assert_eq!(route(&endpoints), others);
    endpoints.truncate(2);
    let refused = route(&endpoints);
    assert!(refused.contains("plaintext is not sent there"), "{refused}");
}

#[test]
fn an_entrys_endpoint_in_another_network_is_not_who_has_its_address_here() {
    let db = entry("db", "240.240.0.1");
    let mut far = inline(&db, POD);
    far.network = "far".into();
    let refused = route(&[far]);
    assert!(
        refused.contains("is reached through a gateway only"),
        "{refused}"
    );
}

/// Its address is the node's, where the node's tunnel is a workload of the mesh.
#[test]
fn a_plain_pod_of_a_nodes_network_is_reached_beside_the_nodes_tunnel() {
    let exporter_service = service("exporter", VIP);
    let mut exporter = plain(member(
        pod("exporter", &["172.30.0.1"]),
        &exporter_service,
        &[],
    ));
    exporter.network_mode = NetworkMode::HostNetwork;
    let tunnel = pod("ztunnel", &["172.30.0.1"]);
    let scenario = Scenario::new(&[&exporter_service], &[&exporter, &tunnel]);
    assert_eq!(scenario.route("10.96.0.1:80"), "tcp 172.30.0.1:8080");
}
