//! Connections of which one side has said all and the other never ends.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::lab::Lab;
use tests::lab::scale::is_full;

use crate::shop::{
    BACK, Running, YAML, mesh, mesh_on, restart_server, scaled, still_serves, warm, warm_with,
};

/// A process may not have many more descriptors than 20,000 where nobody has raised the limit. A
/// connection takes one at either node, or two at its only one: 16,800 of each ztunnel.
const NODES: usize = 6;
const FAR: usize = 6000;
const NEAR: usize = 2400;
/// Enough for whatever is kept for good.
const FEW: usize = 100;

/// Shares by which a ztunnel may hold more afterwards: of memory what the allocator knows of the pages
/// that a burst had, and will use for those of the next.
const MORE_DESCRIPTORS: f64 = 0.01;
const MORE_MEMORY: f64 = 0.20;

const KEPT: &str = "half closed and silent for too long";
/// Of connection tracking: from the one side's end to the other's.
const PATIENCE: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";

/// A client and a server.
const PODS: &str = "\
---
apiVersion: v1
kind: Pod
metadata: {name: client-NUMBER, namespace: shop}
spec:
  nodeName: node-NUMBER
  serviceAccountName: client
  containers:
    - {name: peer, command: [peer, serve, --name, client]}
---
apiVersion: v1
kind: Pod
metadata: {name: server-NUMBER, namespace: shop}
spec:
  nodeName: node-NUMBER
  serviceAccountName: server
  containers:
    - {name: peer, command: [peer, serve, --name, server]}
";

/// Clients that have ended their own direction of connections, and the count of these.
type Crowd = Vec<(Running, usize)>;

/// Each node's client half-closes connections to the next node's server and to its own node's.
fn half_close(lab: &Lab, nodes: usize, far: usize, near: usize) -> Crowd {
    let mut clients = Vec::new();
    for node in 0..nodes {
        let client = format!("shop/client-{}", node + 1);
        for (server, count) in [((node + 1) % nodes, far), (node, near)] {
            let server = lab.addresses(&format!("shop/server-{}", server + 1));
            let target = SocketAddr::new(server.expect("addresses")[0], 9006).to_string();
            let command = ["half-close", &target, &count.to_string()];
            clients.push((Running::start(lab, &client, &command), count));
        }
    }
    for (client, count) in &mut clients {
        assert_eq!(client.line(), format!("half-closed {count}"));
    }
    clients
}

/// Connections that ztunnels have opened so far.
fn opened(lab: &Lab) -> f64 {
    let nodes = lab.nodes().expect("nodes");
    let opened = nodes
        .iter()
        .map(|node| lab.metric(node, "istio_tcp_connections_opened_total"));
    opened.map(|opened| opened.expect("counted")).sum()
}

#[track_caller]
fn are_cut(clients: Crowd) {
    for (mut client, count) in clients {
        assert_eq!(client.line(), format!("cut {count}"));
    }
}

