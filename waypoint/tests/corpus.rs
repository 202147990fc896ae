//! Replays the fuzz targets' corpora (`fuzz/corpus/TARGET/`).

use std::fs;
use std::path::Path;

#[path = "../fuzz/invariants.rs"]
mod invariants;

/// Fewer than these are not what is committed.
const SEEDS: usize = 15;

#[track_caller]
fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("a committed corpus") {
        let path = entry.expect("a readable folder").path();
        let input = fs::read(&path).expect("a readable file");
        let checked = std::panic::catch_unwind(|| {
            check(&input);
            // Whatever breaks off must not panic either.
            (0..input.len())
                .step_by(input.len() / 64 + 1)
                .for_each(|end| check(&input[..end]));
        });
        assert!(checked.is_ok(), "{}", path.display());
        replayed += 1;
    }
    assert!(
        replayed >= SEEDS,
        "{} has {replayed} files",
        folder.display()
    );
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
