//! A peer whose power fails: no FIN, no reset, no answer.

use std::time::Duration;

use anyhow::ensure;
use tests::lab::SOON;
use tests::lab::wire::Wire;
use tests::wire::Faults;

use crate::shop::{BACK, Running, forget_tracked, mesh, scaled, still_serves, warm};

#[test]
fn both_nodes_let_go_of_a_peer_that_is_gone() {
    let lab = mesh("HTTP2_PING_INTERVAL=1s HTTP2_PING_TIMEOUT=2s");
    let baseline = warm(&lab);
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    let mut busy = Running::start(&lab, "shop/client", &["hold", "server:9000"]);
    assert_eq!(busy.line(), "open");
    let mut idle = Running::start(&lab, "shop/client", &["crowd", "server:9000", "10"]);
    assert!(idle.line().contains("\"open\":10"));

    let cut = Faults {
        cut: true,
        ..Faults::default()
    };
    wire.set(&cut).expect("cut");
    // Reset by the mesh, before its own patience ends.
    let closed = busy.line();
    assert!(closed.contains("reset"), "{closed}");
    lab.eventually(
        scaled(SOON, Duration::from_secs(10)),
        "both nodes have let go",
        || {
            for node in ["node-1", "node-2"] {
                let open = lab.metric(node, "istio_tcp_sockets_open")?;
                ensure!(open == 0.0, "{node} holds {open} sockets");
            }
            Ok(())
        },
    )
    .expect("idle connections too");
    assert_eq!(idle.end(), "alive 0");

    wire.set(&Faults::default()).expect("mended");
    lab.eventually(BACK, "the mesh works again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("works");
    still_serves(&lab);
    forget_tracked(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
