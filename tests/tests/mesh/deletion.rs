//! A pod that is deleted tells its peers that what they have open with it is over.

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::YAML;

/// Tunnels into or out of a pod that its kernel takes for open.
fn tunnels(lab: &Lab, pod: &str) -> anyhow::Result<String> {
    let all = "( sport = :15008 or dport = :15008 )";
    lab.exec(
        pod,
        &[
            "ss",
            "-Htn",
            "state",
            "connected",
            "exclude",
            "time-wait",
            all,
        ],
    )
}

/// In both directions. Nothing else could end the tunnels: no probe is due as long as the test runs.
#[test]
fn peers_of_a_deleted_pod_hear_that_it_is_gone() {
    let patient = [
        ("HTTP2_PING_INTERVAL", "1h"),
        ("HTTP2_PING_TIMEOUT", "1h"),
        ("KEEPALIVE_TIME", "1h"),
    ];
    let lab = Lab::up_under(YAML, &patient).expect("the mesh starts");
    for (client, server, deleted, peer) in [
        ("client", "server", "client", "server"),
        ("neighbour", "server", "server", "neighbour"),
    ] {
        let address = lab.addresses(&format!("shop/{server}")).expect("known")[0];
        lab.peer(
            &format!("shop/{client}"),
            &["get", &format!("{address}:8080")],
        )
        .expect("answered");
        let peer = format!("shop/{peer}");
        let before = tunnels(&lab, &peer).expect("listed");
        assert!(before.contains("ESTAB"), "{client} to {server}: {before:?}");
        lab.weft(&["delete", "pod", deleted, "-n", "shop"])
            .expect("deleted");
        lab.eventually(SOON, "no tunnel is left", || {
            let left = tunnels(&lab, &peer)?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{deleted} is gone: {error:#}"));
    }
}
