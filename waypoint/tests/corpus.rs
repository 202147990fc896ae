//! Replays the fuzz targets' corpora (`fuzz/corpus/TARGET/`).

#[path = "../fuzz/invariants.rs"]
mod invariants;
#[path = "../../ztunnel/fuzz/replay.rs"]
mod replay;

/// Of this crate.
fn replay(target: &str, check: fn(&[u8])) {
    replay::replay(env!("CARGO_MANIFEST_DIR"), target, check);
}

#[test]
fn http1_request() {
    replay("http1_request", invariants::http1_request);
}

#[test]
fn http1_response() {
    replay("http1_response", invariants::http1_response);
}

#[test]
fn http1_chunked() {
    replay("http1_chunked", invariants::http1_chunked);
}

#[test]
fn path() {
    replay("path", invariants::path);
}

#[test]
fn authority() {
    replay("authority", invariants::authority);
}

#[test]
fn header_values() {
    replay("header_values", invariants::header_values);
}

#[test]
fn json_web_token() {
    replay("json_web_token", invariants::json_web_token);
}
