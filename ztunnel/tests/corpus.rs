//! Replays the fuzz targets' corpora (`fuzz/corpus/TARGET/`).

#[path = "../fuzz/invariants.rs"]
mod invariants;
#[path = "../fuzz/replay.rs"]
mod replay;

use std::path::Path;

use invariants::trust::{self, Place, Verdict};
use ztunnel::inpod::Request;

/// Of this crate.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn replay(target: &str, check: fn(&[u8])) {
    replay::replay(ROOT, target, check);
}

#[track_caller]
fn seed(target: &str, name: &str) -> Vec<u8> {
    let path = Path::new(ROOT).join("fuzz/corpus").join(target).join(name);
    std::fs::read(path).expect("a seed")
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

/// Else the replay would see nothing of what comes with one.
#[test]
fn a_pod_of_the_corpus_gets_past_its_descriptor() {
    for name in ["add", "add_twice", "add_unknown_field"] {
        let asked = invariants::with_namespace(&seed("zds", name)).expect("needs CAP_SYS_ADMIN");
        assert!(matches!(asked, Request::Add(_)), "{name}: {asked:?}");
    }
}

#[test]
fn xds() {
    replay("xds", invariants::xds);
}

#[test]
fn certificate() {
    replay("certificate", invariants::certificate);
}

/// Else the replay would not get into the verifiers, nor to the lists.
#[test]
fn certificates_of_the_corpus_are_accepted_refused_and_revoked() {
    let check = |name: &str, place: Place, [client, server, revoked]: [bool; 3]| {
        let verdict = trust::shown(&seed("certificate", name), place);
        let expected = Verdict {
            accepted_as_client: client,
            accepted_as_server: server,
            revoked,
        };
        assert_eq!(verdict, expected, "{name}");
    };
    for (name, verdict) in [
        ("trusted", [true, true, false]),
        ("trusted_of_another_account", [true, false, false]),
        ("trusted_two_identities", [true, true, false]),
        ("trusted_for_clients_only", [true, false, false]),
        ("trusted_of_another_domain", [false; 3]),
        ("trusted_for_nobody", [false; 3]),
        ("trusted_revoked", [false, false, true]),
        ("below_intermediate", [false; 3]),
        ("leaf", [false; 3]),
    ] {
        check(name, Place::EndEntity, verdict);
    }
    for (name, verdict) in [
        ("below_intermediate", [true, true, false]),
        ("below_intermediate_revoked", [false, false, true]),
        ("trusted_revoked", [false, false, true]),
    ] {
        check(name, Place::BelowIntermediate, verdict);
    }
    for (name, verdict) in [
        ("intermediate", [true, true, false]),
        ("intermediate_revoked", [false, false, true]),
        ("intermediate_constrained", [false; 3]),
        ("trusted", [false; 3]),
    ] {
        check(name, Place::AboveLeaf, verdict);
    }
}

#[test]
fn proxy_protocol() {
    replay("proxy_protocol", invariants::proxy_protocol);
}
