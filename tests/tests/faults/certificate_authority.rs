//! An authority that is away for longer than half of a certificate's life, and then for all of it.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use tests::lab::Lab;
use tests::lab::accounts::account;
use tests::lab::scale::is_full;

use crate::shop::{BACK, mesh, scaled, still_serves, warm};

/// Renewals begin at half of it; a minute is the shortest that there is.
const LIFE: Duration = Duration::from_secs(75);

const CLIENT: &str = "spiffe://cluster.local/ns/shop/sa/client";
const EXPIRED: &str = "Unavailable: CERT_EXPIRED";

/// What the authority signs within a second at most, of one node.
const PACE: usize = 50;
/// How long hundreds of pods may take to start, on a busy machine.
const STARTED: Duration = Duration::from_secs(300);
/// Within which everything is renewed once it is back.
const RENEWED: Duration = Duration::from_secs(30);

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

/// Waits until so many of node-1's certificates are in a state.
#[track_caller]
fn await_count(lab: &Lab, within: Duration, state: &str, count: usize) {
    let label = format!("state=\"{state}\"");
    lab.eventually(within, &format!("{count} are {state}"), || {
        let found = lab.counted("node-1", "weft_certificates", &[&label])?;
        ensure!(found == count as f64, "{found}");
        Ok(())
    })
    .expect("counted");
}

/// The most that were issued within a second since then.
fn most_in_a_second(lab: &Lab, since: SystemTime) -> usize {
    let log = lab.run_file("control-plane.log");
    let issued = log
        .lines()
        .filter(|line| line.contains("certificate issued"));
    let time = |line: &str| {
        let text = line.split_whitespace().next().expect("a time");
        humantime::parse_rfc3339(text).expect("a time")
    };
    let times: Vec<_> = issued.map(time).filter(|time| *time >= since).collect();
    let mut begins = times.iter().enumerate();
    let most = begins.by_ref().map(|(index, begin)| {
        let end = *begin + Duration::from_secs(1);
        times[index..].iter().filter(|time| **time < end).count()
    });
    most.max().unwrap_or_default()
}

#[test]
fn what_has_ended_meanwhile_is_renewed_soon_and_not_all_at_once() {
    let count = scaled(10, 200);
    let accounts: String = (0..count).map(account).collect();
    let life = format!("SECRET_TTL={}s", LIFE.as_secs());
    let lab = mesh(&life);
    lab.write("accounts.yaml", &accounts).expect("written");
    // Those of the shop have one together, and the node's ztunnel its own.
    let all = count + 2;
    await_count(&lab, scaled(BACK, STARTED), "available", all);
    let baseline = warm(&lab);
    lab.signal("control-plane", None, "STOP").expect("stopped");
    await_count(&lab, LIFE + BACK, "unavailable", all);
    let ended = |metric| lab.metric("node-1", metric).expect("told");
    assert!(ended("weft_certificate_expiry_seconds") == 0.0);
    assert!(ended("weft_certificate_life_left_ratio") == 0.0);

    let back = SystemTime::now();
    lab.signal("control-plane", None, "CONT").expect("goes on");
    await_count(&lab, scaled(BACK, RENEWED), "available", all);
    let (took, most) = (back.elapsed(), most_in_a_second(&lab, back));
    println!("{all} renewed in {took:?}, {most} within a second at most");
    assert!(!is_full() || most <= PACE, "{most} within a second");
    // The other node's ztunnel has been back for as long, and may have asked later.
    lab.eventually(BACK, "the mesh works again", || {
        lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
    })
    .expect("healed");
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}
