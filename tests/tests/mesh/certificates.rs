//! The CA signs only what runs where it is asked from.

use anyhow::ensure;
use tests::lab::{SOON, eventually};

use crate::shop::shared;

const CONTROL_PLANE: &str = "172.30.0.254:15012";

/// What the CA answers to a request made with node-1's token.
fn ask(identity: &str) -> String {
    let lab = shared();
    let secrets = lab.state().join("run/nodes/node-1/var/run/secrets");
    let (root, token) = (
        secrets.join("istio/root-cert.pem"),
        secrets.join("tokens/istio-token"),
    );
    let command = [
        "forge",
        "certificate",
        CONTROL_PLANE,
        "--root",
        root.to_str().expect("text"),
        "--token",
        token.to_str().expect("text"),
        "--identity",
        identity,
    ];
    lab.exec("node/node-1", &command)
        .expect("forge runs")
        .trim()
        .to_owned()
}

fn check_refused(identity: &str, reason: &str) {
    let answer = ask(identity);
    assert!(answer.starts_with("refused"), "{identity}: {answer}");
    assert!(
        !answer.contains(reason),
        "the reason is for the log, not for the caller: {answer}"
    );
    eventually(SOON, "the reason is logged", || {
        let log = shared().run_file("control-plane.log");
        let mut lines = log.lines();
        let is_logged = lines.any(|line| line.contains(identity) && line.contains(reason));
        ensure!(is_logged, "{identity} and {reason:?} in\n{log}");
        Ok(())
    })
    .expect("logged");
}

#[test]
fn an_identity_of_the_node_is_signed() {
    let identity = "spiffe://cluster.local/ns/shop/sa/client";
    assert_eq!(ask(identity), format!("issued {identity}"));
}

#[test]
fn an_identity_that_runs_nowhere_is_refused_and_logged() {
    check_refused("spiffe://cluster.local/ns/shop/sa/nobody", "no running pod");
}

#[test]
fn an_identity_of_a_pod_outside_the_mesh_is_refused_and_logged() {
    check_refused(
        "spiffe://cluster.local/ns/plain/sa/default",
        "no running pod",
    );
}

#[test]
fn an_identity_of_another_node_is_refused_and_logged() {
    check_refused("spiffe://cluster.local/ns/shop/sa/remote", "no running pod");
}

#[test]
fn an_identity_of_another_trust_domain_is_refused_and_logged() {
    check_refused("spiffe://other.domain/ns/shop/sa/client", "trust domain");
}

#[test]
fn ztunnels_ask_for_an_hour() {
    eventually(SOON, "a certificate is logged", || {
        let log = shared().run_file("control-plane.log");
        let issued = log
            .lines()
            .find(|line| line.contains("certificate issued") && line.contains("/sa/client"));
        let is_an_hour = issued.is_some_and(|line| line.contains("lifetime=3600s"));
        ensure!(is_an_hour, "{issued:?}");
        Ok(())
    })
    .expect("issued");
}

#[test]
fn the_root_key_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let key = shared().state().join("ca/ca-key.pem");
    let mode = std::fs::metadata(key)
        .expect("the key")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_workload_key_is_on_disk() {
    let state = shared().state();
    let search = ["grep", "-rlE", "PRIVATE KEY", state.to_str().expect("text")];
    // It fails where a file goes while it looks, as they do when they are written anew.
    eventually(SOON, "the CA's own key is found", || {
        let found = shared().exec("node/node-1", &search)?;
        assert_eq!(found.trim().lines().count(), 1, "{found}");
        assert!(found.trim().ends_with("ca/ca-key.pem"), "{found}");
        Ok(())
    })
    .expect("found");
}

/// Private keys as PEM and as base64 of it and of PKCS #8, and the head of a token.
const SECRETS: [&str; 4] = [
    "PRIVATE KEY",
    "LS0tLS1CRUdJTiBQUklWQVRF",
    "MIGHAgEAMBMGByqGSM49",
    "eyJhbGciOi",
];

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let lab = shared();
    lab.peer("shop/client", &["get", "server:80"])
        .expect("used");
    let mut shown = Vec::new();
    for (port, path) in [
        (15000, "/"),
        (15000, "/config_dump"),
        (15020, "/metrics"),
        (15021, "/healthz/ready"),
    ] {
        let address = format!("127.0.0.1:{port}");
        let answer = lab.exec("node/node-1", &["peer", "http", &address, path]);
        shown.push((path.to_owned(), answer.expect("an answer")));
    }
    for command in [
        &["status", "-o", "json"][..],
        &["get", "pods", "-A", "-o", "yaml"],
        &["ztunnel-config", "all", "--node", "node-1", "-o", "json"],
    ] {
        let output = lab.weft(command).expect("it works");
        shown.push((command.join(" "), output));
    }
    for log in ["control-plane.log", "nodes/node-1/ztunnel.log"] {
        shown.push((log.to_owned(), lab.run_file(log)));
    }
    for (what, text) in shown {
        assert!(!text.is_empty(), "{what} is empty");
        for secret in SECRETS {
            assert!(!text.contains(secret), "{what} holds {secret}");
        }
    }
}
