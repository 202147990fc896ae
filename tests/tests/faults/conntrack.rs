//! A node whose connection tracking is full.

use tests::peer::stubborn::Crowd;

use crate::shop::{BACK, Running, mesh, scaled, still_serves, warm};

/// The number of tracked connections that all namespaces share can't be set in one of them, so a
/// rule counts those of the client.
const FULL: &str = "nft -f - <<'EOF'
add table inet full
add chain inet full tracked { type filter hook forward priority 0; }
add rule inet full tracked ct state new ip saddr ADDRESS ct count over 4 drop
EOF";

#[test]
fn connections_ride_the_tunnels_that_are_tracked_already() {
    let lab = mesh("CONNECT_TIMEOUT=1s");
    let baseline = warm(&lab);
    // Both workers have a tunnel.
    let mut held = Running::start(&lab, "shop/client", &["crowd", "server:9000", "8"]);
    assert!(held.line().contains("\"open\":8"));
    let client = lab.addresses("shop/client").expect("addresses")[0];
    let full = FULL.replace("ADDRESS", &client.to_string());
    lab.exec("node/node-1", &["sh", "-ec", &full])
        .expect("full");
    let count = scaled("100", "150");
    let mut crowd = Running::start(&lab, "shop/client", &["crowd", "server:9000", count]);
    let report: Crowd = serde_json::from_str(&crowd.line()).expect("JSON");
    assert_eq!(report.failed, 0, "{report:?}");
    assert_eq!(crowd.end(), format!("alive {count}"));
    assert_eq!(held.end(), "alive 8");
    lab.exec("node/node-1", &["nft", "delete", "table", "inet", "full"])
        .expect("room");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
