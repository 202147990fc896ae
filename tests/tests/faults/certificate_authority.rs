//! An authority that is away for longer than half of a certificate's life, and then for all of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::Lab;

use crate::shop::{BACK, mesh, still_serves, warm};

/// The shortest that there is: renewals begin at half of it.
const LIFE: Duration = Duration::from_secs(60);

/// Waits until the client's certificate is in a state that `weft status` and `istioctl` show so.
#[track_caller]
fn await_certificate(lab: &Lab, state: &str) {
    let is_so = || -> Result<()> {
        let dump = lab.config_dump("node-1")?;
        let all = dump["certificates"].as_array().context("no list")?;
        let client = all.iter().find(|one| one["identity"] == CLIENT);
        let shown = client.context("no certificate")?["state"].as_str();
        ensure!(shown.is_some_and(|it| it.starts_with(state)), "{shown:?}");
        let screen = lab.weft(&["status"])?;
        ensure!(screen.contains(state), "{screen}");
        Ok(())
    };
    lab.eventually(LIFE + BACK, state, is_so).expect("so");
}

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";

#[test]
fn certificates_outlast_an_authority_that_is_away_and_end_when_they_say() {
    let lab = mesh(&format!("SECRET_TTL={}s", LIFE.as_secs()));
    let baseline = warm(&lab);
    lab.signal("control-plane", None, "STOP").expect("stopped");
    lab.eventually(LIFE, "a renewal fails", || {
        let log = lab.run_file("nodes/node-1/ztunnel.log");
        ensure!(log.contains("no certificate"), "{log}");
        Ok(())
    })
    .expect("tried");
    await_certificate(&lab, "Available");
    still_serves(&lab);

    await_certificate(&lab, "Unavailable: CERT_EXPIRED");
    let refused = lab.peer_output("shop/client", &["get", "server:80"]);
    let refused = refused.expect("it runs");
    assert!(!refused.status.success(), "{refused:?}");
    let log = lab.run_file("nodes/node-1/ztunnel.log");
    let told = |line: &str| line.contains("connection complete") && line.contains("CERT_EXPIRED");
    assert!(log.lines().any(told), "{log}");

    lab.signal("control-plane", None, "CONT").expect("goes on");
    lab.eventually(Duration::from_secs(30), "the mesh works again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("healed");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
