//! Phases and conditions from reports.
use serde_json::json;

use super::*;

fn check(stage: &Stage, report: serde_json::Value) -> (PodPhase, bool) {
    let report: Report = serde_json::from_value(report).unwrap();
    let pod = Pod::default();
    let mut status = PodStatus::default();
    update(&mut status, &pod, stage, &report, "now");
    let ready = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.is_true());
    (status.phase.unwrap(), ready)
}

fn container(state: serde_json::Value, ready: bool) -> serde_json::Value {
    json!({"name": "c", "ready": ready, "restartCount": 0, "state": state})
}

#[test]
fn a_pod_is_ready_when_all_its_containers_are() {
    let running = json!({"running": {}});
    let report =
        |ready| json!({"initialized": true, "containers": [container(running.clone(), ready)]});
    assert_eq!(
        check(&Stage::Running, report(true)),
        (PodPhase::Running, true)
    );
    assert_eq!(
        check(&Stage::Running, report(false)),
        (PodPhase::Running, false)
    );
    assert_eq!(
        check(&Stage::Preparing, report(true)),
        (PodPhase::Pending, false)
    );
}

#[test]
fn a_failing_probe_says_why() {
    let report: Report = serde_json::from_value(json!({
        "initialized": true,
        "containers": [container(json!({"running": {}}), false)],
        "failingProbes": {"c": "readiness probe failed: answered 503", "gone": "x"},
    }))
    .unwrap();
    let mut pod = Pod::default();
    let mut status = PodStatus::default();
    update(&mut status, &pod, &Stage::Running, &report, "now");
    pod.status = status;
    assert_eq!(
        summary(&pod).as_deref(),
        Some("containers with unready status: [c]; c: readiness probe failed: answered 503")
    );
}

#[test]
fn a_container_that_waits_keeps_its_pod_pending() {
    let report = json!({"initialized": true, "containers": [container(json!({"waiting": {"reason": "NoCommand"}}), false)]});
    assert_eq!(check(&Stage::Running, report), (PodPhase::Pending, false));
}

#[test]
fn a_finished_pod_has_succeeded_only_if_every_container_has() {
    let report = |code: i32| json!({"initialized": true, "finished": true, "containers": [container(json!({"terminated": {"exitCode": code}}), false)]});
    assert_eq!(check(&Stage::Running, report(0)).0, PodPhase::Succeeded);
    assert_eq!(check(&Stage::Running, report(3)).0, PodPhase::Failed);
}

#[test]
fn a_failed_init_container_fails_the_pod() {
    let report = json!({
        "finished": true,
        "initContainers": [container(json!({"terminated": {"exitCode": 1}}), false)],
        "containers": [container(json!({"waiting": {}}), false)],
    });
    assert_eq!(check(&Stage::Running, report).0, PodPhase::Failed);
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let pod = Pod::default();
    let mut status = PodStatus::default();
    update(
        &mut status,
        &pod,
        &Stage::Preparing,
        &Report::default(),
        "first",
    );
    update(
        &mut status,
        &pod,
        &Stage::Preparing,
        &Report::default(),
        "second",
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.last_transition_time.as_deref() == Some("first"))
    );
}

#[test]
fn what_fits_nowhere_says_so_in_its_status() {
    let pod = Pod::default();
    let mut status = PodStatus::default();
    update(
        &mut status,
        &pod,
        &Stage::Unschedulable("no node".into()),
        &Report::default(),
        "now",
    );
    assert_eq!(status.reason, "Unschedulable");
    assert!(summary(&Pod { status, ..pod }).unwrap().contains("no node"));
}
