//! An authority that is away for longer than half of a certificate's life, and then for all of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::lab::Lab;

use crate::shop::{BACK, mesh, still_serves, warm};

/// Renewals begin at half of it; a minute is the shortest that there is.
const LIFE: Duration = Duration::from_secs(75);

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const EXPIRED: &str = "Unavailable: CERT_EXPIRED";

/// Waits until `istioctl` and `weft status` show the client's certificate as ended.
#[track_caller]
fn await_expired(lab: &Lab) {
    let is_so = || -> Result<()> {
        let dump = lab.config_dump("node-1")?;
        let all = dump["certificates"].as_array().context("no list")?;
        let client = all.iter().find(|one| one["identity"] == CLIENT);
        let shown = client.context("no certificate")?["state"].as_str();
        ensure!(shown.is_some_and(|it| it.starts_with(EXPIRED)), "{shown:?}");
        let screen = lab.weft(&["status"])?;
        ensure!(screen.contains(EXPIRED), "{screen}");
        Ok(())
    };
    lab.eventually(LIFE + BACK, EXPIRED, is_so).expect("ended");
}

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
    still_serves(&lab);

    await_expired(&lab);
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
