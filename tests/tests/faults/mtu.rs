//! A hop that carries only short packets.

use tests::lab::Lab;
use tests::lab::wire::Wire;
use tests::wire::Faults;

use crate::shop::{BACK, mesh, still_serves, warm};

fn transfers(lab: &Lab) {
    for address in lab.addresses("shop/server").expect("addresses") {
        let target = |port| std::net::SocketAddr::new(address, port).to_string();
        for (transfer, port) in [("upload", 9002), ("download", 9003)] {
            lab.peer("shop/client", &[transfer, &target(port), "1048576"])
                .expect("arrives");
        }
    }
}

#[test]
fn a_hop_that_says_so_is_adapted_to() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    for node in ["node/node-1", "node/node-2"] {
        lab.exec(node, &["ip", "link", "set", "eth0", "mtu", "1280"])
            .expect("narrow");
    }
    transfers(&lab);
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

#[test]
fn a_hop_that_says_nothing_is_passed_with_clamped_segments() {
    let lab = mesh("MAX_SEGMENT_SIZE=1200");
    let baseline = warm(&lab);
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    let narrow = Faults {
        mtu: Some(1280),
        ..Faults::default()
    };
    wire.set(&narrow).expect("narrow");
    transfers(&lab);
    assert_eq!(wire.set(&Faults::default()).expect("whole").lost, 0);
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