#[test]
fn half_closed_connections_end_at_their_deadline() {
    let deadline = scaled(Duration::from_secs(2), Duration::from_secs(60));
    let nodes = scaled(2, NODES);
    let mut yaml = YAML.to_owned();
    for node in 1..=nodes {
        yaml += &PODS.replace("NUMBER", &node.to_string());
    }
    let settings = format!("HALF_CLOSED_TIMEOUT={}s", deadline.as_secs());
    let lab = mesh_on(nodes, &yaml, &settings);
    let baseline = warm_with(&lab, || are_cut(half_close(&lab, nodes, FEW, FEW)));
    let (far, near) = scaled((FEW, FEW), (FAR, NEAR));
    let before = Held::of(&lab).expect("known");
    let (opened_before, began) = (opened(&lab), Instant::now());
    let clients = half_close(&lab, nodes, far, near);
    // Clients hear that they are connected before their servers do. Both ends of each are counted.
    let count = nodes * (far + near);
    lab.eventually(BACK * 3, "all are connected", || {
        let opened = opened(&lab) - opened_before;
        ensure!(opened >= (2 * count) as f64, "{opened} of twice {count}");
        Ok(())
    })
    .expect("connected");
    let all = Instant::now();
    println!("{count} half closed in {:?}", all - began);
    are_cut(clients);
    println!("cut {:?} after the last", all.elapsed());
    if is_full() {
        let within = (deadline + Duration::from_secs(10)).saturating_sub(all.elapsed());
        lab.eventually(within, "all is given back", || {
            let (descriptors, memory) = Held::of(&lab)?.excess(&before);
            let text = format!("{descriptors:.3} more descriptors, {memory:.3} more memory");
            ensure!(
                descriptors <= MORE_DESCRIPTORS && memory <= MORE_MEMORY,
                "{text}"
            );
            println!("{text} {:?} after the last", all.elapsed());
            Ok(())
        })
        .expect("given back");
    }
    lab.logged("nodes/node-1/ztunnel.log", KEPT)
        .expect("logged");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// What ztunnels have of their kernel.
struct Held(Vec<Node>);

struct Node {
    descriptors: f64,
    memory: f64,
    whole_memory: f64,
}

impl Held {
    fn of(lab: &Lab) -> Result<Self> {
        let node = |node: &String| -> Result<Node> {
            Ok(Node {
                descriptors: lab.metric(node, "process_open_fds")?,
                memory: lab.own_memory(node)?,
                whole_memory: lab.memory(node, "VmRSS")?,
            })
        };
        let nodes = lab.nodes()?;
        Ok(Self(nodes.iter().map(node).collect::<Result<_>>()?))
    }

    /// The largest shares by which there is more of either.
    fn excess(&self, before: &Self) -> (f64, f64) {
        let mut most = (f64::MIN, f64::MIN);
        for (is, was) in self.0.iter().zip(&before.0) {
            let descriptors = (is.descriptors - was.descriptors) / was.descriptors;
            let memory = (is.memory - was.memory) / was.whole_memory;
            most = (most.0.max(descriptors), most.1.max(memory));
        }
        most
    }
}

/// The server ends first. When the client does too, nothing knows any more that its connection was
/// redirected: its last packets miss the ztunnel.
#[test]
fn a_last_word_that_connection_tracking_drops_is_not_waited_for() {
    let lab = mesh("HALF_CLOSED_TIMEOUT=5s");
    let baseline = warm(&lab);
    for pod in ["shop/client", "shop/neighbour", "shop/server"] {
        set(&lab, pod, PATIENCE, "1");
    }
    let count = scaled("100", "4500");
    let neighbour = lab.addresses("shop/neighbour").expect("addresses")[0];
    let near = SocketAddr::new(neighbour, 9003).to_string();
    let targets = ["server:9003", &near];
    let mut clients =
        targets.map(|target| Running::start(&lab, "shop/client", &["late-close", target, count]));
    for client in &mut clients {
        assert_eq!(client.line(), format!("ended {count}"));
    }
    lab.eventually(BACK, "connection tracking forgets them", || {
        let tracked = half_closed(&lab, "shop/client")?;
        ensure!(tracked.is_empty(), "{tracked:?}");
        Ok(())
    })
    .expect("forgotten");
    for client in clients {
        assert_eq!(client.end(), format!("closed {count}"));
    }
    lab.logged("nodes/node-1/ztunnel.log", KEPT)
        .expect("logged");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// Otherwise a server's answer that takes longer would miss the ztunnel, and leave its pod as it is.
#[test]
fn probes_remind_connection_tracking_of_half_closed_connections() {
    let lab = mesh("KEEPALIVE_TIME=1s KEEPALIVE_INTERVAL=1s");
    let baseline = warm(&lab);
    let pods = ["shop/client", "shop/server"];
    for pod in pods {
        set(&lab, pod, PATIENCE, "1000");
    }
    let mut client = Running::start(&lab, "shop/client", &["half-close", "server:9006", "1"]);
    assert_eq!(client.line(), "half-closed 1");
    for pod in pods {
        let mut before = None;
        lab.eventually(BACK, "it is given more time", || {
            let left = *half_closed(&lab, pod)?.first().context("none is tracked")?;
            let before = before.replace(left);
            ensure!(before.is_some_and(|before| left > before), "{left} s");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{pod}: {error:#}"));
    }
    drop(client);
    restart_server(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

fn set(lab: &Lab, pod: &str, setting: &str, value: &str) {
    let script = format!("echo {value} > {setting}");
    lab.exec(pod, &["sh", "-ec", &script]).expect("set");
}

/// The seconds that connection tracking goes on remembering connections with one side ended.
fn half_closed(lab: &Lab, pod: &str) -> Result<Vec<u64>> {
    let listing = lab.exec(pod, &["conntrack", "-L", "-p", "tcp"])?;
    let fields = listing.lines().map(|line| line.split_whitespace());
    let mut left = Vec::new();
    for mut fields in fields {
        if let (Some(seconds), Some("CLOSE_WAIT")) = (fields.nth(2), fields.next()) {
            left.push(seconds.parse()?);
        }
    }
    Ok(left)
}
