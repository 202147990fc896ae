//! A cable that loses, delays, doubles, reorders and damages frames.

use std::time::Duration;

use tests::lab::Lab;
use tests::lab::wire::Wire;
use tests::wire::Faults;

use crate::shop::{BACK, mesh, scaled, still_serves, warm};

fn bytes() -> String {
    scaled(192 << 10, 4 << 20).to_string()
}

/// The ends of connections on record that were not in order.
fn errors(lab: &Lab) -> Vec<String> {
    ["node-1", "node-2"]
        .iter()
        .flat_map(|node| {
            let log = lab.run_file(&format!("nodes/{node}/ztunnel.log"));
            let lines = log
                .lines()
                .filter(|line| line.contains("connection complete") && line.contains("error="));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn transfers_arrive_whole_over_a_bad_wire() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    wire.set(&Faults {
        seed: 20,
        delay: Duration::from_millis(50),
        loss: 0.05,
        duplicate: 0.02,
        reorder: 0.05,
        late: Duration::from_millis(20),
        corrupt: 0.01,
        ..Faults::default()
    })
    .expect("set");
    std::thread::scope(|scope| {
        for (transfer, target) in [("upload", "server:9002"), ("download", "server:9003")] {
            let lab = &lab;
            scope.spawn(move || {
                lab.peer("shop/client", &[transfer, target, &bytes()])
                    .expect("arrives whole");
            });
        }
        for _ in 0..5 {
            lab.peer("shop/neighbour", &["get", "server:80"])
                .expect("an answer");
        }
    });
    let counts = wire.set(&Faults::default()).expect("set");
    for happened in [
        counts.lost,
        counts.duplicated,
        counts.reordered,
        counts.corrupted,
    ] {
        assert!(happened > 0, "{counts:?}");
    }
    assert_eq!(errors(&lab), Vec::<String>::new());
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// TCP's checksum is right, the bytes are not: only the cipher notices.
#[test]
fn tampered_bytes_are_never_delivered() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    let mut wire = Wire::insert(&lab, "node-2").expect("a wire");
    wire.set(&Faults {
        seed: 20,
        tamper: 0.02,
        ..Faults::default()
    })
    .expect("set");
    for _ in 0..scaled(3, 100) {
        for (transfer, target) in [("upload", "server:9002"), ("download", "server:9003")] {
            let result = lab.peer("shop/client", &[transfer, target, "4194304"]);
            let error = format!("{:#}", result.expect_err("cut"));
            let another_checksum = error.contains("the server saw \"4194304");
            assert!(!another_checksum && !error.contains("differ"), "{error}");
        }
    }
    let counts = wire.set(&Faults::default()).expect("set");
    assert!(counts.tampered > 0, "{counts:?}");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
