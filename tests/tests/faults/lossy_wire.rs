//! A cable that loses, delays, doubles, reorders and damages frames.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tests::lab::Lab;
use tests::lab::scale::is_full;
use tests::lab::wire::Wire;
use tests::peer::{SINK_PORT, SOURCE_PORT};
use tests::wire::Faults;

use crate::shop::{BACK, YAML, mesh, scaled, still_serves, unwatched, warm};

/// Both in the mesh, each client with tunnels of its own.
const CLIENT: &str = "\
---
apiVersion: v1
kind: Pod
metadata: {name: client-NUMBER, namespace: shop}
spec:
  nodeName: node-1
  serviceAccountName: client
  containers:
    - {name: peer, command: [peer, serve, --name, client]}
";
/// And outside of it, as the outsider is on the other node.
const FAR_OUTSIDER: &str = "\
---
apiVersion: v1
kind: Pod
metadata: {name: far-outsider, namespace: plain}
spec:
  nodeName: node-2
  containers:
    - {name: peer, command: [peer, serve, --name, far-outsider]}
";

/// Of what plain TCP carries over the same wire.
const LEAST_SHARE: f64 = 0.7;

fn bytes() -> String {
    scaled(192 << 10, 4 << 20).to_string()
}

/// The ends of connections on record that were not in order.
fn errors(lab: &Lab) -> Vec<String> {
    ["node-1", "node-2"]
        .iter()
        .flat_map(|node| {
            let log = lab.run_file(&format!("nodes/{node}/ztunnel.log"));
            let lines = log
                .lines()
                .filter(|line| line.contains("connection complete") && line.contains("error="));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn bad() -> Faults {
    Faults {
        seed: 20,
        delay: Duration::from_millis(50),
        loss: 0.05,
        duplicate: 0.02,
        reorder: 0.05,
        late: Duration::from_millis(20),
        corrupt: 0.01,
        ..Faults::default()
    }
}

/// Nobody listens to the wire here: a tunnel's port with one bit flipped looks like another's.
#[test]
fn transfers_arrive_whole_over_a_bad_wire() {
    let lab = unwatched(YAML);
    let baseline = warm(&lab);
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    wire.set(&bad()).expect("set");
    std::thread::scope(|scope| {
        for (transfer, target) in [("upload", "server:9002"), ("download", "server:9003")] {
            let lab = &lab;
            scope.spawn(move || {
                lab.peer("shop/client", &[transfer, target, &bytes()])
                    .expect("arrives whole");
            });
        }
        for _ in 0..5 {
            lab.peer("shop/neighbour", &["get", "server:80"])
                .expect("an answer");
        }
    });
    let counts = wire.set(&Faults::default()).expect("set");
    for happened in [
        counts.lost,
        counts.duplicated,
        counts.reordered,
        counts.corrupted,
    ] {
        assert!(happened > 0, "{counts:?}");
    }
    assert_eq!(errors(&lab), Vec::<String>::new());
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// TCP's checksum is right, the bytes are not: only the cipher notices.
#[test]
fn tampered_bytes_are_never_delivered() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    wire.set(&Faults {
        seed: 20,
        tamper: 0.02,
        ..Faults::default()
    })
    .expect("set");
    for _ in 0..scaled(3, 100) {
        for (transfer, target) in [("upload", "server:9002"), ("download", "server:9003")] {
            let result = lab.peer("shop/client", &[transfer, target, "4194304"]);
            let error = format!("{:#}", result.expect_err("cut"));
            let another_checksum = error.contains("the server saw \"4194304");
            assert!(!another_checksum && !error.contains("differ"), "{error}");
        }
    }
    let counts = wire.set(&Faults::default()).expect("set");
    assert!(counts.tampered > 0, "{counts:?}");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// A transfer's kind, and where to without the mesh and with it.
struct Kind {
    transfer: &'static str,
    plain: String,
    mesh: String,
}

/// How long each of as many transfers takes outside of the mesh and in it, all at once: the wire
/// has room for any number.
fn times(lab: &Lab, kind: &Kind, clients: usize) -> [Vec<Duration>; 2] {
    let timed = |pod: &str, target: &str| {
        let began = Instant::now();
        let bytes = scaled(64 << 10, 1 << 20).to_string();
        lab.peer(pod, &[kind.transfer, target, &bytes])
            .expect("arrives whole");
        began.elapsed()
    };
    std::thread::scope(|scope| {
        let all = (1..=clients).map(|client| {
            let pod = format!("shop/client-{client}");
            let plain = scope.spawn(|| timed("plain/outsider", &kind.plain));
            (plain, scope.spawn(move || timed(&pod, &kind.mesh)))
        });
        let all: Vec<_> = all.collect();
        let (mut plain, mut mesh) = (Vec::new(), Vec::new());
        for (without, with) in all {
            plain.push(without.join().expect("no panic"));
            mesh.push(with.join().expect("no panic"));
        }
        [plain, mesh]
    })
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

/// As above, nobody listens.
#[test]
fn a_bad_wire_carries_as_much_as_without_the_mesh() {
    let clients = scaled(1, 8);
    let mut yaml = [YAML, FAR_OUTSIDER].concat();
    for client in 1..=clients {
        yaml += &CLIENT.replace("NUMBER", &client.to_string());
    }
    let lab = unwatched(&yaml);
    let baseline = warm(&lab);
    let address = |pod: &str| lab.addresses(pod).expect("addresses")[0];
    let (plain, mesh) = (address("plain/far-outsider"), address("shop/server"));
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    wire.set(&bad()).expect("set");
    for (transfer, port) in [("upload", SINK_PORT), ("download", SOURCE_PORT)] {
        let kind = Kind {
            transfer,
            plain: SocketAddr::new(plain, port).to_string(),
            mesh: SocketAddr::new(mesh, port).to_string(),
        };
        let (mut plain, mut mesh) = (Vec::new(), Vec::new());
        for _ in 0..scaled(1, 3) {
            let [without, with] = times(&lab, &kind, clients);
            plain.extend(without);
            mesh.extend(with);
        }
        println!("{transfer}: plain {plain:.1?}, mesh {mesh:.1?}");
        let share = median(plain) / median(mesh);
        println!("{transfer}: {share:.2} of what plain TCP carries");
        assert!(!is_full() || share >= LEAST_SHARE, "{transfer}: {share:.2}");
    }
    wire.set(&Faults::default()).expect("mended");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
