//! The data path in real network namespaces: captured pods on two nodes.

mod capabilities;
mod counterpart;
mod dedicated;
mod forged;
mod golden;
mod ip_reuse;
mod istio;
mod lab;
mod network_gateway;
mod objects;
mod revocation;
mod same_node;
mod socks5;
mod source_ports;
mod waypoint;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::{APPLICATION, Lab, PATIENCE, greeting};
use mesh::address::{NamespacedHostname, NetworkAddress};
use mesh::authorization::{
    Action, Authorization, Clause, Match, PolicyKey, Rule, Scope, StringMatch,
};
use mesh::identity::Identity;
use mesh::service::{AppProtocol, Port, Service};
use mesh::snapshot::Change;
use mesh::workload::{ApplicationProtocol, ApplicationTunnel, TunnelProtocol, Workload};
use tests::lab::scale::scaled;
use ztunnel::proxy::access_log::{AccessLogRecord, Direction};

/// Where [`publish_service`] puts its service.
const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 80)), 80);

fn identity_of(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn deny(name: &str, condition: Match) -> Change {
    Change::Authorization(Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![condition],
            }],
        }],
    })
}

fn deny_account(account: &str) -> Change {
    deny(
        "no-entry",
        Match {
            principals: vec![StringMatch::Exact(identity_of(account).principal().into())],
            ..Match::default()
        },
    )
}

fn deny_plaintext() -> Change {
    deny(
        "strict",
        Match {
            not_principals: vec![StringMatch::Presence],
            ..Match::default()
        },
    )
}

fn allow_again(name: &str) -> Change {
    Change::RemoveAuthorization(PolicyKey::new("shop", name))
}

fn echo(stream: &mut TcpStream) {
    stream.write_all(b"hello").expect("write");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("echo");
    assert_eq!(&answer, b"hello");
}

/// Ends the connection in order and checks that the other side did too.
fn close(mut stream: TcpStream) {
    stream.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(stream.read(&mut [0; 1]).expect("end"), 0);
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for the connection to be cut and tells how long it took.
fn cut(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let error = stream.read(&mut [0; 1]).expect_err("cut, not closed");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    started.elapsed()
}

fn is_refused(result: std::io::Result<(TcpStream, IpAddr)>) -> bool {
    result.is_err_and(|error| {
        matches!(
            error.kind(),
            ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::UnexpectedEof
        )
    })
}

fn has_error(record: &AccessLogRecord, text: &str) -> bool {
    record
        .error
        .as_ref()
        .is_some_and(|error| error.contains(text))
}

#[test]
fn between_nodes_both_identities_and_the_source_address_arrive() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    for (to, source) in [
        (lab.ip("server"), lab.ip("client")),
        (lab.ip6("server"), lab.ip6("client")),
    ] {
        let (mut stream, caller) = lab.call("client", (to, APPLICATION).into()).expect("call");
        assert_eq!(caller, source);
        echo(&mut stream);
        close(stream);
        let of_this = |record: &AccessLogRecord| record.source.address.ip() == source;
        for record in [
            lab.log_of(1, Direction::Outbound, of_this),
            lab.log_of(2, Direction::Inbound, of_this),
        ] {
            assert_eq!(record.error, None);
            assert_eq!(record.source.identity, Some(identity_of("client")));
            assert_eq!(record.destination.identity, Some(identity_of("server")));
            assert_eq!(record.tls_group, Some("X25519MLKEM768"));
            assert_eq!(record.bytes_received, 5);
            let asked = SocketAddr::new(to, APPLICATION);
            assert_eq!(record.hbone_address, Some(asked.into()));
        }
    }
}

