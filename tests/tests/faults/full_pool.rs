//! More connections to one peer than its tunnels may carry.

use std::net::SocketAddr;

use tests::peer::stubborn::Crowd;

use crate::shop::{BACK, Running, mesh, still_serves, warm};

/// Two to a tunnel: that is more tunnels than have large windows.
const CROWD: usize = 280;

#[test]
fn a_full_pool_grows_with_its_connections_and_shrinks_again() {
    let lab = mesh("POOL_MAX_STREAMS_PER_CONNECTION=2");
    let baseline = warm(&lab);
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let server = SocketAddr::new(server, 9000).to_string();
    let count = CROWD.to_string();
    let mut crowd = Running::start(&lab, "shop/client", &["crowd", &server, &count]);
    let report: Crowd = serde_json::from_str(&crowd.line()).expect("JSON");
    assert_eq!((report.open, report.failed), (CROWD, 0), "{report:?}");
    // Nobody else is hurt.
    lab.peer("shop/neighbour", &["get", "server:80"])
        .expect("an answer");
    assert_eq!(crowd.end(), format!("alive {CROWD}"));
    lab.eventually(BACK, "there is room again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("room");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
