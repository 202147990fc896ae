//! The demo: what a person sees first, and that nothing of it stays.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::lab::program;

fn machine() -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for command in [
        &["ip", "-o", "link"][..],
        &["ip", "route", "show", "table", "all"],
        &["nft", "list", "ruleset"],
        &["ip", "netns", "list"],
        &["cat", "/proc/mounts"],
    ] {
        let output = Command::new(command[0])
            .args(&command[1..])
            .output()
            .expect("runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        seen.extend(text.lines().map(|line| format!("{command:?}: {line}")));
    }
    seen
}

fn demo(state: &std::path::Path) -> Command {
    let mut command = Command::new(program("weft"));
    command
        .arg("--state")
        .arg(state)
        .arg("demo")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

#[test]
fn the_demo_shows_an_encrypted_edge_and_a_refusal_and_leaves_nothing() {
    let before = machine();
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let output = demo(&state).arg("--once").output().expect("runs");
    let screen = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{screen}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for wanted in [
        "Encrypted: productpage calls details",
        "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage",
        "key exchange X25519MLKEM768",
        ", 0 with a word of the page in them",
        "Refused: details calls ratings",
        "why    denied: ALLOW policies apply and none matched",
        "made   waypoint bookinfo/waypoint is in front of Service bookinfo/reviews",
        "HTTPRoute bookinfo/reviews-canary is attached to it",
        "Refused: productpage asks reviews to DELETE /reviews/0",
        "denied by AuthorizationPolicy bookinfo/reviews-are-read-only",
        "answered 403",
        "rule 1 matches to.operation.notMethods",
    ] {
        assert!(screen.contains(wanted), "{wanted:?} is not in:\n{screen}");
    }
    assert!(
        !screen.contains('\u{1b}'),
        "colours where nobody sees them:\n{screen}"
    );
    assert!(!state.join("run").exists());
    let left: Vec<_> = machine().difference(&before).cloned().collect();
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn ctrl_c_ends_the_demo() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    let screen = folder.path().join("screen");
    let mut child = demo(&state)
        .stdout(std::fs::File::create(&screen).expect("made"))
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    tests::lab::eventually(Duration::from_secs(60), "the screen is shown", || {
        let text = std::fs::read_to_string(&screen)?;
        anyhow::ensure!(text.contains("Ctrl-C stops it"), "{text}");
        Ok(())
    })
    .expect("shown");
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .expect("runs");
    assert!(sent.success());
    let began = Instant::now();
    let status = child.wait().expect("ends");
    assert!(status.success(), "{status}");
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert!(!state.join("run").exists());
}
