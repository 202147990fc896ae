//! A node whose connection tracking is full.

use anyhow::ensure;
use tests::lab::Lab;
use tests::peer::stubborn::Crowd;

use crate::shop::{BACK, Running, forget_tracked, mesh, scaled, still_serves, warm};

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

/// Entries of nobody's: as many as there may be in percent, all of them seen to be answered, which
/// the kernel does not drop for others. It refuses the last ones.
const FILL: &str = "\
limit=$(cat /proc/sys/net/netfilter/nf_conntrack_max)
seq $((limit * FROM / 100)) $((limit * TO / 100)) | awk '{
    printf \"-A -s 198.18.%d.%d -d 198.19.%d.1 -p udp \", $1 / 256 % 256, $1 % 256, $1 / 65536
    print \"--sport 5 --dport 6 -t 3600 -u SEEN_REPLY,ASSURED\"
}' | conntrack -R - || [ TO = 100 ]";

fn fill(lab: &Lab, place: &str, from: u32, to: u32) {
    let script = FILL
        .replace("FROM", &from.to_string())
        .replace("TO", &to.to_string());
    lab.exec(place, &["sh", "-c", &script]).expect("filled");
}

fn empty(lab: &Lab, place: &str) {
    lab.exec(place, &["conntrack", "-F"]).expect("forgotten");
}

fn refused(lab: &Lab, node: &str) -> f64 {
    let reason = ["reason=\"conntrack\""];
    lab.counted(node, "weft_connections_refused_total", &reason)
        .expect("metrics")
}

#[test]
fn a_connection_that_finds_no_place_says_so() {
    let lab = mesh("CONNECT_TIMEOUT=1s");
    let baseline = warm(&lab);

    // The node: who calls has no tunnel there yet.
    fill(&lab, "node/node-1", 0, 100);
    let output = lab.peer_output("shop/client", &["get", "server:80"]);
    assert!(!output.expect("it runs").status.success());
    let why = "15008: no answer within 1s: connection tracking of the node is full (";
    lab.logged("nodes/node-1/ztunnel.log", why).expect("logged");
    // Not even the node itself gets a connection to its ztunnel.
    let status = lab.weft(&["status"]).expect("answers");
    let warning = "connection tracking of node-1 is full (";
    assert!(status.contains(warning), "{status}");
    empty(&lab, "node/node-1");
    lab.eventually(BACK, "there is room", || {
        lab.peer("shop/client", &["get", "server:80"]).map(drop)
    })
    .expect("served");
    assert!(refused(&lab, "node-1") >= 1.0);

    // The server's pod: its tunnel is open.
    let mut held = Running::start(&lab, "shop/client", &["crowd", "server:9000", "8"]);
    assert!(held.line().contains("\"open\":8"));
    fill(&lab, "shop/server", 0, 85);
    let used = || lab.counted("node-2", "weft_conntrack_used_percent", &["netns=\"pod\""]);
    assert!((85.0..90.0).contains(&used().expect("metrics")));
    let status = lab.weft(&["status"]).expect("answers");
    let warning = "connection tracking of shop/server on node-2 is 8";
    assert!(status.contains(warning), "{status}");
    fill(&lab, "shop/server", 85, 100);
    lab.eventually(BACK, "it is logged why", || {
        let output = lab.peer_output("shop/client", &["get", "server:80"])?;
        ensure!(!output.status.success(), "served: {output:?}");
        // One that needs another tunnel does not get as far as that.
        let log = lab.run_file("nodes/node-2/ztunnel.log");
        let why = "connection tracking of the pod is full (";
        ensure!(log.contains(why), "{log}");
        Ok(())
    })
    .expect("logged");
    assert!(refused(&lab, "node-2") >= 1.0);
    assert_eq!(held.end(), "alive 8");
    empty(&lab, "shop/server");

    lab.eventually(BACK, "the server is ready", || lab.ready())
        .expect("ready");
    still_serves(&lab);
    let status = lab.weft(&["status"]).expect("answers");
    assert!(!status.contains("connection tracking"), "{status}");
    // The ends of connections found no place either.
    forget_tracked(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
