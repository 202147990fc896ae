//! A ztunnel that starts while there is no control plane: it has no keys, for they are on no disk, and
//! knows nobody; it refuses everything. One that would take another's place waits.

use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::baseline::Baseline;
use tests::lab::{Lab, SOON};
use tests::peer::client::LoadReport;

use crate::shop::{BACK, YAML, still_serves, warm};

/// The control plane does not start while there is this file.
const HELD: &str = "held";
/// Of every ztunnel; of the control plane.
const PRELUDES: [&str; 2] = [
    "export POOL_UNUSED_RELEASE_TIMEOUT=500ms",
    "[ ! -e \"$(dirname \"$0\")/held\" ] || exit 1",
];

fn mesh() -> (Lab, Baseline) {
    let [ztunnel, control_plane] = PRELUDES;
    let lab = Lab::up_both_wrapped(2, YAML, ztunnel, control_plane).expect("the mesh starts");
    let baseline = warm(&lab);
    (lab, baseline)
}

/// The ztunnel that is there now holds no more than the one that was.
#[track_caller]
fn is_at_rest(lab: &Lab, baseline: Baseline) {
    still_serves(lab);
    let baseline = baseline.of_successors(lab).expect("they run");
    baseline.awaited(lab, BACK).expect("back at rest");
}

fn held(lab: &Lab) -> PathBuf {
    lab.folder().with_file_name(HELD)
}

/// Kills the control plane, and has it stay away.
fn take_away_control_plane(lab: &Lab) {
    fs::write(held(lab), "").expect("written");
    lab.signal("control-plane", None, "KILL").expect("killed");
    lab.eventually(SOON, "it is gone", || {
        let piece = lab.piece("control-plane", None)?;
        ensure!(piece["pid"].is_null(), "{piece}");
        Ok(())
    })
    .expect("gone");
}

fn bring_back_control_plane(lab: &Lab) {
    fs::remove_file(held(lab)).expect("removed");
}

/// The pod's own word on why it gets no connection; it never waits for one.
#[track_caller]
fn is_refused(lab: &Lab, from: &str, to: &str) {
    let command = ["timeout", "30", "peer", "get", to];
    let output = lab.exec_output(from, &command).expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let is_refused = said.contains("refused") || said.contains("reset");
    assert!(!output.status.success() && is_refused, "{from}: {output:?}");
}

/// The lab watches the link between the nodes all the while: a byte in clear fails the test.
#[test]
fn a_ztunnel_that_starts_without_a_control_plane_refuses_until_there_is_one() {
    let (lab, baseline) = mesh();
    let target = |pod: &str| -> Result<String> {
        let addresses = lab.addresses(pod)?;
        Ok(format!("{}:8080", addresses.first().context("none")?))
    };
    let [server, neighbour, outsider] =
        ["shop/server", "shop/neighbour", "plain/outsider"].map(|pod| target(pod).expect("known"));
    take_away_control_plane(&lab);
    let before = lab.ztunnel("node-1").expect("known")["pid"].clone();
    lab.signal("ztunnel", Some("node-1"), "KILL")
        .expect("killed");
    let log = "nodes/node-1/ztunnel.log";
    lab.eventually(SOON, "another one looks for the control plane", || {
        let now = lab.ztunnel("node-1")?["pid"].clone();
        ensure!(now.is_i64() && now != before, "{now}");
        let said = lab.run_file(log);
        let started = said.rfind("starting").context("it says nothing yet")?;
        let looks = "not connected to the control plane";
        ensure!(said[started..].contains(looks), "{said}");
        Ok(())
    })
    .expect("started");

    // Out to a pod of the mesh on the other node and on its own, and to one that is in none; and in.
    for (from, to) in [
        ("shop/client", &server),
        ("shop/client", &neighbour),
        ("shop/client", &outsider),
        ("shop/server", &neighbour),
        ("plain/outsider", &neighbour),
    ] {
        is_refused(&lab, from, to);
    }
    let screen = lab.weft(&["status"]).expect("status");
    let row = |name: &str| {
        let found = screen.lines().find(|line| line.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name}: {screen}"))
    };
    assert!(row("control-plane").contains("down"), "{screen}");
    assert!(row("ztunnel").contains("stale since"), "{screen}");
    let why =
        "connections of pods on node-1 are refused: its ztunnel has not asked for them: it waits";
    assert!(screen.contains(why), "{screen}");
    let ready = || lab.metric("node-1", "weft_ready").expect("metrics");
    assert!(ready() < 1.0);

    bring_back_control_plane(&lab);
    lab.eventually(SOON, "all pods are served", || {
        for (from, to) in [
            ("shop/client", &server),
            ("shop/client", &neighbour),
            ("shop/client", &outsider),
            ("shop/server", &neighbour),
        ] {
            lab.peer(from, &["get", to])
                .with_context(|| format!("{from} to {to}"))?;
        }
        Ok(())
    })
    .expect("served");
    lab.ready().expect("ready");
    assert!(ready() >= 1.0);
    is_at_rest(&lab, baseline);
}

#[test]
fn a_successor_waits_for_the_control_plane_and_the_former_one_serves() {
    let (lab, baseline) = mesh();
    take_away_control_plane(&lab);
    let before = lab.ztunnel("node-1").expect("known")["pid"].clone();
    let upgrade = ["ztunnel", "upgrade", "--node", "node-1", "-o", "json"];
    let upgraded = thread::scope(|scope| {
        let upgrading = scope.spawn(|| lab.weft(&upgrade));
        let log = "nodes/node-1/ztunnel.log";
        lab.logged(log, "taking over from another process")
            .expect("it has begun");
        let load = ["load", "server:80", "--seconds", "2", "--connections", "2"];
        let report = lab.peer("shop/client", &load).expect("a report");
        let report: LoadReport = serde_json::from_str(&report).expect("JSON");
        assert_eq!(report.failed, 0, "{report:?}");
        assert_eq!(lab.ztunnel("node-1").expect("known")["pid"], before);
        assert!(!upgrading.is_finished(), "it serves what it can't know");
        bring_back_control_plane(&lab);
        upgrading.join().expect("answered").expect("upgraded")
    });
    let upgraded: Value = serde_json::from_str(&upgraded).expect("JSON");
    assert_eq!(upgraded["upgraded"]["handedOver"], true, "{upgraded}");
    assert_ne!(lab.ztunnel("node-1").expect("known")["pid"], before);
    is_at_rest(&lab, baseline);
}
