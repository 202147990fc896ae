//! Peers that begin a handshake and leave it at that.

use std::net::SocketAddr;

use tests::peer::client::LoadReport;

use crate::shop::{BACK, Running, mesh, scaled, still_serves, warm};

#[test]
fn unfinished_handshakes_end_at_their_deadline_and_hold_up_nobody() {
    let lab = mesh("HANDSHAKE_TIMEOUT=2s");
    let baseline = warm(&lab);
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let target = SocketAddr::new(server, 15008).to_string();
    let count = scaled("200", "2000");
    // Nothing at all, and the first bytes of a ClientHello.
    let mut slow: Vec<_> = ["", "\u{16}\u{3}\u{1}\u{2}"]
        .iter()
        .map(|start| {
            let command = ["silent", &target, count, "--start", start];
            Running::start(&lab, "plain/outsider", &command)
        })
        .collect();
    for client in &mut slow {
        assert_eq!(client.line(), format!("open {count}"));
    }
    let load = ["load", "server:80", "--seconds", "2", "--connections", "2"];
    let report = lab.peer("shop/client", &load).expect("a report");
    let report: LoadReport = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report.failed, 0, "{report:?}");
    for client in &mut slow {
        let closed = client.line();
        assert!(closed.starts_with("closed "), "{closed}");
    }
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