#[test]
fn on_one_node_the_sockets_are_joined_without_a_tunnel() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 1);
    let (mut stream, caller) = lab.call("client", lab.address("server")).expect("call");
    assert_eq!(caller, lab.ip("client"));
    echo(&mut stream);
    assert_eq!(lab.open_connections(1), 1);
    close(stream);
    for direction in [Direction::Outbound, Direction::Inbound] {
        let record = lab.log_of(1, direction, |_| true);
        assert_eq!(record.error, None);
        assert_eq!(record.tls_group, None);
        assert_eq!(record.source.identity, Some(identity_of("client")));
        assert_eq!(record.destination.identity, Some(identity_of("server")));
        assert_eq!(record.bytes_received, 5);
    }
    // A connection is logged first, then taken off the list.
    until("none is listed", || lab.open_connections(1) == 0);
    lab.publish([deny_account("client")]);
    assert!(is_refused(lab.call("client", lab.address("server"))));
    lab.log_of(1, Direction::Inbound, |record| {
        has_error(record, "denied by policy shop/no-entry")
    });
    lab.log_of(1, Direction::Outbound, |record| has_error(record, "401"));
}

#[test]
fn on_one_node_connections_take_the_tunnel_where_they_are_told_to() {
    for same_node_direct in [true, false] {
        let mut lab = Lab::with(["", ""], |config| {
            config.same_node_direct = same_node_direct;
        });
        lab.pod("client", 1);
        lab.pod("server", 1);
        let (mut stream, caller) = lab.call("client", lab.address("server")).expect("call");
        assert_eq!(caller, lab.ip("client"));
        echo(&mut stream);
        let tunnels = "ss -Htn state established sport = :15008 | grep -q .";
        match same_node_direct {
            true => lab.run("server", &format!("! {tunnels}")),
            false => lab.run("server", tunnels),
        }
        close(stream);
        for direction in [Direction::Outbound, Direction::Inbound] {
            let record = lab.log_of(1, direction, |_| true);
            assert_eq!(record.error, None);
            assert_eq!(record.source.identity, Some(identity_of("client")));
            assert_eq!(record.destination.identity, Some(identity_of("server")));
            let tunnelled = record.tls_group == Some("X25519MLKEM768");
            assert_eq!(tunnelled, !same_node_direct, "{record:?}");
        }
    }
}

/// Pods of the cluster, as far as their own tunnels are told.
fn lab_with_cluster(owner_wait: Duration) -> Lab {
    let mut lab = Lab::with(["", ""], move |config| {
        config.cluster_cidrs = vec!["10.44.0.0/16".parse().expect("a network")];
        config.owner_wait = owner_wait;
    });
    lab.pod("client", 1);
    lab
}

#[test]
fn a_connection_waits_for_an_address_of_the_cluster_to_be_known() {
    let mut lab = lab_with_cluster(PATIENCE);
    lab.bare_pod_on("server", 2);
    lab.capture("server", 2);
    lab.serve("server");
    let mut stream = lab.dial("client", lab.address("server")).expect("taken");
    lab.publish([Change::Workload(lab.workload("server", 2))]);
    greeting(&mut stream).expect("the server");
    echo(&mut stream);
    close(stream);
    let record = lab.log_of(1, Direction::Outbound, |_| true);
    assert_eq!(record.destination.identity, Some(identity_of("server")));
}

#[test]
fn an_address_of_the_cluster_that_nobody_has_gets_no_plaintext() {
    let mut lab = lab_with_cluster(Duration::from_millis(10));
    lab.bare_pod("server");
    lab.serve("server");
    assert!(is_refused(lab.call("client", lab.address("server"))));
    lab.log_of(1, Direction::Outbound, |record| {
        has_error(
            record,
            "is an address of the cluster that nothing known has",
        )
    });
    // Whoever is outside of the cluster is reached as always.
    let outside = (lab.ip6("server"), APPLICATION).into();
    lab.call("client", outside).expect("passed on");
}

#[test]
fn a_denied_identity_is_refused_and_let_in_again() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    lab.publish([deny_account("client")]);
    assert!(is_refused(lab.call("client", lab.address("server"))));
    lab.log_of(1, Direction::Outbound, |record| has_error(record, "401"));
    lab.log_of(2, Direction::Inbound, |record| {
        has_error(record, "denied by policy shop/no-entry")
    });
    lab.publish([allow_again("no-entry")]);
    let (mut stream, _) = lab.call("client", lab.address("server")).expect("call");
    echo(&mut stream);
}

