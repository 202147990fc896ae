//! Opting in and out by label, live: no restart, no dropped connection.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::lab::scale::scaled;
use tests::lab::{Lab, SOON};

use crate::shop::own;

/// A second at full size, where the promise is measured: a busy machine keeps none.
fn within() -> Duration {
    scaled(SOON, Duration::from_secs(1))
}

fn captured(lab: &Lab, pod: &str) -> Result<bool> {
    let pod = lab.pod(pod)?;
    Ok(pod["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled")
}

fn namespace(mode: Option<&str>) -> String {
    let labels = mode.map_or_else(String::new, |mode| {
        format!(", labels: {{istio.io/dataplane-mode: {mode}}}")
    });
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: late{labels}}}\n")
}

const LATE: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: late, labels: {app: late}}
spec:
  nodeName: node-2
  containers:
    - {name: peer, command: [peer, serve, --name, late]}
---
apiVersion: v1
kind: Service
metadata: {name: late, namespace: late}
spec:
  selector: {app: late}
  ports:
    - {name: http, port: 80, targetPort: 8080}
    - {name: tcp-echo, port: 9000}
";

#[test]
fn a_label_captures_and_releases_running_pods_without_dropping_connections() {
    let lab = own();
    lab.write("namespace.yaml", &namespace(None))
        .expect("written");
    lab.write("late.yaml", LATE).expect("written");
    lab.eventually(SOON, "late answers", || {
        lab.peer("plain/outsider", &["get", "late.late:80"])
            .map(|_| ())
    })
    .expect("runs");
    let started = lab.pod("late/late").expect("pod")["status"]["startTime"].clone();

    // Both directions: into the pod from outside and from the mesh, and out of it.
    let mut held: Vec<_> = [
        ("plain/outsider", "late.late:9000"),
        ("shop/client", "late.late:9000"),
        ("late/late", "server.shop:9000"),
    ]
    .into_iter()
    .map(|(from, to)| {
        let mut child = lab.exec_spawn(from, &["peer", "hold", to]).expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "open");
        (child, lines, format!("{from} to {to}"))
    })
    .collect();

    lab.write("namespace.yaml", &namespace(Some("ambient")))
        .expect("written");
    lab.eventually(within(), "late is captured", || {
        ensure!(captured(&lab, "late/late")?, "not captured");
        Ok(())
    })
    .expect("captured");
    lab.eventually(within(), "the client's node knows", || {
        let dump = lab.config_dump("node-1")?;
        let workloads = dump["workloads"].as_array().cloned().unwrap_or_default();
        ensure!(
            workloads
                .iter()
                .any(|w| w["name"] == "late" && w["protocol"] == "HBONE"),
            "{workloads:?}"
        );
        Ok(())
    })
    .expect("HBONE");
    lab.peer("shop/client", &["get", "late.late:80"])
        .expect("over HBONE");
    lab.logged(
        "nodes/node-2/ztunnel.log",
        "spiffe://cluster.local/ns/late/sa/default",
    )
    .expect("logged");

    lab.write("namespace.yaml", &namespace(None))
        .expect("written");
    lab.eventually(within(), "late is released", || {
        ensure!(!captured(&lab, "late/late")?, "still captured");
        Ok(())
    })
    .expect("released");
    lab.eventually(within(), "the client's node knows", || {
        let dump = lab.config_dump("node-1")?;
        let workloads = dump["workloads"].as_array().cloned().unwrap_or_default();
        ensure!(
            workloads
                .iter()
                .any(|w| w["name"] == "late" && w["protocol"] == "TCP"),
            "{workloads:?}"
        );
        Ok(())
    })
    .expect("plain again");
    lab.peer("shop/client", &["get", "late.late:80"])
        .expect("in plaintext");
    lab.peer("late/late", &["get", "server.shop:80"])
        .expect("in plaintext");

    assert_eq!(
        lab.pod("late/late").expect("pod")["status"]["startTime"],
        started,
        "not restarted"
    );
    for (child, lines, what) in &mut held {
        child
            .stdin
            .take()
            .expect("piped")
            .write_all(b"stop\n")
            .expect("written");
        let line = lines.next().expect("a line").expect("text");
        assert!(line.starts_with("stopped"), "{what}: {line}");
        let _ = child.wait();
    }
}

#[test]
fn a_pod_can_opt_out_of_its_namespace() {
    let lab = own();
    lab.write(
        "hermit.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: hermit, namespace: shop, labels: {istio.io/dataplane-mode: none}}\nspec:\n  containers: [{name: peer, command: [peer, serve, --name, hermit]}]\n",
    )
    .expect("written");
    lab.eventually(SOON, "the hermit is ready", || {
        lab.pod("shop/hermit")?;
        lab.ready()
    })
    .expect("ready");
    assert!(!captured(&lab, "shop/hermit").expect("pod"));
    assert!(captured(&lab, "shop/client").expect("pod"));
    lab.peer("shop/hermit", &["get", "server:80"])
        .expect("it still reaches services");
}
