//! Applications that take connections and read nothing from them.

use tests::peer::client::LoadReport;

use crate::shop::{BACK, Running, mesh, restart_server, still_serves, warm_deaf};

/// As many as may stop reading before their tunnel is given no new connections.
const DEAF: u64 = 16;
/// What a tunnel holds for each at most: its window, and what is on its way into and out of it.
const HELD: u64 = (4 + 2) << 20;

#[test]
fn what_nobody_reads_is_bounded_and_holds_up_nobody() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm_deaf(&lab);
    let memory = |node| lab.own_memory(node).expect("memory");
    let before = ["node-1", "node-2"].map(memory);
    let count = DEAF.to_string();
    let mut deaf = Running::start(&lab, "shop/client", &["pour", "server:9005", &count]);
    let poured = deaf.line();
    assert!(poured.ends_with("cut 0"), "{poured}");
    for (node, before) in ["node-1", "node-2"].into_iter().zip(before) {
        let grown = memory(node) - before;
        assert!(
            grown < (DEAF * HELD) as f64,
            "{node}: {grown} bytes; {poured}"
        );
    }

    // Of the same application and of its neighbour.
    for pod in ["shop/client", "shop/neighbour"] {
        let load = ["load", "server:80", "--seconds", "1", "--connections", "2"];
        let report = lab.peer(pod, &load).expect("a report");
        let report: LoadReport = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report.failed, 0, "{pod}: {report:?}");
        lab.peer(pod, &["upload", "server:9002", "4194304"])
            .expect("a transfer");
    }
    deaf.end();
    // What has been said to an application that does not read is over when it is.
    restart_server(&lab);
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
