//! A pod that floods its node.

use tests::lab::Lab;
use tests::lab::control_group::ControlGroup;
use tests::lab::scale::is_full;
use tests::peer::client::LoadReport;
use tests::peer::rate::RateReport;

use crate::shop::{BACK, Running, YAML, mesh, mesh_of, scaled, still_serves, warm};

/// By how much others' p99 may rise.
const RISE: f64 = 2.0;
/// Hundredths of a processor that the applications of the flood have together. It is the tunnel that
/// is flooded, and not the machine: that would slow everybody down without a mesh too.
const FLOOD: u64 = 25;

#[test]
fn a_flooding_pod_starves_neither_its_neighbour_nor_the_nodes_own_ports() {
    let lab = mesh("RUST_LOG=warn");
    let baseline = warm(&lab);
    let seconds = scaled("4", "60");
    let load = |connections| {
        vec![
            "load",
            "server:80",
            "--seconds",
            seconds,
            "--connections",
            connections,
        ]
    };
    let mut flood = Running::start(&lab, "shop/neighbour", &load("64"));
    let mut quiet = Running::start(&lab, "shop/client", &load("1"));
    for _ in 0..5 {
        lab.metrics("node-1").expect("metrics");
        lab.config_dump("node-1").expect("the admin port");
    }
    let report: LoadReport = serde_json::from_str(&quiet.line()).expect("JSON");
    let flooded: LoadReport = serde_json::from_str(&flood.line()).expect("JSON");
    println!("beside {}: {report:?}", flooded.succeeded);
    assert_eq!(report.failed, 0, "{report:?}");
    assert!(report.succeeded > 4, "{report:?}");
    // On a busy machine everybody waits; it must not be the quiet one alone.
    let most = flooded.slowest_millis.max(2_500) * 2;
    assert!(
        report.slowest_millis < most,
        "{report:?} beside {flooded:?}"
    );
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// A server on node-2 for the flood alone, with a limit on its application.
fn flooded(enter: &str) -> String {
    format!(
        "---\n\
         apiVersion: v1\n\
         kind: Pod\n\
         metadata: {{name: flooded, namespace: shop}}\n\
         spec:\n  \
           nodeName: node-2\n  \
           serviceAccountName: server\n  \
           containers:\n    \
             - name: peer\n      \
               command: [sh, -ec, \"{enter}; exec peer serve --name flooded\"]\n      \
               readinessProbe:\n        \
                 tcpSocket: {{port: 8080}}\n        \
                 periodSeconds: 1\n"
    )
}

/// A pod's connections at a fixed rate.
fn quiet(lab: &Lab) -> RateReport {
    let count = scaled("50", "1000");
    let rate = ["rate", "server:9003", "--rate", "50", "--count", count];
    let report = lab.peer("shop/client", &rate).expect("a report");
    let report: RateReport = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report.failed, 0, "{report:?}");
    report
}

#[test]
fn a_flood_does_not_double_what_others_wait() {
    let limit = ControlGroup::with_processor(FLOOD).expect("a control group");
    let enter = limit.enter();
    let lab = mesh_of(&format!("{YAML}{}", flooded(&enter)), "RUST_LOG=warn");
    let baseline = warm(&lab);
    let before = quiet(&lab);
    let target = lab.addresses("shop/flooded").expect("addresses")[0];
    let flood = format!(
        "{enter}; exec peer load {target}:8080 --connections 64 --seconds {}",
        scaled("4", "30")
    );
    let flood = lab.exec_spawn("shop/neighbour", &["sh", "-ec", &flood]);
    let beside = quiet(&lab);
    let output = flood.expect("starts").wait_with_output().expect("ends");
    let report: LoadReport = serde_json::from_slice(&output.stdout).expect("JSON");
    println!("alone {before:?}, beside {report:?}: {beside:?}");
    assert!(report.succeeded > 0, "{report:?}");
    let rise = beside.p99 / before.p99;
    assert!(!is_full() || rise <= RISE, "p99 rose by {rise:.2}");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
