//! A node whose clock is wrong, or jumps, or stands still.

use std::fs;
use std::io::Write;
use std::time::Duration;

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::{BACK, Running, YAML, still_serves, warm};

/// Of a ztunnel that has asked for another certificate, in vain while only its own clock is ahead.
const RENEWED: &str = "the CA answered with an expired certificate";

/// Node 2 believes what a file says about its clock. Only the wall's: timers are monotonic.
fn mesh(clock: &std::path::Path) -> Lab {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1",
        std::env::consts::ARCH
    );
    assert!(
        fs::exists(&library).expect("readable"),
        "{library} is missing: make deps installs it"
    );
    let prelude = format!(
        "export POOL_UNUSED_RELEASE_TIMEOUT=500ms\n\
         if [ \"$NODE_NAME\" = node-2 ]; then\n\
         export LD_PRELOAD={library} FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME_NO_CACHE=1\n\
         export FAKETIME_TIMESTAMP_FILE={}\nfi",
        clock.display()
    );
    Lab::up_wrapped(YAML, &prelude).expect("the mesh starts")
}

#[test]
fn a_clock_may_be_wrong_by_minutes_and_jump_ahead_by_less_than_half_a_certificate_s_life() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    let set = |offset: &str| fs::write(&clock, offset).expect("written");
    set("-5m");
    let lab = mesh(&clock);
    // Its certificates come from a clock that is five minutes ahead of its own.
    let baseline = warm(&lab);
    let mut held = Running::start(&lab, "shop/client", &["hold", "server:9000"]);
    assert_eq!(held.line(), "open");
    for offset in ["+5m", "+25m", "+0"] {
        set(offset);
        // New tunnels too: the old ones are idle for longer than they are kept.
        std::thread::sleep(Duration::from_millis(800));
        still_serves(&lab);
    }
    stops(held);
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// A jump by as much as a certificate lives: whichever way, what others hold is not valid at this
/// time, which is refused and said. A clock that is right again is enough.
#[test]
fn a_clock_that_is_an_hour_off_is_named_and_heals_by_being_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    let set = |offset: &str| fs::write(&clock, offset).expect("written");
    set("+0");
    let lab = mesh(&clock);
    let baseline = warm(&lab);
    let mut held = Running::start(&lab, "shop/client", &["hold", "server:9000"]);
    assert_eq!(held.line(), "open");
    for (offset, ahead, reason, [side, consequence]) in [
        (
            "-1h",
            -3600.0,
            "not valid yet",
            ["behind", "certificates are taken for not valid yet there"],
        ),
        (
            "+1h",
            3600.0,
            "CERT_EXPIRED: it was valid until",
            ["ahead of", "certificates are taken for expired there"],
        ),
    ] {
        set(offset);
        lab.eventually(BACK, "the handshake fails", || {
            let output = lab.peer_output("shop/neighbour", &["get", "server:80"])?;
            ensure!(!output.status.success(), "{output:?}");
            let log = lab.run_file("nodes/node-2/ztunnel.log");
            ensure!(log.contains(reason), "{log}");
            Ok(())
        })
        .expect("refused");
        let status = lab.weft(&["status"]).expect("answers");
        let clocks = || status.lines().filter(|line| line.contains("the clock of"));
        let is_named = |line: &str| {
            ["node-2", side, consequence]
                .iter()
                .all(|part| line.contains(part))
        };
        assert!(clocks().count() == 1 && clocks().all(is_named), "{status}");
        let skew = |node| lab.metric(node, "weft_clock_skew_seconds").expect("told");
        let (right, wrong) = (skew("node-1"), skew("node-2"));
        assert!(
            right == 0.0 && (wrong - ahead).abs() < SOON.as_secs_f64(),
            "{right} {wrong}"
        );
        if ahead > 0.0 {
            // As when the machine has slept for an hour; whatever the clock is, new ones are asked for.
            lab.logged("nodes/node-2/ztunnel.log", RENEWED)
                .expect("renewal is tried, though it is not due by a clock that stood still");
        }
        set("+0");
        lab.eventually(BACK, "the mesh works again", || {
            lab.peer("shop/neighbour", &["get", "server:80"])
                .map(|_| ())
        })
        .expect("healed");
        let status = lab.weft(&["status"]).expect("answers");
        assert!(!status.contains("the clock of"), "{status}");
    }
    // None of that has touched what was open.
    stops(held);
    still_serves(&lab);
    baseline.awaited(&lab, BACK).expect("back at rest");
}

/// What has been open all the while ends when it is told to.
fn stops(mut held: Running) {
    held.input().write_all(b"stop\n").expect("written");
    assert!(held.line().starts_with("stopped"));
}
