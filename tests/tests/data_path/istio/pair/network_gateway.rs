//! From one network into another, through a gateway that can't read what it passes on. Neither node knows
//! the other's pods: they are what their certificates and `baggage` say.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;

use mesh::address::GatewayDestination;
use mesh::destination::HBONE_PORT;
use mesh::service::Service;
use mesh::snapshot::Change;
use mesh::workload::{ApplicationProtocol, ApplicationTunnel};

use super::{BULK, Pair, ends, web_of_server};
use crate::counterpart::{Behind, Counterpart, Credentials, Head, Heard, proxy_header};
use crate::golden::source::client_hello;
use crate::lab::{APPLICATION, Lab};
use crate::objects::{
    GATEWAY_PORT, HOSTNAME, baggage, behind_gateway, described, only, port, tunnel_request,
    waypoint, web,
};
use crate::{
    SERVICE, close, echo, echo_bulk, header_listener, identity_of, is_refused, take_header,
};

/// `client` in a network, `server` in another, and `gateway` in both.
fn networks() -> Lab {
    let mut lab = Lab::of_two_networks();
    for (pod, network) in [("client", 1), ("server", 2), ("gateway", 1)] {
        lab.bare_pod_on(pod, network);
    }
    lab.join("gateway");
    lab
}

fn counterpart(lab: &Lab, account: &str, behind: Behind) -> (Counterpart, Receiver<Heard>) {
    let credentials = Credentials::issue(lab.authority().signer(), &identity_of(account));
    Counterpart::new(credentials, behind)
}

/// Runs the gateway, which passes on to the tunnel into a pod.
fn run_gateway(lab: &Lab, account: &str, to: &str) -> Receiver<Heard> {
    let behind = Behind::Gateway(SocketAddr::new(lab.ip(to), HBONE_PORT));
    let (counterpart, hearing) = counterpart(lab, account, behind);
    counterpart.run(lab, "gateway", GATEWAY_PORT);
    hearing
}

/// `service` as the client's network knows it: behind the gateway, where `account` answers for it.
fn near(lab: &Lab, mut service: Service, account: &str) -> Vec<Change> {
    service.subject_alt_names = vec![identity_of(account).to_string().into()];
    let mut known = vec![Change::Workload(described(lab, "client", 1))];
    known.extend(behind_gateway(lab, &service));
    known.push(Change::Service(service));
    known
}

/// `web` as the server's network knows it.
fn far(lab: &Lab) -> [Change; 2] {
    let (service, server) = web_of_server(lab, &["near", "far"]);
    [Change::Service(service), Change::Workload(server)]
}

fn start(lab: Lab, near: &[Change], far: &[Change]) -> Pair {
    let pods: [&[&str]; 2] = [&["client"], &["server"]];
    Pair::in_networks(lab, ["near", "far"], pods, [near, far])
}

/// What the client asks whoever is behind the gateway for.
fn inner_request(source: SocketAddr) -> Head {
    let mut head = tunnel_request(&format!("{HOSTNAME}:80"), source, Some(HOSTNAME));
    let network = ("x-forwarded-network".to_owned(), "near".to_owned());
    head.headers.push(network);
    head
}

/// Uses a connection of the client's to the end, and answers where it came from.
fn use_up(lab: &Lab) -> SocketAddr {
    let (mut stream, _) = lab.call("client", SERVICE).expect("call");
    let source = stream.local_addr().expect("bound");
    echo(&mut stream);
    close(stream);
    source
}

#[test]
fn both_ends_know_each_other_by_certificate_and_baggage() {
    let lab = networks();
    let at_gateway = run_gateway(&lab, "gateway", "server");
    let near = near(&lab, web(&["near", "far"]), "server");
    let far = far(&lab);
    let pair = start(lab, &near, &far);
    let lab = &pair.lab;
    let source = use_up(lab);
    let heard = Heard::next(&at_gateway);
    let target = format!("{HOSTNAME}:80");
    assert_eq!(heard.head, tunnel_request(&target, source, Some(HOSTNAME)));
    assert_eq!(heard.hello.settings, client_hello().settings);
    assert_eq!(heard.hello.identity, Some(identity_of("client")));
    let (stream, caller) = lab.call("client", SERVICE).expect("call");
    assert_eq!(caller, lab.far_ip("gateway"));
    echo_bulk(stream, BULK);

    let [client, server] = ["client", "server"].map(|name| identity_of(name).to_string());
    for (node, reporter) in [(1, "source"), (2, "destination")] {
        pair.counted(
            node,
            &[
                ("reporter", reporter),
                ("source_workload", "client"),
                ("source_canonical_service", "client-app"),
                ("source_canonical_revision", "v1"),
                ("source_workload_namespace", "shop"),
                ("source_principal", &client),
                ("source_cluster", "Kubernetes"),
                ("destination_workload", "server"),
                ("destination_canonical_service", "server-app"),
                ("destination_canonical_revision", "v1"),
                ("destination_workload_namespace", "shop"),
                ("destination_principal", &server),
                ("destination_cluster", "west"),
                ("destination_service", HOSTNAME),
                ("connection_security_policy", "mutual_tls"),
            ],
        );
    }
    let identities = [("src.identity", client.as_str()), ("dst.identity", &server)];
    let workloads = [
        ("src.workload", "client"),
        ("dst.workload", "server"),
        ("direction", "outbound"),
    ];
    pair.logged(1, &[&identities[..], &workloads].concat());
    // What its log calls a client that only `baggage` describes, Istio's decides in another way.
    pair.logged(2, &[&identities[..], &[("direction", "inbound")]].concat());

    // The far node's policies are about the client.
    let mut open = lab.call("client", SERVICE).expect("call").0;
    pair.tell(2, &[only("somebody")]);
    assert!(ends(&mut open));
    assert!(is_refused(lab.call("client", SERVICE)));
    pair.tell(2, &[only("client")]);
    pair.nodes[1].until("the client is let in", || {
        lab.call("client", SERVICE).is_ok()
    });
}

