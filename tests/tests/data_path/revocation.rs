//! Certificates that are taken back while connections made with them are open.

use std::time::Duration;

use tests::lab::scale::scaled;
use ztunnel::proxy::access_log::Direction;

use super::lab::{Lab, PATIENCE};
use super::{cut, echo, has_error, is_refused};

#[test]
fn a_revoked_certificate_cuts_what_is_open_with_it_and_opens_nothing_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut lab = Lab::new();
    lab.keep_revocation_lists(folder.path().join("crl.pem"));
    for (name, node) in [("far", 1), ("other", 1), ("near", 2), ("server", 2)] {
        lab.pod(name, node);
    }
    let server = lab.address("server");
    let mut far = lab.call("far", server).expect("far").0;
    let mut near = lab.call("near", server).expect("near").0;
    let mut other = lab.call("other", server).expect("other").0;

    lab.revoke(&["far", "near"]);
    // A look at the file, the next one that finds it settled, and the cut.
    let promised = scaled(PATIENCE, Duration::from_secs(3));
    assert!(cut(&mut far) < promised);
    assert!(cut(&mut near) < promised);
    echo(&mut other);
    for name in ["far", "near"] {
        assert!(is_refused(lab.call(name, server)), "{name}");
    }
    for source in ["far", "near"].map(|name| lab.ip(name)) {
        lab.log_of(2, Direction::Inbound, |record| {
            record.source.address.ip() == source && has_error(record, "revoked")
        });
    }

    lab.revoke(&["server"]);
    assert!(cut(&mut other) < PATIENCE);
    assert!(is_refused(lab.call("other", server)));
    let other = lab.ip("other");
    lab.log_of(1, Direction::Outbound, |record| {
        record.source.address.ip() == other && has_error(record, "revoked")
    });
}
