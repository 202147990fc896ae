//! Sequences of requests, and what they must lead to.

use super::*;
use crate::inpod::netns::NetnsId;
use crate::proxy::{PodSpec, Served, WorkloadInfo};

fn pod(uid: &str, netns: u64) -> Pod {
    Pod {
        spec: PodSpec {
            uid: uid.into(),
            info: WorkloadInfo {
                name: uid.into(),
                namespace: "shop".into(),
                service_account: "default".into(),
            },
            netns: None,
            served: Served::Everything,
        },
        search_domains: Vec::new(),
        netns_id: NetnsId::for_tests(netns),
    }
}

enum Ask {
    Connect,
    Disconnect,
    Add(&'static str, u64),
    /// An Add whose start fails.
    Fail(&'static str),
    /// One that the former process can't serve either.
    Never(&'static str),
    Keep(&'static str),
    Delete(&'static str),
    SnapshotSent,
}
use Ask::{Add, Connect, Delete, Disconnect, Fail, Keep, Never, SnapshotSent};

/// Plays the sequence and checks what happened at each ask, then (served, pending, ready).
fn check(asks: &[(Ask, &str)], end: (usize, usize, bool)) {
    check_with(Roster::new(false), asks, end);
}

/// The same, where another process serves pods until this one is ready.
fn check_taking_over(asks: &[(Ask, &str)], end: (usize, usize, bool)) {
    check_with(Roster::new(true), asks, end);
}

fn check_with(mut roster: Roster, asks: &[(Ask, &str)], end: (usize, usize, bool)) {
    for (index, (ask, expected)) in asks.iter().enumerate() {
        let fails = |holds_up| {
            let reason = "port in use".to_owned();
            Err(NotServed { reason, holds_up })
        };
        let (request, outcome) = match ask {
            Connect => {
                roster.connected();
                continue;
            }
            Disconnect => {
                roster.disconnected();
                continue;
            }
            Add(uid, netns) => (Request::Add(pod(uid, *netns)), Ok(())),
            Fail(uid) => (Request::Add(pod(uid, 1)), fails(true)),
            Never(uid) => (Request::Add(pod(uid, 1)), fails(false)),
            Keep(uid) => (Request::Keep((*uid).into()), Ok(())),
            Delete(uid) => (Request::Delete((*uid).into()), Ok(())),
            SnapshotSent => (Request::SnapshotSent, Ok(())),
        };
        let happened = match roster.request(request) {
            Err(error) => format!("error: {error}"),
            Ok(Step::Nothing) => "nothing".to_owned(),
            Ok(Step::Start(pod)) => {
                let text = format!("start {}", pod.spec.uid);
                roster.started(pod, &outcome);
                text
            }
            Ok(Step::Replace(pod)) => {
                let text = format!("replace {}", pod.spec.uid);
                roster.started(pod, &outcome);
                text
            }
            Ok(Step::Stop(uids)) => format!("stop {}", uids.join(" ")),
        };
        assert_eq!(&happened, expected, "ask {index}");
    }
    let (served, pending) = roster.counts();
    assert_eq!((served, pending, roster.is_ready()), end);
}

#[test]
fn ready_only_once_the_snapshot_is_complete() {
    check(&[(Connect, "")], (0, 0, false));
    check(&[(Connect, ""), (SnapshotSent, "nothing")], (0, 0, true));
    check(
        &[
            (Connect, ""),
            (Add("a", 1), "start a"),
            (SnapshotSent, "nothing"),
            (Disconnect, ""),
        ],
        (1, 0, false),
    );
}

#[test]
fn a_snapshot_drops_what_it_does_not_name() {
    check(
        &[
            (Connect, ""),
            (Add("a", 1), "start a"),
            (Add("b", 2), "start b"),
            (Add("c", 3), "start c"),
            (SnapshotSent, "nothing"),
            (Disconnect, ""),
            (Connect, ""),
            (Add("a", 1), "nothing"),
            (Keep("b"), "nothing"),
            (SnapshotSent, "stop c"),
        ],
        (2, 0, true),
    );
}

#[test]
fn a_pod_in_another_namespace_is_replaced() {
    check(
        &[
            (Connect, ""),
            (SnapshotSent, "nothing"),
            (Add("a", 1), "start a"),
            (Add("a", 1), "nothing"),
            (Add("a", 2), "replace a"),
            (Add("a", 2), "nothing"),
        ],
        (1, 0, true),
    );
}

#[test]
fn deletions_wait_for_the_snapshot() {
    check(
        &[
            (Connect, ""),
            (Add("a", 1), "start a"),
            (Delete("a"), "nothing"),
            (SnapshotSent, "stop a"),
            (Delete("a"), "nothing"),
            (Add("a", 1), "start a"),
            (Delete("a"), "stop a"),
        ],
        (0, 0, true),
    );
}

#[test]
fn failures_wait_and_hold_readiness_back() {
    check(
        &[
            (Connect, ""),
            (Fail("a"), "start a"),
            (SnapshotSent, "nothing"),
        ],
        (0, 1, false),
    );
    check(
        &[
            (Connect, ""),
            (SnapshotSent, "nothing"),
            (Fail("a"), "start a"),
            (Add("a", 1), "start a"),
        ],
        (1, 0, true),
    );
    check(
        &[
            (Connect, ""),
            (SnapshotSent, "nothing"),
            (Fail("a"), "start a"),
            (Delete("a"), "nothing"),
        ],
        (0, 0, true),
    );
}

#[test]
fn what_is_pending_waits_for_as_long_as_the_agent_names_it() {
    check(
        &[
            (Connect, ""),
            (Fail("a"), "start a"),
            (Fail("b"), "start b"),
            (SnapshotSent, "nothing"),
            (Disconnect, ""),
            (Connect, ""),
            (Keep("a"), "nothing"),
            (SnapshotSent, "nothing"),
        ],
        (0, 1, false),
    );
}

#[test]
fn what_the_protocol_forbids_is_an_error() {
    check(
        &[
            (Connect, ""),
            (SnapshotSent, "nothing"),
            (SnapshotSent, "error: SnapshotSent twice on one connection"),
        ],
        (0, 0, true),
    );
    check(
        &[
            (Connect, ""),
            (SnapshotSent, "nothing"),
            (Keep("a"), "error: KeepWorkload after the snapshot"),
        ],
        (0, 0, true),
    );
}

#[test]
fn nothing_is_taken_over_without_a_pod_that_is_to_be_kept() {
    let kept = || {
        vec![
            (Connect, ""),
            (Keep("a"), "nothing"),
            (SnapshotSent, "nothing"),
        ]
    };
    check_taking_over(&kept(), (0, 0, false));
    for (ask, happened, served) in [(Add("a", 1), "start a", 1), (Delete("a"), "nothing", 0)] {
        let mut asks = kept();
        asks.push((ask, happened));
        check_taking_over(&asks, (served, 0, true));
    }
    // Nobody else could have it.
    check(&kept(), (0, 0, true));
}

#[test]
fn what_is_to_be_kept_and_is_not_here_is_missing() {
    for takes_over in [false, true] {
        let mut roster = Roster::new(takes_over);
        roster.connected();
        for uid in ["a", "b", "c"] {
            let request = Request::Keep(uid.into());
            assert!(matches!(roster.request(request), Ok(Step::Nothing)));
        }
        roster.started(pod("c", 1), &Ok(()));
        let missing = |roster: &Roster| roster.missing().cloned().collect::<Vec<_>>();
        assert!(matches!(
            roster.request(Request::SnapshotSent),
            Ok(Step::Nothing)
        ));
        assert_eq!(missing(&roster), ["a".into(), "b".into()]);
        assert_eq!(roster.is_ready(), !takes_over);
        let _ = roster.request(Request::Delete("a".into()));
        let _ = roster.request(Request::Add(pod("b", 1)));
        assert!(missing(&roster).is_empty());
        assert!(roster.is_ready());
    }
}

#[test]
fn what_nobody_can_serve_holds_nothing_up() {
    let asks = [
        (Connect, ""),
        (Never("a"), "start a"),
        (SnapshotSent, "nothing"),
    ];
    check_taking_over(&asks, (0, 1, true));
}
