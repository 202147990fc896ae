//! A ztunnel that dies without a word: it is back at once, and nothing goes out in clear meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::lab::accounts::account;
use tests::lab::scale::{is_full, scaled};
use tests::lab::{Lab, SOON};

use crate::shop::own;

/// How long a hundred pods may take to start, on a busy machine.
const STARTED: Duration = Duration::from_secs(300);

/// Whether node-1's ztunnel has these pods besides the shop's two and itself, each with a certificate.
fn serves(lab: &Lab, pods: usize) -> Result<()> {
    let available = ["state=\"available\""];
    let certificates = lab.counted("node-1", "weft_certificates", &available)?;
    ensure!(certificates == (pods + 3) as f64, "{certificates}");
    let dump = lab.config_dump("node-1")?;
    let served = dump["workloadState"].as_object().context("no pods")?.len();
    ensure!(served == pods + 3, "{served}");
    Ok(())
}

/// The lab watches the link between the nodes all the while: a byte in clear fails the test.
#[test]
fn a_killed_ztunnel_serves_all_its_pods_again_and_leaks_nothing() {
    let lab = own();
    let pods = scaled(10, 100);
    let accounts: String = (0..pods).map(account).collect();
    lab.write("accounts.yaml", &accounts).expect("written");
    lab.eventually(STARTED, "all run", || serves(&lab, pods))
        .expect("started");
    let before = lab.ztunnel("node-1").expect("known")["restarts"].clone();
    let before = before.as_u64().expect("a number");
    let mut gaps = Vec::new();
    for round in 0..scaled(2, 20) {
        let ztunnel = lab.ztunnel("node-1").expect("known");
        let pid = ztunnel["pid"].as_i64().expect("it runs").to_string();
        lab.exec("node/node-1", &["kill", "-KILL", &pid])
            .expect("killed");
        let killed = Instant::now();
        lab.eventually(SOON, "another one runs", || {
            let now = lab.ztunnel("node-1")?["pid"].as_i64();
            ensure!(now.is_some_and(|now| now.to_string() != pid), "{now:?}");
            Ok(())
        })
        .expect("restarted");
        let restarted = Instant::now();
        // To the other node, on the same one, and from the other one.
        for (from, to) in [
            ("shop/client", "server:80"),
            ("shop/client", "neighbour:80"),
            ("shop/remote", "neighbour:80"),
        ] {
            lab.eventually(SOON, "it serves again", || {
                lab.peer(from, &["get", to]).map(|_| ())
            })
            .expect("served");
        }
        let answered = restarted.elapsed();
        lab.eventually(SOON, "it serves every pod", || serves(&lab, pods))
            .expect("served");
        gaps.push((killed.elapsed(), answered, restarted.elapsed()));
        let restarted = lab.ztunnel("node-1").expect("known");
        assert_eq!(restarted["restarts"], before + round + 1, "{restarted}");
        assert!(
            restarted["lastExit"]
                .as_str()
                .is_some_and(|exit| exit.contains("KILL")),
            "{restarted}"
        );
    }
    if is_full() {
        println!("kill to every pod, restart to three answers, and to every pod: {gaps:?}");
        let promised = Duration::from_secs(1);
        assert!(gaps.iter().all(|(_, _, gap)| *gap <= promised), "{gaps:?}");
    }
    lab.check_link();
}

#[test]
fn a_frozen_ztunnel_holds_its_pods_traffic_and_lets_none_past_it() {
    let lab = own();
    let address = lab.addresses("shop/server").expect("addresses")[0];
    let target = format!("{address}:8080");
    lab.peer("shop/client", &["get", &target]).expect("served");
    // Frozen, it answers nothing: what its pods send waits, and goes nowhere else.
    let ztunnel = lab.ztunnel("node-1").expect("known");
    let pid = ztunnel["pid"].as_i64().expect("it runs").to_string();
    lab.exec("node/node-1", &["kill", "-STOP", &pid])
        .expect("stopped");
    let command = ["timeout", "2", "peer", "get", &target];
    let output = lab.exec_output("shop/client", &command).expect("runs");
    assert!(!output.status.success(), "{output:?}");
    lab.exec("node/node-1", &["kill", "-CONT", &pid])
        .expect("goes on");
    lab.eventually(SOON, "it serves again", || {
        lab.peer("shop/client", &["get", &target]).map(|_| ())
    })
    .expect("served");
    lab.check_link();
}
