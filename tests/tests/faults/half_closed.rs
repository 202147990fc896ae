//! Connections of which one side has said all and the other never ends.

use std::net::SocketAddr;

use crate::shop::{BACK, Running, mesh, scaled, still_serves, warm};

#[test]
fn half_closed_connections_end_at_their_deadline() {
    let lab = mesh("HALF_CLOSED_TIMEOUT=2s");
    let baseline = warm(&lab);
    let count = scaled("200", "9000");
    let neighbour = lab.addresses("shop/neighbour").expect("addresses")[0];
    let near = SocketAddr::new(neighbour, 9006).to_string();
    let mut clients: Vec<_> = ["server:9006", &near]
        .iter()
        .map(|target| Running::start(&lab, "shop/client", &["half-close", target, count]))
        .collect();
    for client in &mut clients {
        assert_eq!(client.line(), format!("half-closed {count}"));
    }
    for client in &mut clients {
        assert_eq!(client.line(), format!("cut {count}"));
    }
    let why = "half closed and silent for too long";
    lab.logged("nodes/node-1/ztunnel.log", why).expect("logged");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
