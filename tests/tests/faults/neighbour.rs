//! A pod that floods its node.

use tests::peer::client::LoadReport;

use crate::shop::{BACK, Running, mesh, scaled, still_serves, warm};

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
