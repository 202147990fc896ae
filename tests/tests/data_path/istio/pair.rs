//! Two nodes of Istio clusters, whose tunnels send each other what Istio's and ours have to agree on.
//! Which program runs on which node, the environment says (`WEFT_TEST_ZTUNNEL`): ours on both, where it
//! says nothing.
//!
//! - `network_gateway`: from one network into another.
//! - `waypoint`: services and workloads behind waypoints.

mod network_gateway;
mod waypoint;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use mesh::destination::HBONE_PORT;
use mesh::service::Service;
use mesh::snapshot::Change;
use mesh::workload::{ApplicationProtocol, ApplicationTunnel, Workload, WorkloadUid};
use tests::lab::{sum_of_series, ztunnel_of};

use super::agent::Connection;
use super::istiod::resources;
use super::node::Node;
use crate::counterpart::proxy_header;
use crate::golden::destination::{check_answers, check_refusals, server_hello};
use crate::lab::{APPLICATION, Lab, PATIENCE, greeting};
use crate::objects::{HOSTNAME, described, only, web};
use crate::{SERVICE, close, echo, echo_bulk, header_listener, identity_of, take_header};

/// More than a stream's window has room for.
const BULK: usize = 6 << 20;

struct Pair {
    lab: Lab,
    nodes: [Node; 2],
    /// What they have been told of holds as long as these.
    _agents: [Connection; 2],
}

/// `client` on a node, and a server on another.
fn pods() -> Lab {
    let mut lab = Lab::new();
    lab.bare_pod_on("client", 1);
    lab.bare_pod_on("server", 2);
    lab
}

/// `web` and its only endpoint, the pod `server`.
fn web_of_server(lab: &Lab, networks: &[&str]) -> (Service, Workload) {
    let service = web(networks);
    let mut server = described(lab, "server", 2);
    let cluster = cluster_in(&server.network);
    server.uid = WorkloadUid::new(format!("{cluster}//Pod/shop/server"));
    server.cluster_id = cluster.into();
    server.services.insert(service.key(), service.ports.clone());
    (service, server)
}

/// All of it, in one network.
fn known(lab: &Lab, change: impl FnOnce(&mut Workload)) -> [Change; 3] {
    let (service, mut server) = web_of_server(lab, &[""]);
    change(&mut server);
    [
        Change::Service(service),
        Change::Workload(server),
        Change::Workload(described(lab, "client", 1)),
    ]
}

/// The cluster that spans a network.
fn cluster_in(network: &str) -> &'static str {
    match network {
        "far" => "west",
        _ => "Kubernetes",
    }
}

/// Waits for a connection to be over. Where a tunnel's stream is reset, Istio's closes the application's
/// connection as if all had come.
fn ends(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(amount) => amount == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

// === impl Pair ===

impl Pair {
    /// In one network, of which both nodes know the same.
    fn start(lab: Lab, pods: [&[&str]; 2], known: &[Change]) -> Self {
        Self::in_networks(lab, ["", ""], pods, [known, known])
    }

    /// In these networks, with these pods captured on either node, which knows this from the start.
    fn in_networks(
        mut lab: Lab,
        networks: [&str; 2],
        pods: [&[&str]; 2],
        known: [&[Change]; 2],
    ) -> Self {
        let places = ["node-1", "node-2"];
        for (number, place) in (1..).zip(places) {
            lab.bare_pod_on(place, number);
        }
        for pod in pods.concat() {
            lab.redirect(pod);
            lab.serve(pod);
        }
        let nodes = [0, 1].map(|index| {
            let (place, network) = (places[index], networks[index]);
            let variables = [
                ("NODE_NAME", place),
                ("NETWORK", network),
                ("ISTIO_META_CLUSTER_ID", cluster_in(network)),
            ];
            let node = Node::start(&lab, place, &ztunnel_of(place), &variables);
            node.istiod.set(resources(known[index]));
            node
        });
        let agents = [0, 1].map(|index| {
            let node = &nodes[index];
            let agent = node.agent.accept();
            for pod in pods[index] {
                let netns = lab.netns(pod);
                assert_eq!(agent.add(&format!("uid-{pod}"), pod, &netns), "");
            }
            assert_eq!(agent.snapshot_sent(), "");
            node.until("readiness", || node.is_ready(&lab));
            agent
        });
        Self {
            lab,
            nodes,
            _agents: agents,
        }
    }

    /// Tells a node of more.
    fn tell(&self, node: usize, changes: &[Change]) {
        self.nodes[node - 1].istiod.set(resources(changes));
    }

    /// Waits until a node has counted a connection with these labels.
    fn counted(&self, node: usize, labels: &[(&str, &str)]) {
        let node = &self.nodes[node - 1];
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        node.until(&format!("{labels:?}"), || {
            let scrape = node.metrics(&self.lab);
            let metric = "istio_tcp_connections_opened_total";
            sum_of_series(&scrape, metric, &labels).expect("numbers") > 0.0
        });
    }

    /// Waits until a node has logged the end of a connection with these fields.
    fn logged(&self, node: usize, fields: &[(&str, &str)]) {
        let node = &self.nodes[node - 1];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| format!("{name}=\"{value}\""))
            .collect();
        node.until(&format!("{fields:?}"), || {
            node.log().lines().any(|line| {
                line.contains("connection complete")
                    && fields.iter().all(|field| line.contains(field))
            })
        });
    }
}

