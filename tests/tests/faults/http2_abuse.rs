//! A peer with a valid certificate that abuses HTTP/2.

use std::net::SocketAddr;

use tests::forge::flood::Outcome;
use tests::lab::Lab;

use crate::shop::{BACK, mesh, scaled, still_serves, warm};

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/shop/sa/server";

/// RFC 9113 section 7.
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Of the memory of the whole process, debug builds' waste included.
const MOST_PER_CONNECTION: f64 = 1024.0 * 1024.0;

/// It ends with the server's end of it, or after so many seconds.
fn flood(lab: &Lab, abuse: &str, frames: u64, seconds: &str) -> Outcome {
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let to = SocketAddr::new(server, 15008).to_string();
    let authority = SocketAddr::new(server, 9000).to_string();
    let ca = lab.state().join("ca");
    let ca = ca.to_str().expect("text");
    let frames = frames.to_string();
    let mut command = vec!["forge", "flood", &to, "--ca", ca, "--identity", CLIENT];
    command.extend([
        "--server",
        SERVER,
        "--authority",
        &authority,
        "--abuse",
        abuse,
    ]);
    command.extend(["--frames", &frames, "--seconds", seconds]);
    let answer = lab.exec("plain/outsider", &command).expect("runs");
    serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{abuse}: {answer}"))
}

#[test]
fn abuse_closes_the_connection_and_costs_little() {
    let lab = mesh("RUST_LOG=info");
    let baseline = warm(&lab);
    let memory = || lab.own_memory("node-2").expect("memory");
    let frames = scaled(100_000, 10_000_000);
    let mut told = 0;
    for (abuse, code) in [
        ("rapid-reset", Some(ENHANCE_YOUR_CALM)),
        ("continuation", Some(ENHANCE_YOUR_CALM)),
        ("settings", None),
        ("ping", None),
        ("unread-ping", None),
        ("empty-data", Some(ENHANCE_YOUR_CALM)),
        ("hpack-bomb", Some(ENHANCE_YOUR_CALM)),
        ("oversized-headers", Some(ENHANCE_YOUR_CALM)),
        ("tiny-windows", None),
        ("window-overflow", Some(FLOW_CONTROL_ERROR)),
    ] {
        // Who does not read what the server says doesn't see its end either, and windows may be
        // opened a thousand times a second.
        let unseen = ["unread-ping", "tiny-windows"].contains(&abuse);
        let before = memory();
        let outcome = flood(&lab, abuse, frames, if unseen { "5" } else { "60" });
        let grown = memory() - before;
        println!("{abuse}: {outcome:?}, {grown} bytes");
        assert!(grown < MOST_PER_CONNECTION, "{abuse}: {grown} bytes");
        let ended = outcome.closed || outcome.reset.is_some();
        assert!(ended || unseen, "{abuse}: {outcome:?}");
        // A reset of the socket may overtake the words before it.
        assert!(
            outcome.goaway.is_none() || outcome.goaway == code,
            "{abuse}: {outcome:?}"
        );
        told += usize::from(outcome.goaway.is_some());
    }
    assert!(told > 0, "nobody was told why");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