#[test]
fn a_policy_change_cuts_what_it_denies_and_nothing_else() {
    let promised = scaled(PATIENCE, Duration::from_secs(1));
    let mut lab = Lab::new();
    lab.pod("far", 1);
    lab.pod("near", 2);
    lab.pod("server", 2);
    lab.bare_pod("plain");
    let mut far = lab.call("far", lab.address("server")).expect("far").0;
    let mut near = lab.call("near", lab.address("server")).expect("near").0;
    let mut plain = lab.call("plain", lab.address("server")).expect("plain").0;

    lab.publish([deny_account("far")]);
    assert!(cut(&mut far) < promised);
    echo(&mut near);
    echo(&mut plain);
    lab.publish([deny_account("near")]);
    assert!(cut(&mut near) < promised);
    echo(&mut plain);
    lab.publish([deny_plaintext()]);
    assert!(cut(&mut plain) < promised);
    lab.log_of(2, Direction::Inbound, |record| {
        has_error(record, "shop/strict")
    });
}

#[test]
fn plaintext_passes_until_policy_wants_an_identity() {
    let mut lab = Lab::new();
    lab.bare_pod("plain");
    lab.pod("server", 2);
    let (mut stream, caller) = lab.call("plain", lab.address("server")).expect("call");
    assert_eq!(caller, lab.ip("plain"));
    echo(&mut stream);
    lab.publish([deny_plaintext()]);
    assert!(is_refused(lab.call("plain", lab.address("server"))));
}

#[test]
fn an_unmeshed_destination_is_reached_in_plaintext() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.bare_pod("plain");
    lab.serve("plain");
    let (mut stream, caller) = lab.call("client", lab.address("plain")).expect("call");
    assert_eq!(caller, lab.ip("client"));
    echo(&mut stream);
    close(stream);
    let record = lab.log_of(1, Direction::Outbound, |_| true);
    assert_eq!(record.destination.identity, None);
}

/// The listener of an application that wants the PROXY header, where only the tunnel reaches it.
fn header_listener(lab: &Lab, name: &str) -> TcpListener {
    let listener = lab.within(name, || TcpListener::bind(("127.0.0.1", APPLICATION + 1)));
    listener.expect("application")
}

/// Takes one connection's header.
fn take_header(listener: &TcpListener, length: usize) -> thread::JoinHandle<Vec<u8>> {
    let listener = listener.try_clone().expect("clone");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).expect("header and bytes");
        bytes
    })
}

#[test]
fn an_application_behind_the_proxy_protocol_is_told_who_calls() {
    let mut lab = Lab::new();
    lab.pod("far", 1);
    lab.pod("near", 2);
    lab.pod("server", 2);
    lab.bare_pod("plain");
    let mut server = lab.workload("server", 2);
    server.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(APPLICATION + 1),
    });
    lab.publish([Change::Workload(server)]);
    let listener = header_listener(&lab, "server");
    for name in ["far", "near"] {
        let identity = identity_of(name).to_string();
        let application = take_header(&listener, 16 + 12 + 3 + identity.len() + 5);
        let target = lab.address("server");
        let mut stream = lab
            .within(name, || TcpStream::connect_timeout(&target, PATIENCE))
            .expect("call");
        stream.write_all(b"hello").expect("write");
        let bytes = application.join().expect("told");
        let (addresses, rest) = bytes[16..].split_at(12);
        let (IpAddr::V4(client), IpAddr::V4(asked)) = (lab.ip(name), lab.ip("server")) else {
            panic!("IPv4");
        };
        assert_eq!(addresses[..8], [client.octets(), asked.octets()].concat());
        assert_eq!(addresses[10..], APPLICATION.to_be_bytes());
        assert_eq!(rest[0], 0xD0);
        assert_eq!(rest[3..], *format!("{identity}hello").as_bytes());
    }
    // Whoever reached that port with bytes of their own could claim any identity.
    let behind = SocketAddr::new(lab.ip("server"), APPLICATION + 1);
    assert!(is_refused(lab.call("plain", behind)));
    lab.log_of(2, Direction::Inbound, |record| {
        has_error(record, "behind the PROXY protocol")
    });
}

