//! What one connection costs while it is idle.

use super::*;

/// The size of the future that a function of these arguments returns, without calling it.
fn future_size<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn connections_stay_small() {
    for (name, size, most) in [
        ("outbound", future_size(outbound::serve), 1024),
        ("socks5", future_size(socks5::serve), 1024),
        ("plaintext", future_size(plaintext::serve), 2560),
        ("inbound", future_size(inbound::serve), 2304),
        ("request", future_size(inbound::serve_request), 1792),
    ] {
        assert!(size <= most, "{name}: {size} bytes");
    }
}
