//! A ztunnel replaced while it is used: nothing new is refused, nothing open is cut before its time.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::scale::{is_full, scaled};
use tests::lab::{Lab, SOON, program};

use crate::load::Load;
use crate::shop::own;

/// How long open connections go on in a former process that gives them little time.
const BRIEF: &str = "export ZTUNNEL_HANDOVER_DEADLINE=1s";

fn upgrade(lab: &Lab, arguments: &[&str]) -> Result<Vec<Value>> {
    let mut all = vec!["ztunnel", "upgrade", "-o", "json"];
    all.extend(arguments);
    let output = lab.weft(&all)?;
    let lines = output.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

/// A connection that echoes until it is told to stop.
struct Held(Child, BufReader<std::process::ChildStdout>);

impl Held {
    fn open(lab: &Lab, server: &str) -> Self {
        let address = lab.addresses(server).expect("addresses")[0];
        let target = format!("{address}:9000");
        let mut child = lab
            .exec_spawn("shop/client", &["peer", "hold", &target])
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("reads");
        assert_eq!(line, "open\n", "{server}");
        Self(child, lines)
    }

    fn is_open(&mut self) -> bool {
        self.0.try_wait().expect("waits").is_none()
    }

    /// Waits for its end, which nobody has told it to come to.
    fn ends(mut self) {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("reads");
        assert!(line.starts_with("closed after"), "{line}");
        let _ = self.0.wait();
    }

    fn stop(mut self) {
        let mut stdin = self.0.stdin.take().expect("piped");
        writeln!(stdin, "stop").expect("writes");
        let mut line = String::new();
        self.1.read_line(&mut line).expect("reads");
        assert!(line.starts_with("stopped after"), "{line}");
        let _ = self.0.wait();
    }
}

#[test]
fn every_ztunnel_is_replaced_under_load_and_nothing_is_lost() {
    let lab = own();
    let mut ended = Held::open(&lab, "shop/server");
    let mut near = Held::open(&lab, "shop/neighbour");
    let former = ["node-1", "node-2"].map(|node| lab.ztunnel(node).expect("known"));

    let (rate, count) = scaled((60, 360), (1000, 50_000));
    let loads = ["shop/server", "shop/neighbour"];
    let loads = loads.map(|server| Load::connections(&lab, "shop/client", server, (rate, count)));
    let asked = Load::questions(&lab, (50, count * 50 / rate));
    // Full size: again and again.
    let mut upgrades = Vec::new();
    for _ in 1..scaled(1, 6) {
        upgrades.extend(upgrade(&lab, &[]).expect("upgraded"));
    }
    let brief = lab.wrapper(BRIEF).expect("written");
    upgrades.extend(upgrade(&lab, &[&brief]).expect("upgraded"));
    assert!(ended.is_open() && near.is_open());
    for upgraded in &upgrades {
        assert_eq!(upgraded["upgraded"]["handedOver"], true, "{upgraded}");
    }
    for (node, former) in ["node-1", "node-2"].into_iter().zip(&former) {
        let now = lab.ztunnel(node).expect("known");
        assert_ne!(now["pid"], former["pid"]);
        assert_eq!(now["restarts"], former["restarts"], "{now}");
    }
    ended.stop();
    near.stop();
    if is_full() {
        println!("upgrades: {upgrades:?}");
    }

    for load in loads.into_iter().chain([asked]) {
        let report = load.end();
        // Nobody waited for a packet that was sent again, which takes a second.
        assert!(!is_full() || report.longest < 1_000.0, "{report:?}");
    }

    // What is still open is cut at the deadline, and the one that serves now tells how much.
    let cut = Held::open(&lab, "shop/server");
    upgrade(&lab, &[]).expect("upgraded");
    cut.ends();
    lab.eventually(SOON, "the former processes are gone", || {
        for node in ["node-1", "node-2"] {
            let now = lab.ztunnel(node)?;
            ensure!(now["former"] == serde_json::json!([]), "{now}");
        }
        Ok(())
    })
    .expect("gone");
    lab.eventually(SOON, "the cut is counted", || {
        let counted = ["node-1", "node-2"].map(|node| {
            lab.metric(node, "weft_handover_connections_cut_total")
                .unwrap_or_default()
        });
        ensure!(counted.iter().sum::<f64>() >= 1.0, "{counted:?}");
        Ok(())
    })
    .expect("counted");
    let cut = "connections are cut at the drain's deadline";
    lab.logged("nodes/node-1/ztunnel.log", cut).expect("logged");
    lab.peer("shop/client", &["get", "server:80"])
        .expect("served");
}

/// Connections that have echoed once and are held.
struct Crowd(Child, BufReader<std::process::ChildStdout>);

impl Crowd {
    fn open(lab: &Lab, client: &str, server: &str, count: usize) -> Self {
        let address = lab.addresses(server).expect("addresses")[0];
        let (target, text) = (format!("{address}:9000"), count.to_string());
        let mut child = lab
            .exec_spawn(client, &["peer", "crowd", &target, &text])
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("reads");
        let opened: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(opened["open"], count, "{client} to {server}: {opened}");
        Self(child, lines)
    }

    /// How many still echo.
    fn alive(mut self) -> usize {
        drop(self.0.stdin.take());
        let mut line = String::new();
        self.1.read_line(&mut line).expect("reads");
        let _ = self.0.wait();
        let alive = line.trim().strip_prefix("alive ").map(str::parse);
        alive.expect("a count").expect("a number")
    }
}

/// With another ztunnel on the other node, too: `WEFT_TEST_ZTUNNEL=node-2=PATH`.
#[test]
fn a_crowd_both_ways_outlives_the_upgrade_of_one_end() {
    const CROWD: usize = 128;
    let lab = own();
    let ways = [
        ("shop/client", "shop/server"),
        ("shop/remote", "shop/client"),
    ];
    let crowds = ways.map(|(client, server)| Crowd::open(&lab, client, server, CROWD));
    let size = scaled((40, 240), (500, 10_000));
    let loads = ways.map(|(client, server)| Load::connections(&lab, client, server, size));
    let upgraded = upgrade(&lab, &["--node", "node-1"]).expect("upgraded");
    assert_eq!(upgraded[0]["upgraded"]["handedOver"], true, "{upgraded:?}");
    for load in loads {
        load.end();
    }
    for (crowd, way) in crowds.into_iter().zip(ways) {
        assert_eq!(crowd.alive(), CROWD, "{way:?}");
    }
    // The tunnels of both processes have been used, and those of the next one are.
    for (client, server) in ways {
        Crowd::open(&lab, client, server, CROWD);
    }
}

/// The other end of a tunnel is told to go elsewhere, and what it has open there goes on.
#[test]
fn the_former_process_says_goaway_on_its_tunnels() {
    let lab = own();
    let address = lab.addresses("shop/server").expect("addresses")[0];
    let (to, authority) = (format!("{address}:15008"), format!("{address}:9000"));
    let ca = lab.state().join("ca");
    let [client, server] =
        ["client", "server"].map(|account| format!("spiffe://cluster.local/ns/shop/sa/{account}"));
    let mut command = vec!["forge", "hold", &to, "--ca", ca.to_str().expect("text")];
    command.extend(["--identity", &client, "--server", &server]);
    command.extend(["--authority", &authority]);
    let mut holding = lab.exec_spawn("plain/outsider", &command).expect("starts");
    let mut lines = BufReader::new(holding.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("reads");
    assert_eq!(line(), "open");
    upgrade(&lab, &["--node", "node-2"]).expect("upgraded");
    assert_eq!(line(), "goaway 0, and the stream goes on");
    let _ = holding.wait();
}

/// Captured, beside the shop's client.
const LATE: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: shop}
spec:
  nodeName: node-1
  containers: [{name: peer, command: [peer, serve, --name, late]}]
";

#[test]
fn pods_come_and_go_while_the_former_process_drains() {
    let lab = own();
    let mut held = Held::open(&lab, "shop/server");
    upgrade(&lab, &["--node", "node-1"]).expect("upgraded");
    lab.write("late.yaml", LATE).expect("written");
    // Until then it is none of the mesh, and others speak to it in plaintext.
    lab.eventually(SOON, "the other node knows it is captured", || {
        let dump = lab.config_dump("node-2")?;
        let mut known = dump["workloads"].as_array().into_iter().flatten();
        let is_known = known.any(|one| one["name"] == "late" && one["protocol"] == "HBONE");
        ensure!(is_known, "{dump}");
        Ok(())
    })
    .expect("captured");
    lab.eventually(SOON, "the pod is served", || {
        let addresses = lab.addresses("shop/late")?;
        let address = addresses.first().context("no address")?;
        lab.peer("shop/remote", &["get", &format!("{address}:8080")])?;
        Ok(())
    })
    .expect("served");
    lab.remove("late.yaml").expect("removed");
    lab.eventually(SOON, "the pod is gone", || {
        let dump = lab.config_dump("node-1")?;
        ensure!(
            !dump["workloadState"].to_string().contains("\"late\""),
            "{dump}"
        );
        Ok(())
    })
    .expect("gone");
    let former = &lab.ztunnel("node-1").expect("known")["former"];
    assert_ne!(*former, serde_json::json!([]), "it drains");
    assert!(held.is_open());
    let log = lab.run_file("nodes/node-1/ztunnel.log");
    assert!(!log.contains("hands nothing over"), "{log}");
    held.stop();
}

const SQUATTER: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: squatter, namespace: shop, labels: {LABEL}}
spec:
  nodeName: node-1
  containers: [{name: web, command: [web, serve, --port, '15008']}]