#[test]
fn an_endpoint_known_by_name_is_passed_over_when_nothing_answers_there() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    // One name leads to the application, one nowhere, one to where nobody listens.
    let listener = lab.within("client", || {
        TcpListener::bind(("127.0.0.1", APPLICATION + 1))
    });
    let listener = listener.expect("application");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            stream.write_all(b"\x09127.0.0.1").expect("greeting");
        }
    });
    let key = NamespacedHostname::new("shop", "db.example");
    let port = Port {
        service_port: 80,
        target_port: APPLICATION + 1,
        app_protocol: AppProtocol::Unknown,
    };
    let mut service = Service::new("db", "shop", &key.hostname);
    service.addresses = vec![NetworkAddress::new("", SERVICE.ip())];
    service.ports = vec![port];
    let members: Vec<_> = ["localhost", "nowhere.invalid", "127.0.0.2"]
        .iter()
        .map(|hostname| {
            let uid = format!("Kubernetes/networking.istio.io/ServiceEntry/shop/db/{hostname}");
            let mut workload = Workload::new(&uid, hostname, "shop");
            workload.hostname = Some((*hostname).into());
            workload.services.insert(key.clone(), vec![port]);
            Change::Workload(workload)
        })
        .collect();
    lab.publish([Change::Service(service)].into_iter().chain(members));
    for _ in 0..8 {
        lab.call("client", SERVICE).expect("one name answers");
    }
}

#[test]
fn a_name_that_leads_to_a_captured_pod_is_not_dialled_in_plaintext() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let key = NamespacedHostname::new("shop", "db.example");
    let port = Port {
        service_port: 80,
        target_port: APPLICATION,
        app_protocol: AppProtocol::Unknown,
    };
    let mut service = Service::new("db", "shop", &key.hostname);
    service.addresses = vec![NetworkAddress::new("", SERVICE.ip())];
    service.ports = vec![port];
    let uid = "Kubernetes/networking.istio.io/ServiceEntry/shop/db/name";
    let mut endpoint = Workload::new(uid, "name", "shop");
    // A name that resolves to the pod.
    endpoint.hostname = Some(lab.ip("server").to_string().into());
    endpoint.services.insert(key, vec![port]);
    lab.publish([Change::Service(service), Change::Workload(endpoint)]);
    assert!(is_refused(lab.call("client", SERVICE)));
    lab.log_of(1, Direction::Outbound, |record| {
        has_error(record, "plaintext is not sent there")
    });
}

/// A service's address leads to its pods, of which the name's author need know nothing.
#[test]
fn istio_56865_a_name_that_leads_to_a_service_of_captured_pods_is_not_dialled_in_plaintext() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    // What the service's address leads to where nobody is in between.
    let application = ("127.0.0.1", APPLICATION + 1);
    let listener = lab.within("client", || TcpListener::bind(application));
    let listener = listener.expect("application");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            stream.write_all(b"\x09127.0.0.1").expect("greeting");
        }
    });
    let port = Port {
        service_port: 80,
        target_port: APPLICATION + 1,
        app_protocol: AppProtocol::Unknown,
    };
    let service = |name: &str, address: IpAddr| Service {
        addresses: vec![NetworkAddress::new("", address)],
        ports: vec![port],
        ..Service::new(name, "shop", &format!("{name}.example"))
    };
    let (web, alias) = (
        service("web", Ipv4Addr::LOCALHOST.into()),
        service("alias", SERVICE.ip()),
    );
    let uid = "Kubernetes/networking.istio.io/ServiceEntry/shop/alias/localhost";
    let mut endpoint = Workload::new(uid, "alias", "shop");
    endpoint.hostname = Some("localhost".into());
    endpoint.services.insert(alias.key(), vec![port]);
    let mut backend = lab.workload("server", 2);
    backend.services.insert(web.key(), vec![port]);
    lab.publish([
        Change::Service(alias),
        Change::Workload(endpoint),
        Change::Workload(backend),
        Change::Service(web),
    ]);
    assert!(is_refused(lab.call("client", SERVICE)));
    lab.log_of(1, Direction::Outbound, |record| {
        has_error(
            record,
            "which is service shop/web.example's: plaintext is not sent there",
        )
    });
}

