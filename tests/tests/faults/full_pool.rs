//! More connections to one peer than its tunnels may carry.

use std::net::SocketAddr;

use tests::peer::stubborn::Crowd;

use crate::shop::{BACK, Running, mesh, still_serves, warm};

/// Two to a tunnel, and 128 tunnels from one peer into a pod.
const CARRIED: usize = 256;

#[test]
fn a_full_pool_grows_to_its_bound_and_shrinks_again() {
    let lab = mesh("POOL_MAX_STREAMS_PER_CONNECTION=2");
    let baseline = warm(&lab);
    // One address: a connection that is reset at once would be tried again over the other family,
    // which has places of its own.
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let server = SocketAddr::new(server, 9000).to_string();
    let mut crowd = Running::start(&lab, "shop/client", &["crowd", &server, "280"]);
    let report: Crowd = serde_json::from_str(&crowd.line()).expect("JSON");
    assert_eq!(report.open + report.failed, 280, "{report:?}");
    // A worker may have a tunnel with one place left.
    assert!((CARRIED - 4..=CARRIED).contains(&report.open), "{report:?}");
    let why = "has too many tunnels into this pod";
    lab.logged("nodes/node-2/ztunnel.log", why).expect("logged");
    // Nobody else is hurt.
    lab.peer("shop/neighbour", &["get", "server:80"])
        .expect("an answer");
    assert_eq!(crowd.end(), format!("alive {}", report.open));
    lab.eventually(BACK, "there is room again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("room");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
