//! `weft down` after a clean run and after a crash of each piece: nothing stays behind.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::ensure;
use tests::lab::{Lab, SOON, eventually};

use crate::shop::YAML;

/// Everything of the machine that a mesh could leave something in.
pub(crate) fn machine() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for command in [
        &["ip", "-o", "link"][..],
        &["ip", "-br", "address"],
        &["ip", "rule"],
        &["ip", "-6", "rule"],
        &["ip", "route", "show", "table", "all"],
        &["nft", "list", "ruleset"],
        &["ip", "netns", "list"],
        &["cat", "/proc/mounts"],
    ] {
        let output = Command::new(command[0])
            .args(&command[1..])
            .output()
            .expect("runs");
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            // Routes that a router has told of count their seconds down.
            let line = line.split(" expires ").next().unwrap_or_default();
            seen.insert(format!("{}: {line}", command.join(" ")));
        }
    }
    seen
}

/// Waits until the machine has nothing more than before: what others have there may come and go.
#[track_caller]
pub(crate) fn check_unchanged(before: &BTreeSet<String>) {
    eventually(SOON, "the machine is as it was", || {
        let left: Vec<_> = machine().difference(before).cloned().collect();
        ensure!(left.is_empty(), "left behind: {left:#?}");
        Ok(())
    })
    .expect("nothing is left");
}

/// Processes that name this lab's folder or run in its namespaces.
fn processes(lab: &Lab) -> Vec<String> {
    let folder = lab.state().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let read = |file| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&[read("cmdline"), read("environ")].concat())
            .replace('\0', " ");
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if (text.contains(&folder) || cwd.starts_with(lab.state()))
            && entry.file_name() != *std::process::id().to_string()
        {
            found.push(text);
        }
    }
    found
}

#[track_caller]
fn check_gone(lab: &Lab, before: &BTreeSet<String>, what: &str) {
    lab.weft(&["down"])
        .unwrap_or_else(|error| panic!("down after {what}: {error:#}"));
    eventually(SOON, "every process is gone", || {
        let left = processes(lab);
        ensure!(left.is_empty(), "{left:#?}");
        Ok(())
    })
    .unwrap_or_else(|error| panic!("after {what}: {error:#}"));
    check_unchanged(before);
    assert!(
        !lab.state().join("run").exists(),
        "run/ is left behind after {what}"
    );
}

#[test]
fn nothing_stays_behind_after_a_crash_of_each_piece() {
    let before = machine();
    for (what, place, pattern) in [
        ("nothing", "", ""),
        ("the control plane", "control-plane", "^control-plane"),
        ("a ztunnel", "node/node-1", "^ztunnel"),
    ] {
        let lab = Lab::up(YAML).expect("the mesh starts");
        if !pattern.is_empty() {
            lab.exec(place, &["pkill", "-KILL", "-o", pattern])
                .expect("killed");
        }
        check_gone(&lab, &before, what);
    }
    for what in ["machine", "launcher"] {
        let lab = Lab::up(YAML).expect("the mesh starts");
        let machine: serde_json::Value =
            serde_json::from_str(&lab.run_file("machine.json")).expect("machine.json");
        let pid = machine[what]["pid"]
            .as_i64()
            .unwrap_or_else(|| panic!("{what} in {machine}"));
        let killed = Command::new("kill")
            .args(["-KILL", &pid.to_string()])
            .status()
            .expect("runs");
        assert!(killed.success());
        check_gone(&lab, &before, what);
    }
}

#[test]
fn a_second_up_says_so_and_refuses() {
    let lab = Lab::up(YAML).expect("the mesh starts");
    let output = lab.weft_output(&["up", "--detach"]).expect("runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{output:?}");
    assert!(text.contains("already running"), "{text}");
    assert_eq!(text.trim().lines().count(), 1, "one clear error: {text}");
    lab.peer("shop/client", &["get", "server:80"])
        .expect("the first is unharmed");
}

#[test]
fn a_crashed_piece_comes_back_and_the_mesh_with_it() {
    let lab = Lab::up(YAML).expect("the mesh starts");
    for (place, pattern) in [
        ("node/node-2", "^ztunnel"),
        ("control-plane", "^control-plane"),
    ] {
        lab.exec(place, &["pkill", "-KILL", "-o", pattern])
            .expect("killed");
        lab.eventually(SOON, "requests pass again", || {
            lab.peer("shop/client", &["get", "server:80"]).map(|_| ())
        })
        .expect("it came back");
    }
}
