//! Replays the fuzz targets' corpora (`fuzz/corpus/TARGET/`).

#[path = "../fuzz/invariants.rs"]
mod invariants;
#[path = "../fuzz/replay.rs"]
mod replay;

/// Of this crate.
fn replay(target: &str, check: fn(&[u8])) {
    replay::replay(env!("CARGO_MANIFEST_DIR"), target, check);
}

#[test]
fn connect() {
    replay("connect", invariants::connect);
}

#[test]
fn dns() {
    replay("dns", invariants::dns);
}

#[test]
fn zds() {
    replay("zds", invariants::zds);
}

#[test]
fn xds() {
    replay("xds", invariants::xds);
}

#[test]
fn certificate() {
    replay("certificate", invariants::certificate);
}

#[test]
fn proxy_protocol() {
    replay("proxy_protocol", invariants::proxy_protocol);
}