";

/// An application that was there before it was to be in the mesh may have a port of the tunnel's.
#[test]
fn a_pod_that_nobody_can_serve_holds_no_upgrade_up() {
    let lab = own();
    let outside = SQUATTER.replace("LABEL", "istio.io/dataplane-mode: none");
    lab.write("squatter.yaml", &outside).expect("written");
    lab.eventually(SOON, "the application listens", || {
        lab.ready()?;
        lab.exec("shop/squatter", &["web", "ask", "http://localhost:15008/"])
            .map(|_| ())
    })
    .expect("listens");
    lab.write("squatter.yaml", &SQUATTER.replace("LABEL", "app: squatter"))
        .expect("written");
    let log = "nodes/node-1/ztunnel.log";
    lab.logged(log, "cannot serve pod").expect("it can't");
    upgrade(&lab, &["--node", "node-1"]).expect("upgraded");
    lab.logged(log, "holds_up=false").expect("said");
    let answer = lab.peer("shop/client", &["get", "server:80"]);
    assert!(answer.expect("served").starts_with("server "));
}

/// A program that is no successor: the shell script `text`.
fn script(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path.to_str().expect("text").to_owned()
}

#[test]
fn a_successor_that_does_not_get_ready_changes_nothing() {
    let lab = own();
    let folder = tempfile::tempdir().expect("a folder");
    let ztunnel = program("ztunnel");
    let ztunnel = ztunnel.display();
    let pid = lab.ztunnel("node-1").expect("known")["pid"].clone();
    let mut held = Held::open(&lab, "shop/neighbour");
    let size = (60, scaled(360, 3000));
    let load = Load::connections(&lab, "shop/client", "shop/neighbour", size);

    let fails = script(&folder, "fails", "echo 'a library is missing'; exit 3");
    let refused = upgrade(&lab, &["--node", "node-1", &fails]).expect_err("no ztunnel");
    let refused = refused.to_string();
    for part in ["exit code 3", "a library is missing", "serves on"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // It gets the sockets, and dies while it waits for certificates that nobody signs.
    let pid_file = folder.path().join("pid");
    let late = script(
        &folder,
        "late",
        &format!(
            "[ \"$1\" = version ] && exec {ztunnel} version\n\
             echo $$ > {}; CA_ADDRESS=https://127.0.0.1:9 exec {ztunnel}",
            pid_file.display()
        ),
    );
    let log = "nodes/node-1/ztunnel.log";
    let waiting = "waiting for certificates";
    let waits = || lab.run_file(log).matches(waiting).count();
    let before = waits();
    let refused = thread::scope(|scope| {
        let upgrading = scope.spawn(|| upgrade(&lab, &["--node", "node-1", &late]));
        lab.eventually(SOON, waiting, || {
            ensure!(waits() > before, "{}", lab.run_file(log));
            Ok(())
        })
        .expect("it waits");
        let pid = fs::read_to_string(&pid_file).expect("its pid");
        lab.exec("node/node-1", &["kill", "-KILL", pid.trim()])
            .expect("killed");
        upgrading.join().expect("answered").expect_err("dies")
    });
    assert!(
        refused.to_string().contains("before it served"),
        "{refused}"
    );
    lab.logged(log, "the successor is gone; serving on")
        .expect("logged");

    load.end();
    assert!(held.is_open());
    held.stop();
    assert_eq!(lab.ztunnel("node-1").expect("known")["pid"], pid);
    // And the next one is taken.
    let upgraded = upgrade(&lab, &["--node", "node-1"]).expect("upgraded");
    assert_eq!(upgraded[0]["upgraded"]["handedOver"], true);
    let missing = upgrade(&lab, &["/nonexistent/ztunnel"]).expect_err("no file");
    assert!(missing.to_string().contains("not a program"), "{missing}");
    let unknown = upgrade(&lab, &["--node", "node-9"]).expect_err("no node");
    assert!(unknown.to_string().contains("no node node-9"), "{unknown}");
}
