//! Connections that come and go without end.

use std::net::SocketAddr;

use tests::peer::client::LoadReport;

use crate::shop::{BACK, mesh, scaled, still_serves, warm};

#[test]
fn nothing_is_left_of_many_short_connections() {
    let lab = mesh("RUST_LOG=warn");
    let neighbour = lab.addresses("shop/neighbour").expect("addresses")[0];
    let near = SocketAddr::new(neighbour, 8080).to_string();
    let load = |target: &str, seconds: &str| {
        let load = ["load", target, "--seconds", seconds, "--connections", "8"];
        let report = lab.peer("shop/client", &load).expect("a report");
        let report: LoadReport = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report.failed, 0, "{report:?}");
        assert!(report.succeeded > 10, "{report:?}");
        println!("{target}: {} connections", report.succeeded);
    };
    let (begin, long) = scaled(("1", "3"), ("10", "300"));
    for target in ["server:80", &near] {
        load(target, begin);
    }
    let baseline = warm(&lab);
    for target in ["server:80", &near] {
        load(target, long);
    }
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