/// Makes the service `10.96.0.80:80` of these pods.
fn publish_service(lab: &mut Lab, members: &[(&str, usize)], tunnel_protocol: TunnelProtocol) {
    let key = NamespacedHostname::new("shop", "web.shop.svc.cluster.local");
    let port = Port {
        service_port: 80,
        target_port: APPLICATION,
        app_protocol: AppProtocol::Unknown,
    };
    let mut service = Service::new("web", "shop", &key.hostname);
    service.addresses = vec![NetworkAddress::new("", SERVICE.ip())];
    service.ports = vec![port];
    let members: Vec<_> = members
        .iter()
        .map(|(name, node)| {
            let mut workload = lab.workload(name, *node);
            workload.tunnel_protocol = tunnel_protocol;
            workload.services.insert(key.clone(), vec![port]);
            Change::Workload(workload)
        })
        .collect();
    lab.publish([Change::Service(service)].into_iter().chain(members));
}

#[test]
fn a_service_is_reached_by_its_address_past_an_endpoint_that_is_down() {
    for tunnel_protocol in [TunnelProtocol::Hbone, TunnelProtocol::None] {
        let mut lab = Lab::new();
        lab.pod("client", 1);
        match tunnel_protocol {
            TunnelProtocol::Hbone => lab.pod("server", 2),
            TunnelProtocol::None => {
                lab.bare_pod("server");
                lab.serve("server");
            }
        }
        lab.bare_pod("down");
        publish_service(&mut lab, &[("server", 2), ("down", 2)], tunnel_protocol);
        for _ in 0..8 {
            let (mut stream, caller) = lab.call("client", SERVICE).expect("one endpoint is up");
            assert_eq!(caller, lab.ip("client"));
            echo(&mut stream);
        }
    }
}

#[test]
fn a_pod_the_mesh_does_not_know_is_refused_at_once() {
    let mut lab = Lab::new();
    lab.bare_pod("stranger");
    lab.pod("server", 2);
    lab.capture("stranger", 1);
    assert!(is_refused(lab.call("stranger", lab.address("server"))));
    let record = lab.log_of(1, Direction::Outbound, |_| true);
    assert!(has_error(&record, "not known"));
}

#[test]
fn an_application_that_does_not_listen_is_reported() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let closed = SocketAddr::new(lab.ip("server"), 8081);
    assert!(is_refused(lab.call("client", closed)));
    lab.log_of(2, Direction::Inbound, |record| {
        has_error(record, "connection failed")
    });
    lab.log_of(1, Direction::Outbound, |record| has_error(record, "503"));
}

#[test]
fn a_released_pod_keeps_its_connections_and_opens_plain_ones() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    let mut tunnelled = lab.call("client", lab.address("server")).expect("call").0;
    lab.release("client", 1);
    lab.release("server", 2);
    echo(&mut tunnelled);
    let mut plain = lab.call("client", lab.address("server")).expect("call").0;
    echo(&mut plain);
    echo(&mut tunnelled);
    close(tunnelled);
    lab.log_of(2, Direction::Inbound, |record| record.bytes_received == 10);
}

/// Sends and receives at once, ends the sending, and compares all that came back.
fn echo_bulk(mut stream: TcpStream, size: usize) {
    let mut writer = stream.try_clone().expect("clone");
    let sent: Arc<[u8]> = (0..size)
        .map(|index| ((index * index) >> 9) as u8)
        .collect();
    let sending = sent.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&sending).expect("write");
        writer.shutdown(Shutdown::Write).expect("shutdown");
    });
    let mut received = Vec::with_capacity(size);
    stream.read_to_end(&mut received).expect("read");
    assert!(received == *sent, "{} bytes", received.len());
    sender.join().expect("sent");
}

#[test]
fn bulk_passes_unchanged_both_ways_at_once() {
    const SIZE: usize = 32 << 20;
    for node in [1, 2] {
        let mut lab = Lab::new();
        lab.pod("client", 1);
        lab.pod("server", node);
        let (stream, _) = lab.call("client", lab.address("server")).expect("call");
        echo_bulk(stream, SIZE);
    }
}

