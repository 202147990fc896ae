//! A pod that has used up its ports.

use crate::shop::{BACK, Running, mesh, still_serves, warm};

#[test]
fn tunnels_that_are_open_go_on_when_no_port_is_left() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    // Whatever the workers, each has a tunnel.
    let mut held = Running::start(&lab, "shop/client", &["crowd", "server:9000", "8"]);
    assert!(held.line().contains("\"open\":8"));
    let narrow = "echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range";
    lab.exec("shop/client", &["sh", "-ec", narrow])
        .expect("few ports");
    // Five too many. Their own ports are others, so that it is the node that runs out, not they.
    let outsider = lab.addresses("plain/outsider").expect("addresses")[0];
    let outside = std::net::SocketAddr::new(outsider, 9000).to_string();
    let crowd = ["silent", &outside, "25", "--from", "20000"];
    let mut crowd = Running::start(&lab, "shop/client", &crowd);
    assert_eq!(crowd.line(), "open 25");
    lab.eventually(BACK, "no port is left", || {
        let log = lab.run_file("nodes/node-1/ztunnel.log");
        anyhow::ensure!(log.contains("no local port is free"), "{log}");
        Ok(())
    })
    .expect("and the log says so");
    for _ in 0..8 {
        lab.peer("shop/client", &["get", "server:80"])
            .expect("over an open tunnel");
    }
    drop(crowd);
    assert_eq!(held.end(), "alive 8");
    let wide = "echo 32768 60999 > /proc/sys/net/ipv4/ip_local_port_range";
    lab.exec("shop/client", &["sh", "-ec", wide])
        .expect("many ports");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
