//! What is told of a connection between two pods of one node: the same, whether their sockets are
//! joined or a tunnel carries it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use mesh::workload::TunnelProtocol;
use runtime::metrics::{LATENCY_BUCKETS, Metrics, Settings};
use ztunnel::proxy::access_log::Direction;

use super::lab::{Lab, PATIENCE};
use super::{
    SERVICE, close, cut, deny_account, echo, identity_of, is_refused, publish_service, until,
};

/// Where nobody listens.
const CLOSED: u16 = 9;

/// What happens to a connection from one pod to the other.
type Scenario = fn(&mut Lab, &str, &str);

/// What both ends say of it.
#[derive(Debug, PartialEq)]
struct Told {
    lines: Vec<String>,
    counters: Vec<String>,
}

/// The process's recorder, which must be there before whatever counts.
fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| {
        let settings = Settings {
            component: "test",
            version: "0",
            buckets: &[("none", LATENCY_BUCKETS)],
            idle: Duration::from_secs(3600),
        };
        Metrics::install(&settings).expect("the only one")
    })
}

fn told(name: &str, direct: bool, run: Scenario) -> Told {
    let metrics = metrics();
    let way = if direct { "joined" } else { "carried" };
    let [client, server] = ["client", "server"].map(|end| format!("{name}-{way}-{end}"));
    let mut lab = Lab::with(["", ""], |config| config.same_node_direct = direct);
    lab.pod(&client, 1);
    lab.pod(&server, 1);
    run(&mut lab, &client, &server);
    let traces = [Direction::Outbound, Direction::Inbound].map(|direction| {
        let mut record = lab.log_of(1, direction, |_| true);
        // What differs between any two connections, and what only a tunnel has.
        record.duration = Duration::ZERO;
        record.source.address.set_port(0);
        record.tls_group = None;
        // A tunnel's client knows no more than that.
        record.error = record.error.map(|_| "failed".to_owned());
        let trace = record.trace.take();
        (trace.expect("over mutual TLS").to_string(), record)
    });
    assert_eq!(traces[0].0, traces[1].0, "{name}, {way}: of one connection");
    let lines = traces.map(|(_, record)| format!("{record:?}").replace(way, "way"));
    let text = metrics.text();
    let counters = text.lines().filter(|line| line.contains(&client));
    let mut counters: Vec<_> = counters.map(|line| line.replace(way, "way")).collect();
    counters.sort();
    Told {
        lines: lines.into(),
        counters,
    }
}

#[test]
fn a_joined_connection_looks_like_a_tunnelled_one() {
    let scenarios: [(&str, Scenario); 4] = [
        ("ends", |lab, client, server| {
            let (mut stream, caller) = lab.call(client, lab.address(server)).expect("call");
            assert_eq!(caller, lab.ip(client));
            echo(&mut stream);
            close(stream);
        }),
        ("denied", |lab, client, server| {
            lab.publish([deny_account(client)]);
            assert!(is_refused(lab.call(client, lab.address(server))));
        }),
        ("cut", |lab, client, server| {
            let (mut stream, _) = lab.call(client, lab.address(server)).expect("call");
            echo(&mut stream);
            lab.publish([deny_account(client)]);
            cut(&mut stream);
        }),
        ("refused", |lab, client, server| {
            let closed = SocketAddr::new(lab.ip(server), CLOSED);
            assert!(is_refused(lab.call(client, closed)));
        }),
    ];
    for (name, run) in scenarios {
        let [joined, tunnelled] = [true, false].map(|direct| told(name, direct, run));
        assert!(!joined.counters.is_empty(), "{name}: nothing is counted");
        assert_eq!(joined, tunnelled, "{name}");
    }
}

#[test]
fn an_endpoint_without_a_certificate_is_passed_over_and_left_alone() {
    for direct in [true, false] {
        let mut lab = Lab::with(["", ""], |config| {
            config.same_node_direct = direct;
            config.ejection.base = PATIENCE;
        });
        for name in ["client", "server", "broken"] {
            lab.pod(name, 1);
        }
        lab.authority().withhold(identity_of("broken"));
        let members = [("server", 1), ("broken", 1)];
        publish_service(&mut lab, &members, TunnelProtocol::Hbone);
        for _ in 0..16 {
            let (mut stream, _) = lab.call("client", SERVICE).expect("the other endpoint");
            echo(&mut stream);
        }
        assert_eq!(lab.ejected(1), ["Kubernetes//Pod/shop/broken"], "{direct}");
    }
}

#[test]
fn a_drain_waits_for_joined_and_tunnelled_connections_alike() {
    for direct in [true, false] {
        let mut lab = Lab::with(["", ""], |config| config.same_node_direct = direct);
        lab.pod("client", 1);
        lab.pod("server", 1);
        lab.bare_pod("plain");
        let (mut stream, _) = lab.call("client", lab.address("server")).expect("call");
        let (plain, tunnel) = (lab.netns("plain"), SocketAddr::new(lab.ip("server"), 15008));
        let is_closed = Arc::new(AtomicBool::new(false));
        let closed = is_closed.clone();
        let closing = thread::spawn(move || {
            let connect = || std::net::TcpStream::connect_timeout(&tunnel, PATIENCE);
            let listens = || cni::netns::run_blocking(&plain, connect).expect("namespace");
            until("the drain has begun", || listens().is_err());
            echo(&mut stream);
            closed.store(true, Ordering::SeqCst);
            close(stream);
        });
        let (took, cut) = lab.drain(1, PATIENCE);
        assert!(is_closed.load(Ordering::SeqCst), "it did not wait");
        assert!(took < PATIENCE && cut == 0, "{cut} cut after {took:?}");
        closing.join().expect("undisturbed");
    }
}