#[test]
fn a_server_is_reached_by_its_service_and_by_its_address() {
    let lab = pods();
    let known = known(&lab, |_| {});
    let pair = Pair::start(lab, [&["client"], &["server"]], &known);
    let lab = &pair.lab;
    for (target, source) in [
        (SERVICE, lab.ip("client")),
        (lab.address("server"), lab.ip("client")),
        ((lab.ip6("server"), APPLICATION).into(), lab.ip6("client")),
    ] {
        let (stream, caller) = lab.call("client", target).expect("call");
        assert_eq!(caller, source);
        echo_bulk(stream, BULK);
    }
    let [client, server] = ["client", "server"].map(|name| identity_of(name).to_string());
    for (node, reporter) in [(1, "source"), (2, "destination")] {
        pair.counted(
            node,
            &[
                ("reporter", reporter),
                ("source_workload", "client"),
                ("source_principal", &client),
                ("destination_workload", "server"),
                ("destination_principal", &server),
                ("destination_service", HOSTNAME),
                ("connection_security_policy", "mutual_tls"),
            ],
        );
    }
    pair.logged(1, &[("src.identity", &client), ("dst.identity", &server)]);
    pair.logged(2, &[("src.identity", &client), ("dst.identity", &server)]);
}

/// Neither a tunnel's streams, nor what its server admits, bound what an application opens.
#[test]
fn more_connections_are_open_than_a_tunnel_has_streams_for() {
    const CONNECTIONS: usize = 250;
    let lab = pods();
    let known = known(&lab, |_| {});
    let pair = Pair::start(lab, [&["client"], &["server"]], &known);
    let mut dialled: Vec<_> = (0..CONNECTIONS)
        .map(|_| pair.lab.dial("client", SERVICE).expect("taken"))
        .collect();
    for stream in &mut dialled {
        greeting(stream).expect("the server");
    }
    for stream in &mut dialled {
        echo(stream);
    }
    for stream in dialled {
        close(stream);
    }
}

/// Whichever end is drained says GOAWAY, and the other lets what is open run to its end.
#[test]
fn what_is_open_outlasts_the_drain_of_either_end() {
    for drained in [0, 1] {
        let lab = pods();
        let known = known(&lab, |_| {});
        let mut pair = Pair::start(lab, [&["client"], &["server"]], &known);
        let (mut stream, _) = pair.lab.call("client", SERVICE).expect("call");
        let (lab, node) = (&pair.lab, &mut pair.nodes[drained]);
        let asked = node.http(lab, "POST", 15000, "/quitquitquit");
        assert!(asked.expect("answers").starts_with("HTTP/1.0 200"));
        let tunnels = SocketAddr::new(lab.ip(["client", "server"][drained]), HBONE_PORT);
        node.until("the drain", || {
            let connect = || TcpStream::connect_timeout(&tunnels, PATIENCE);
            lab.within(["node-2", "node-1"][drained], connect).is_err()
        });
        echo(&mut stream);
        close(stream);
        let end = Instant::now() + PATIENCE;
        let mut status = None;
        while status.is_none() && Instant::now() < end {
            status = node.ztunnel.try_wait().expect("waits");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(status.expect("ended").success());
    }
}

/// What [`golden`](crate::golden) says of Istio's.
#[test]
fn a_server_answers_as_istios_does() {
    let lab = pods();
    let known = known(&lab, |_| {});
    let pair = Pair::start(lab, [&[], &["server"]], &known);
    for (hello, caller) in check_answers(&pair.lab) {
        let mut expected = server_hello();
        // Istio's is a fifth of ours.
        expected.connection_window = hello.connection_window;
        assert_eq!(hello, expected);
        assert_eq!(caller, pair.lab.ip("client"));
    }
    pair.tell(2, &[only("somebody")]);
    pair.nodes[1].until("the policy", || {
        let dump = pair.nodes[1].dump(&pair.lab);
        dump["policies"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    });
    check_refusals(&pair.lab);
}

#[test]
fn an_application_is_told_by_header_who_calls() {
    let lab = pods();
    let known = known(&lab, |server| {
        server.application_tunnel = Some(ApplicationTunnel {
            protocol: ApplicationProtocol::Proxy,
            port: Some(APPLICATION + 1),
        });
    });
    let pair = Pair::start(lab, [&["client"], &["server"]], &known);
    let lab = &pair.lab;
    let listener = header_listener(lab, "server");
    for target in [SERVICE, lab.address("server")] {
        let identity = identity_of("client").to_string();
        let application = take_header(&listener, 16 + 12 + 3 + identity.len() + 5);
        let mut stream = lab.dial("client", target).expect("taken");
        stream.write_all(b"hello").expect("written");
        let bytes = application.join().expect("told");
        // The tunnel's port at the client's end is its own.
        let port = u16::from_be_bytes([bytes[24], bytes[25]]);
        let source = SocketAddr::new(lab.ip("client"), port);
        let mut expected = proxy_header(source, lab.address("server"), &identity);
        expected.extend(b"hello");
        assert_eq!(bytes, expected);
    }
}