#[test]
fn the_tunnels_own_ports_lead_nowhere() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    for port in [15001, 15006, 15008] {
        for host in ["client", "server"] {
            let target = SocketAddr::new(lab.ip(host), port);
            let result = lab.within("client", || {
                let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
                stream.read(&mut [0; 64])
            });
            // A TLS alert is all that 15008 may say.
            assert!(
                !matches!(result, Ok(amount) if amount > 7),
                "{target}: {result:?}"
            );
        }
    }
    let (mut stream, _) = lab.call("client", lab.address("server")).expect("still up");
    echo(&mut stream);
}

#[test]
fn a_drain_waits_for_what_runs_and_cuts_at_its_deadline() {
    let mut lab = Lab::new();
    lab.pod("client", 1);
    lab.pod("server", 2);
    lab.bare_pod("plain");
    let mut stream = lab.call("client", lab.address("server")).expect("call").0;
    let (plain, tunnel) = (lab.netns("plain"), SocketAddr::new(lab.ip("server"), 15008));
    let is_closed = Arc::new(AtomicBool::new(false));
    let closed = is_closed.clone();
    let closing = thread::spawn(move || {
        let connect = || TcpStream::connect_timeout(&tunnel, PATIENCE);
        let listens = || cni::netns::run_blocking(&plain, connect).expect("namespace");
        until("the drain has begun", || listens().is_err());
        echo(&mut stream);
        closed.store(true, Ordering::SeqCst);
        close(stream);
    });
    let (took, cut_off) = lab.drain(2, PATIENCE);
    assert!(is_closed.load(Ordering::SeqCst), "it did not wait");
    assert!(took < PATIENCE, "{took:?}");
    assert_eq!(cut_off, 0);
    closing.join().expect("undisturbed");
}

/// Whichever end a connection has on the drained node, both applications see that it is broken:
/// what came so far is not all there was.
#[test]
fn what_is_cut_at_the_deadline_does_not_look_complete() {
    for (drained, server_node, plain) in [(2, 2, false), (1, 2, false), (1, 1, false), (1, 2, true)]
    {
        let mut lab = Lab::new();
        lab.pod("client", 1);
        match plain {
            true => lab.bare_pod("server"),
            false => lab.pod("server", server_node),
        }
        let address = SocketAddr::new(lab.ip("server"), APPLICATION + 1);
        let listener = lab.within("server", || TcpListener::bind(address));
        let listener = listener.expect("application");
        let mut client = lab.dial("client", address).expect("taken");
        let (mut server, _) = listener.accept().expect("accepted");
        server.set_read_timeout(Some(PATIENCE)).expect("socket");
        server.write_all(b"half").expect("write");
        client.read_exact(&mut [0; 4]).expect("arrives");
        let (_, cut_off) = lab.drain(drained, Duration::ZERO);
        assert_eq!(cut_off, 1, "node {drained} of a server on {server_node}");
        cut(&mut client);
        cut(&mut server);
    }
}

/// Nor does what has not reached its destination by then.
#[test]
fn what_still_connects_at_the_deadline_is_reset() {
    // Who calls, which node is drained, and what the server's kernel leaves unanswered.
    for (client, drained, swallowed) in [
        ("client", 1, 15008),
        ("client", 1, APPLICATION),
        ("plain", 2, APPLICATION),
    ] {
        let mut lab = Lab::new();
        lab.pod("client", 1);
        lab.bare_pod("plain");
        lab.pod("server", 2);
        let case = format!("{client}, port {swallowed}");
        lab::sh(
            &lab.netns("server"),
            &format!(
                "nft 'add table inet hole; add chain inet hole in {{ type filter hook input priority 0; }}; \
                 add rule inet hole in tcp dport {swallowed} tcp flags & (syn | ack) == syn counter drop'"
            ),
        );
        let mut stream = lab.dial(client, lab.address("server")).expect("taken");
        until(&case, || {
            let counted = lab.within("server", || {
                Command::new("nft")
                    .args(["list", "chain", "inet", "hole", "in"])
                    .output()
            });
            let counted = counted.expect("nft").stdout;
            let counted = String::from_utf8_lossy(&counted);
            counted.contains("packets") && !counted.contains("packets 0")
        });
        lab.drain(drained, Duration::ZERO);
        cut(&mut stream);
    }
}
