//! The demo: what a person sees first, and that nothing of it stays.

use std::process::{Command, Stdio};

use tests::lab::{SOON, program};

use crate::teardown::{check_unchanged, machine};

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
    check_unchanged(&before);
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
    tests::lab::eventually(SOON, "the screen is shown", || {
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
    let mut status = None;
    tests::lab::eventually(SOON, "it ends", || {
        status = child.try_wait()?;
        anyhow::ensure!(status.is_some(), "it runs");
        Ok(())
    })
    .expect("ends");
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    assert!(!state.join("run").exists());
}
