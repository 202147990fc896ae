//! Processes that stand still and go on: a debugger, a starved machine, a paused virtual one.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;
use tests::lab::{Lab, SOON};

use crate::shop::{BACK, Running, YAML, forget_tracked, mesh, mesh_of, scaled, still_serves, warm};

/// How long it stands still in the field; elsewhere, as long as it takes to be given up.
fn frozen() -> Duration {
    scaled(Duration::ZERO, Duration::from_secs(60))
}

/// A tunnel counts connections until this one is on its way.
fn asked(lab: &Lab, before: f64) {
    lab.eventually(BACK, "a connection is on its way", || {
        let open = lab.metric("node-1", "istio_tcp_sockets_open")?;
        ensure!(open > before, "{open}");
        Ok(())
    })
    .expect("on its way");
}

#[test]
fn a_node_that_stands_still_for_a_moment_loses_nothing() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    let mut crowd = Running::start(&lab, "shop/client", &["crowd", "server:9000", "50"]);
    assert!(crowd.line().contains("\"open\":50"));
    let before = lab
        .metric("node-1", "istio_tcp_sockets_open")
        .expect("open");

    lab.signal("ztunnel", Some("node-2"), "STOP")
        .expect("stopped");
    let mut late = Running::start(&lab, "shop/client", &["crowd", "server:9000", "1"]);
    asked(&lab, before);
    lab.signal("ztunnel", Some("node-2"), "CONT")
        .expect("goes on");
    let report = late.line();
    assert!(report.contains("\"open\":1"), "{report}");
    drop(late);

    // What has come while the client's node stood still is there when it goes on.
    lab.signal("ztunnel", Some("node-1"), "STOP")
        .expect("stopped");
    lab.signal("ztunnel", Some("node-1"), "CONT")
        .expect("goes on");
    assert_eq!(crowd.end(), "alive 50");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// A client on the node that stands still.
const LOCAL: &str = "\
---
apiVersion: v1
kind: Pod
metadata: {name: local, namespace: shop, labels: {app: local}}
spec:
  nodeName: node-2
  serviceAccountName: client
  containers:
    - {name: peer, command: [peer, serve, --name, local]}
";

/// How often a node's ztunnel has written this.
fn said(lab: &Lab, node: &str, text: &str) -> usize {
    let log = lab.run_file(&format!("nodes/{node}/ztunnel.log"));
    log.matches(text).count()
}

#[test]
fn a_node_that_stands_still_for_long_is_given_up_and_serves_when_it_goes_on() {
    // At full size with what is set where nothing is said.
    let settings = scaled(
        "HTTP2_PING_INTERVAL=1s HTTP2_PING_TIMEOUT=2s CONNECT_TIMEOUT=2s",
        "RUST_LOG=info",
    );
    let lab = mesh_of(&format!("{YAML}{LOCAL}"), settings);
    let baseline = warm(&lab);
    let crowd = |pod, target: &str| {
        let mut crowd = Running::start(&lab, pod, &["crowd", target, "50"]);
        assert!(crowd.line().contains("\"open\":50"));
        crowd
    };
    let client = lab.addresses("shop/client").expect("addresses")[0];
    let into = crowd("shop/client", "server:9000");
    let out_of = crowd("shop/local", &format!("{client}:9000"));
    let within = crowd("shop/local", "server:9000");
    let kept = certificates(&lab);
    let before = ["certificate available", "\tconnected to the control plane"]
        .map(|text| (text, said(&lab, "node-2", text)));

    let stopped = Instant::now();
    lab.signal("ztunnel", Some("node-2"), "STOP")
        .expect("stopped");
    lab.eventually(BACK, "the other node has let go", || {
        let open = lab.metric("node-1", "istio_tcp_sockets_open")?;
        ensure!(open == 0.0, "{open} sockets");
        Ok(())
    })
    .expect("let go");
    lab.eventually(BACK, "the access log says why, either way", || {
        let told = said(&lab, "node-1", "error=\"the peer no longer answers\"");
        ensure!(told == 100, "{told} of 100");
        Ok(())
    })
    .expect("told");
    let output = lab.peer_output("shop/client", &["get", "server:80"]);
    let output = output.expect("runs");
    assert!(!output.status.success(), "{output:?}");
    // Who asks what is wrong is told, and soon.
    lab.eventually(
        scaled(SOON, Duration::from_secs(15)),
        "the status names it",
        || {
            let status = lab.weft(&["status"])?;
            ensure!(
                status.contains("ztunnel of node-2 does not answer"),
                "{status}"
            );
            Ok(())
        },
    )
    .expect("told");
    std::thread::sleep(frozen().saturating_sub(stopped.elapsed()));

    lab.signal("ztunnel", Some("node-2"), "CONT")
        .expect("goes on");
    // The first try of each, either way and within.
    for (pod, target) in [
        ("shop/client", "server:80".to_owned()),
        ("shop/local", "server:80".to_owned()),
        ("shop/local", format!("{client}:8080")),
    ] {
        lab.peer(pod, &["get", &target]).expect("served");
    }
    assert_eq!(within.end(), "alive 50");
    // Their peers have not waited for ever.
    assert_eq!(into.end(), "alive 0");
    assert_eq!(out_of.end(), "alive 0");
    still_serves(&lab);
    lab.eventually(BACK, "the control plane is followed", || {
        let stale = &lab.config_dump("node-2")?["staleSince"];
        ensure!(stale.is_null(), "{stale}");
        Ok(())
    })
    .expect("followed");
    // Nothing is done twice: what was good before is in use, and nobody was asked in a hurry.
    assert_eq!(certificates(&lab), kept);
    for (text, before) in before {
        let times = said(&lab, "node-2", text) - before;
        assert!(times <= 1, "{text}: {times} times");
    }
    forget_tracked(&lab);
    lab.exec("shop/local", &["conntrack", "-F"])
        .expect("forgotten");
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// Identities of the node that stands still, with the serial numbers of their certificates.
fn certificates(lab: &Lab) -> Vec<(Value, Value)> {
    let dump = lab.config_dump("node-2").expect("answers");
    let all = dump["certificates"].as_array().expect("a list").clone();
    all.into_iter()
        .map(|one| {
            assert_eq!(one["state"], "Available", "{one}");
            let serial = one["certChain"][0]["serialNumber"].clone();
            (one["identity"].clone(), serial)
        })
        .collect()
}
