//! Processes that stand still and go on: a debugger, a starved machine, a paused virtual one.

use std::time::Duration;

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::{BACK, Running, forget_tracked, mesh, scaled, still_serves, warm};

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

#[test]
fn a_node_that_stands_still_for_long_is_given_up_and_serves_when_it_goes_on() {
    let lab = mesh("HTTP2_PING_INTERVAL=1s HTTP2_PING_TIMEOUT=2s CONNECT_TIMEOUT=2s");
    let baseline = warm(&lab);
    let mut crowd = Running::start(&lab, "shop/client", &["crowd", "server:9000", "50"]);
    assert!(crowd.line().contains("\"open\":50"));
    lab.signal("ztunnel", Some("node-2"), "STOP")
        .expect("stopped");
    lab.eventually(BACK, "the other node has let go", || {
        let open = lab.metric("node-1", "istio_tcp_sockets_open")?;
        ensure!(open == 0.0, "{open} sockets");
        Ok(())
    })
    .expect("let go");
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

    lab.signal("ztunnel", Some("node-2"), "CONT")
        .expect("goes on");
    assert_eq!(crowd.end(), "alive 0");
    lab.eventually(BACK, "the node serves again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("serves");
    still_serves(&lab);
    forget_tracked(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
