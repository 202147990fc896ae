//! Enrolment with real namespaces and a ztunnel that only acknowledges.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use prost::Message as _;
use proto::zds::{Ack, Version, WorkloadRequest, WorkloadResponse, ZdsHello, workload_response};
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use super::*;
use crate::netns;
use crate::rules::Exclusions;

fn pod(uid: &str) -> Pod {
    Pod {
        uid: uid.into(),
        name: format!("pod-{uid}"),
        namespace: "shop".into(),
        service_account: "web".into(),
        search_domains: Vec::new(),
        options: Options::default(),
    }
}

/// A namespace with loopback up, as a pod's is.
async fn namespace() -> OwnedFd {
    let namespace = netns::create().unwrap();
    let links = netns::netlink(&namespace).unwrap().link();
    let up = rtnetlink::LinkUnspec::new_with_index(1).up().build();
    links.set(up).execute().await.unwrap();
    namespace
}

fn captured(namespace: &OwnedFd) -> bool {
    nft(namespace, &["list", "ruleset"]).contains("254:15001")
}

fn nft(namespace: &OwnedFd, arguments: &[&str]) -> String {
    let run = || std::process::Command::new("nft").args(arguments).output();
    let output = netns::run_blocking(namespace, run).unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Acknowledges `answers` in turn, then everything; ends with its connection.
fn ztunnel(folder: &TempDir, answers: &'static [&'static str]) -> Arc<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let path = folder.path().join("ztunnel.sock");
    socket.connect(&SockAddr::unix(path).unwrap()).unwrap();
    let socket = Arc::new(socket);
    let stream = socket.clone();
    std::thread::spawn(move || {
        let hello = ZdsHello {
            version: Version::V1.into(),
        };
        (&*stream).write_all(&hello.encode_to_vec()).unwrap();
        let mut answers = answers.iter();
        let mut buffer = [0; 2048];
        while let Ok(length @ 1..) = (&*stream).read(&mut buffer) {
            WorkloadRequest::decode(&buffer[..length]).unwrap();
            let response = WorkloadResponse {
                payload: Some(workload_response::Payload::Ack(Ack {
                    error: answers.next().copied().unwrap_or_default().into(),
                })),
            };
            if (&*stream).write_all(&response.encode_to_vec()).is_err() {
                return;
            }
        }
    });
    socket
}

async fn until_enabled(agent: &Agent, uid: &str) {
    let mut changed = agent.changed();
    let enabled = async {
        while agent.enrolment(uid) != Some(Enrolment::Enabled) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), enabled)
        .await
        .expect("the pod is enabled in time");
}

#[tokio::test]
async fn a_pod_is_captured_and_acknowledged_then_released() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(&folder.path().join("ztunnel.sock")).unwrap();
    let netns = namespace().await;
    let _ztunnel = ztunnel(&folder, &[]);
    agent
        .enrol(pod("a"), netns.try_clone().unwrap())
        .await
        .unwrap();
    until_enabled(&agent, "a").await;
    assert!(captured(&netns));
    assert!(agent.ztunnel_connected());

    agent.unenrol("a").await;
    assert!(!captured(&netns));
    assert_eq!(agent.enrolment("a"), None);
    assert!(agent.status().pods.is_empty());
    agent.unenrol("a").await;

    agent
        .enrol(pod("a"), netns.try_clone().unwrap())
        .await
        .unwrap();
    until_enabled(&agent, "a").await;
    assert!(captured(&netns));
}

#[tokio::test]
async fn an_enrolled_pod_is_captured_in_another_way_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(&folder.path().join("ztunnel.sock")).unwrap();
    let netns = namespace().await;
    let _ztunnel = ztunnel(&folder, &[]);
    let options = Options {
        exclude: Exclusions {
            inbound_ports: vec![9001],
            ..Exclusions::default()
        },
        ..Options::default()
    };
    // Not a pod of ours.
    agent.adjust("a", options.clone()).await.unwrap();
    assert!(!captured(&netns));

    agent
        .enrol(pod("a"), netns.try_clone().unwrap())
        .await
        .unwrap();
    until_enabled(&agent, "a").await;
    agent.adjust("a", options).await.unwrap();
    let excluded = || nft(&netns, &["list", "ruleset"]).contains("9001");
    assert!(captured(&netns) && excluded());
    let mut verifier = apply::Verifier::default();
    watch_over::repair_all(&agent.inner, &mut verifier).await;
    assert!(excluded());
    assert_eq!(agent.status().pods[0].drift, None);

    agent.adjust("a", Options::default()).await.unwrap();
    assert!(captured(&netns) && !excluded());
}

#[tokio::test]
async fn without_ztunnel_a_pod_is_captured_and_pending_until_one_comes() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(&folder.path().join("ztunnel.sock")).unwrap();
    let netns = namespace().await;
    let enrolment = agent.enrol(pod("a"), netns.try_clone().unwrap()).await;
    assert!(
        matches!(enrolment, Ok(Enrolment::Pending { .. })),
        "{enrolment:?}"
    );
    assert!(captured(&netns));
    let first = ztunnel(&folder, &[]);
    until_enabled(&agent, "a").await;

    first.shutdown(std::net::Shutdown::Both).unwrap();
    let mut changed = agent.changed();
    while agent.ztunnel_connected() {
        changed.changed().await.unwrap();
    }
    assert_eq!(agent.enrolment("a"), Some(Enrolment::Enabled));
}

#[tokio::test]
async fn a_pod_that_ztunnel_refuses_is_offered_again() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(&folder.path().join("ztunnel.sock")).unwrap();
    let netns = namespace().await;
    // The snapshot holds the pod; its first three offers fail.
    agent
        .enrol(pod("a"), netns.try_clone().unwrap())
        .await
        .unwrap();
    let _ztunnel = ztunnel(&folder, &["not yet", "", "not yet", "not yet"]);
    until_enabled(&agent, "a").await;
}

#[tokio::test]
async fn a_pod_whose_rules_fail_is_not_enrolled() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(&folder.path().join("ztunnel.sock")).unwrap();
    let not_a_namespace: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let error = agent.enrol(pod("a"), not_a_namespace).await.unwrap_err();
    assert!(matches!(error, apply::Error::Namespace(_)), "{error}");
    assert_eq!(agent.enrolment("a"), None);
}

#[tokio::test]
async fn rules_that_the_pod_changed_are_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let agent = Agent::new(&folder.path().join("ztunnel.sock")).unwrap();
    let netns = namespace().await;
    agent
        .enrol(pod("a"), netns.try_clone().unwrap())
        .await
        .unwrap();
    nft(&netns, &["flush", "ruleset"]);
    assert!(!captured(&netns));
    watch_over::repair_all(&agent.inner, &mut Default::default()).await;
    assert!(captured(&netns));
    let drift = agent.status().pods.remove(0).drift;
    assert!(drift.unwrap().ends_with("(repaired)"));
    let mut told = Exposition::default();
    agent.collector()(&mut told);
    let told = told.into_text();
    for line in [
        "weft_redirect_rules_changed_total{outcome=\"repaired\"} 1\n",
        "weft_redirect_rules_changed_total{outcome=\"failed\"} 0\n",
        "ztunnel_connected 0\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
}
