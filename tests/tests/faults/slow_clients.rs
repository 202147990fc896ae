//! Clients that never come to an end of what they say, or of their handshakes.

use std::net::SocketAddr;

use tests::lab::Lab;
use tests::lab::scale::is_full;
use tests::peer::rate::RateReport;

use crate::shop::{BACK, Running, forget_tracked, mesh, scaled, still_serves, warm};

/// By how much the p99 of others may rise.
const RISE: f64 = 1.2;

fn good(lab: &Lab) -> RateReport {
    let count = scaled("50", "1000");
    let rate = ["rate", "server:9003", "--rate", "50", "--count", count];
    let report = lab.peer("shop/neighbour", &rate).expect("a report");
    let report: RateReport = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report.failed, 0, "{report:?}");
    report
}

#[test]
fn slow_clients_are_many_and_slow_nobody_down() {
    let lab = mesh("HANDSHAKE_TIMEOUT=100s");
    let baseline = warm(&lab);
    let before = good(&lab);
    let count = scaled("100", "2000");
    let mut slow = Running::start(&lab, "shop/client", &["dribble", "server:9000", count]);
    assert_eq!(slow.line(), format!("open {count}"));
    // As many as one peer may have at once are in the middle of a handshake.
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let target = SocketAddr::new(server, 15008).to_string();
    let start = ["silent", &target, "128", "--start", "\u{16}\u{3}\u{1}\u{2}"];
    let mut handshakes = Running::start(&lab, "plain/outsider", &start);
    assert_eq!(handshakes.line(), "open 128");
    let beside = good(&lab);
    drop(handshakes);
    assert_eq!(slow.end(), format!("alive {count}"));
    let after = good(&lab);
    println!("before {before:?}, beside {count}: {beside:?}, after {after:?}");
    // What the machine itself does from one minute to the next is not theirs.
    let rise = beside.p99 / before.p99.max(after.p99);
    assert!(!is_full() || rise <= RISE, "p99 rose by {rise:.2}");
    still_serves(&lab);
    forget_tracked(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