#[test]
fn a_gateway_is_found_by_the_name_of_its_service_too() {
    let lab = networks();
    let at_gateway = run_gateway(&lab, "gateway", "server");
    let mut its_service = Service::new("gateway", "shop", "gateway.shop.svc.cluster.local");
    its_service.ports = vec![port(GATEWAY_PORT, GATEWAY_PORT)];
    let mut near = near(&lab, web(&["near", "far"]), "server");
    for change in &mut near {
        if let Change::Workload(workload) = change {
            if workload.service_account == "gateway".into() {
                let ports = its_service.ports.clone();
                workload.services.insert(its_service.key(), ports);
            }
            if let Some(gateway) = &mut workload.network_gateway {
                gateway.destination = GatewayDestination::Hostname(its_service.key());
            }
        }
    }
    near.push(Change::Service(its_service));
    let far = far(&lab);
    let pair = start(lab, &near, &far);
    let source = use_up(&pair.lab);
    let target = format!("{HOSTNAME}:80");
    let expected = tunnel_request(&target, source, Some(HOSTNAME));
    assert_eq!(Heard::next(&at_gateway).head, expected);
}

#[test]
fn who_is_behind_the_gateway_is_asked_in_a_tunnel_and_says_who_it_is() {
    let lab = networks();
    let (inner, at_server) = counterpart(&lab, "server", Behind::Application);
    let inner = Box::new(inner.with_baggage(&baggage("elsewhere")));
    let (outer, _at_gateway) = counterpart(&lab, "gateway", Behind::Tunnel(inner));
    outer.run(&lab, "gateway", GATEWAY_PORT);
    let near = near(&lab, web(&["near", "far"]), "server");
    let far = far(&lab);
    let pair = start(lab, &near, &far);
    let source = use_up(&pair.lab);
    let heard = Heard::next(&at_server);
    assert_eq!(heard.head, inner_request(source));
    assert_eq!(heard.hello.settings, client_hello().settings);
    assert_eq!(heard.hello.identity, Some(identity_of("client")));
    let server = identity_of("server").to_string();
    pair.counted(
        1,
        &[
            ("reporter", "source"),
            ("destination_workload", "elsewhere"),
            ("destination_canonical_service", "elsewhere-app"),
            ("destination_principal", &server),
        ],
    );
}

#[test]
fn an_application_is_told_the_address_of_the_service_that_was_asked_for() {
    let lab = networks();
    let _at_gateway = run_gateway(&lab, "gateway", "server");
    let near = near(&lab, web(&["near", "far"]), "server");
    let (service, mut server) = web_of_server(&lab, &["near", "far"]);
    server.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(APPLICATION + 1),
    });
    let far = [Change::Service(service), Change::Workload(server)];
    let pair = start(lab, &near, &far);
    let identity = identity_of("client").to_string();
    let listener = header_listener(&pair.lab, "server");
    let application = take_header(&listener, 16 + 12 + 3 + identity.len() + 5);
    let mut stream = pair.lab.dial("client", SERVICE).expect("taken");
    stream.write_all(b"hello").expect("written");
    let bytes = application.join().expect("told");
    // The gateway's port is its own.
    let port = u16::from_be_bytes([bytes[24], bytes[25]]);
    let source = SocketAddr::new(pair.lab.far_ip("gateway"), port);
    let mut expected = proxy_header(source, SERVICE, &identity);
    expected.extend(b"hello");
    assert_eq!(bytes, expected);
}

#[test]
fn a_waypoint_behind_the_gateway_is_asked_for_the_service() {
    let mut lab = networks();
    lab.bare_pod_on("waypoint", 2);
    let _at_gateway = run_gateway(&lab, "gateway", "waypoint");
    let behind = Behind::Waypoint(lab.address("server"));
    let (counterpart, at_waypoint) = counterpart(&lab, "waypoint", behind);
    counterpart.run(&lab, "waypoint", HBONE_PORT);
    let (address, its_service, _) = waypoint(&lab, "waypoint", 2);
    let mut service = web(&["near", "far"]);
    service.waypoint = Some(address);
    let mut near = near(&lab, its_service, "waypoint");
    near.push(Change::Service(service));
    let far = far(&lab);
    let pair = start(lab, &near, &far);
    let source = use_up(&pair.lab);
    let heard = Heard::next(&at_waypoint);
    assert_eq!(heard.head, inner_request(source));
    assert_eq!(heard.hello.identity, Some(identity_of("client")));
}

#[test]
fn only_the_gateway_and_whom_the_service_vouches_for_are_spoken_to() {
    for (account, vouched_for) in [("impostor", "server"), ("gateway", "somebody")] {
        let lab = networks();
        let at_gateway = run_gateway(&lab, account, "server");
        let near = near(&lab, web(&["near", "far"]), vouched_for);
        let far = far(&lab);
        let pair = start(lab, &near, &far);
        assert!(is_refused(pair.lab.call("client", SERVICE)), "{account}");
        assert_eq!(at_gateway.try_recv().is_ok(), account == "gateway");
    }
}
