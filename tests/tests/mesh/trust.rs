//! The mesh's own root replaced while it is used: no handshake fails, and nothing that
//! interrupts it leaves more to do than going on.

use anyhow::ensure;
use tests::lab::scale::scaled;
use tests::lab::{Lab, SOON};

use crate::load::Load;
use crate::shop::own;

fn phase(lab: &Lab) -> String {
    let status = lab
        .weft(&["trust", "status", "-o", "json"])
        .expect("status");
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    status["phase"].as_str().expect("a phase").to_owned()
}

#[test]
fn the_root_is_replaced_under_load_and_after_a_crash_in_between() {
    let lab = own();
    let root = || std::fs::read_to_string(lab.state().join("ca/root-cert.pem")).expect("roots");
    let former = root();
    let size = scaled((40, 240), (500, 60_000));
    let loads = ["shop/server", "shop/neighbour"];
    let loads = loads.map(|server| Load::connections(&lab, "shop/client", server, size));

    let said = lab
        .weft(&["trust", "rotate", "--step", "add"])
        .expect("added");
    assert!(said.contains("2 of 2 proxies have followed"), "{said}");
    assert_eq!(phase(&lab), "added");
    let refused = lab
        .weft(&["trust", "rotate", "--step", "remove"])
        .expect_err("not yet");
    assert!(
        refused.to_string().contains("not the next step"),
        "{refused}"
    );
    let both = root();
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);

    lab.exec("control-plane", &["pkill", "-KILL", "-x", "control-plane"])
        .expect("killed");
    lab.eventually(SOON, "the control plane is back", || {
        lab.weft(&["trust", "status"]).map(|_| ())
    })
    .expect("back");
    let said = lab.weft(&["trust", "rotate"]).expect("rotated");
    for part in ["going on", "switched", "removed", "the root is replaced"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(phase(&lab), "steady");
    let next = root();
    assert_eq!(next.matches("BEGIN CERTIFICATE").count(), 1);
    assert!(!next.contains(&former) && both.contains(&next));
    for load in loads {
        load.end();
    }
    // Everything trusts the new root, and asks for certificates under it.
    let dump = lab.config_dump("node-1").expect("dump");
    for certificate in dump["certificates"].as_array().expect("certificates") {
        assert_eq!(certificate["rootCerts"].as_array().map(Vec::len), Some(1));
    }
    lab.eventually(SOON, "it serves", || {
        ensure!(
            lab.peer("shop/client", &["get", "server:80"])?
                .contains("server")
        );
        Ok(())
    })
    .expect("served");
}
