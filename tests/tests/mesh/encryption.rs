//! What crosses between the nodes: nothing in clear, and both identities on record.

use std::process::{Command, Stdio};

use anyhow::ensure;
use tests::lab::{Lab, SOON, capture, eventually};

use crate::shop::{YAML, own};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

#[test]
fn the_link_carries_no_application_byte_in_clear() {
    let lab = own();
    let pcap = lab.state().join("link.pcap");
    let mut capturing = lab
        .exec_spawn(
            "switch",
            &[
                "tcpdump",
                "-i",
                "any",
                "-U",
                "-s",
                "0",
                "-w",
                pcap.to_str().expect("text"),
                "tcp",
            ],
        )
        .expect("tcpdump starts");
    eventually(SOON, "tcpdump captures", || {
        lab.peer("plain/outsider", &["get", "server.shop:80"])?;
        let segments = capture::segments(&std::fs::read(&pcap)?)?;
        ensure!(
            segments.iter().any(|s| s.payload.starts_with(b"GET")),
            "no plaintext seen yet"
        );
        Ok(())
    })
    .expect("plaintext of a pod outside the mesh is seen, so the capture works");

    for address in lab.addresses("shop/server").expect("addresses") {
        let target = |port| std::net::SocketAddr::new(address, port).to_string();
        lab.peer("shop/client", &["get", &target(8080)])
            .expect("get");
        lab.peer("shop/client", &["banner", &target(9001)])
            .expect("banner");
        lab.peer("shop/client", &["upload", &target(9002), "1048576"])
            .expect("upload");
        lab.peer("shop/client", &["download", &target(9003), "1048576"])
            .expect("download");
    }
    for service in ["server:80", "headless:8080"] {
        lab.peer("shop/client", &["get", service]).expect("get");
    }
    // The newest: the lab has one of its own.
    lab.exec("switch", &["pkill", "-INT", "-n", "-x", "tcpdump"])
        .expect("tcpdump stops");
    let _ = capturing.wait();

    let enrolled: Vec<_> = ["shop/client", "shop/server"]
        .iter()
        .flat_map(|pod| lab.addresses(pod).expect("addresses"))
        .collect();
    let segments = capture::segments(&std::fs::read(&pcap).expect("pcap")).expect("pcap");
    let between: Vec<_> = segments
        .iter()
        .filter(|s| enrolled.contains(&s.source.ip()) && enrolled.contains(&s.destination.ip()))
        .collect();
    assert!(
        between.len() > 100,
        "only {} segments between enrolled pods",
        between.len()
    );
    for segment in between {
        assert!(
            segment.source.port() == 15008 || segment.destination.port() == 15008,
            "{} to {} is not HBONE",
            segment.source,
            segment.destination
        );
        for clear in [
            &b"GET /"[..],
            b"220 server",
            b"hello",
            b"CONNECT",
            b"spiffe://",
        ] {
            assert!(
                !segment
                    .payload
                    .windows(clear.len())
                    .any(|window| window == clear),
                "{:?} in clear from {}",
                String::from_utf8_lossy(clear),
                segment.source
            );
        }
    }
}

/// Every lab of two nodes fails if pods of its mesh speak in clear: what it would then see.
#[test]
fn a_lab_sees_plaintext_between_its_nodes() {
    let lab = own();
    let outsider = lab.addresses("plain/outsider").expect("addresses");
    lab.peer("plain/outsider", &["get", "server.shop:80"])
        .expect("in plaintext");
    eventually(SOON, "the request is captured", || {
        let seen = lab.outside_hbone()?;
        let request = seen
            .iter()
            .find(|s| outsider.contains(&s.source.ip()) && s.payload.starts_with(b"GET"));
        ensure!(request.is_some(), "{seen:?}");
        Ok(())
    })
    .expect("seen");
}

#[test]
fn both_identities_are_in_access_logs_and_metrics() {
    let lab = own();
    lab.peer("shop/client", &["get", "server:80"]).expect("get");
    for (node, direction, reporter) in [
        ("node-1", "outbound", "source"),
        ("node-2", "inbound", "destination"),
    ] {
        eventually(SOON, "an access log line", || {
            let log = lab.run_file(&format!("nodes/{node}/ztunnel.log"));
            let line = log.lines().find(|line| {
                line.contains("connection complete")
                    && line.contains(&format!("direction=\"{direction}\""))
                    && line.contains(&format!("src.identity=\"{CLIENT}\""))
                    && line.contains(&format!("dst.identity=\"{SERVER}\""))
            });
            let line = line.ok_or_else(|| anyhow::anyhow!("{node}:\n{log}"))?;
            ensure!(line.contains("X25519MLKEM768"), "{line}");
            Ok(())
        })
        .expect("the access log names both");
        eventually(SOON, "a metric", || {
            let metrics = lab.metrics(node)?;
            let series = metrics.lines().find(|line| {
                line.starts_with("istio_tcp_connections_opened_total{")
                    && line.contains(&format!("reporter=\"{reporter}\""))
                    && line.contains(&format!("source_principal=\"{CLIENT}\""))
                    && line.contains(&format!("destination_principal=\"{SERVER}\""))
                    && line.contains("connection_security_policy=\"mutual_tls\"")
                    && line.contains("destination_service=\"server.shop.svc.cluster.local\"")
            });
            ensure!(series.is_some(), "{node}:\n{metrics}");
            Ok(())
        })
        .expect("the metrics name both");
    }
}

#[test]
fn the_key_exchange_between_nodes_is_post_quantum() {
    let lab = own();
    lab.peer("shop/client", &["get", "server:80"]).expect("get");
    eventually(SOON, "a handshake is counted", || {
        let metrics = lab.metrics("node-2")?;
        let groups: Vec<_> = metrics
            .lines()
            .filter(|line| line.starts_with("weft_tls_handshakes_total{"))
            .collect();
        ensure!(
            !groups.is_empty() && groups.iter().all(|line| line.contains("X25519MLKEM768")),
            "{groups:?}"
        );
        Ok(())
    })
    .expect("X25519MLKEM768 and nothing else");
}

#[test]
fn tcpdump_is_there() {
    let found = Command::new("tcpdump")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(found.is_ok(), "tcpdump is missing: make deps installs it");
}

#[test]
fn pods_of_one_node_meet_over_a_tunnel_where_the_mesh_is_started_so() {
    let settings = [("ENABLE_SAME_NODE_DIRECT", "false")];
    let lab = Lab::up_under(YAML, &settings).expect("the mesh starts");
    lab.peer("shop/client", &["get", "neighbour:80"])
        .expect("an answer");
    let arrived = ["reporter=\"destination\""];
    let shaken = lab.counted("node-1", "weft_tls_handshakes_total", &arrived);
    assert!(shaken.expect("metrics") > 0.0);
}
