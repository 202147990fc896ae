//! Deployments and probes: replicas, a new template, who gets traffic and who doesn't.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tests::lab::{Lab, SOON};

fn yaml(replicas: u32, version: &str, readiness: &str) -> String {
    format!(
        "\
apiVersion: v1
kind: Namespace
metadata: {{name: shop, labels: {{istio.io/dataplane-mode: ambient}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client, namespace: shop}}
spec:
  containers: [{{name: client, command: [sleep, infinity]}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      initContainers:
        - {{name: first, command: [sh, -c, 'echo first']}}
      containers:
        - name: web
          workingDir: /tmp
          env:
            - {{name: VERSION, value: {version}}}
            - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
          # Goes on for a second when it is to stop, until its clients have heard of that.
          command:
            - sh
            - -c
            - |
              echo $VERSION on $NODE in $PWD
              peer serve --name $VERSION &
              trap 'sleep 1; kill $!; exit' TERM
              wait
          readinessProbe: {{{readiness}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
"
    )
}

fn serving(lab: &Lab) -> Result<Vec<String>> {
    let names = lab.weft(&["get", "pods", "-n", "shop", "-l", "app=web", "-o", "name"])?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// Waits until the Deployment says so many replicas are ready and nothing else is left of it.
#[track_caller]
fn wait_for(lab: &Lab, replicas: usize) {
    lab.eventually(SOON, "the replicas are ready", || {
        let line = lab.weft(&["get", "deployment", "web", "-n", "shop"])?;
        ensure!(line.contains(&format!("{replicas}/{replicas}")), "{line}");
        let pods = serving(lab)?;
        ensure!(pods.len() == replicas, "{pods:?}");
        lab.ready()
    })
    .expect("ready");
}

#[test]
fn replicas_follow_their_number_and_template() {
    let lab = Lab::up(&yaml(3, "v1", "tcpSocket: {port: 8080}")).expect("the mesh starts");
    wait_for(&lab, 3);
    let nodes: BTreeSet<_> = lab
        .pods()
        .expect("pods")
        .iter()
        .filter(|pod| pod["metadata"]["labels"]["app"] == "web")
        .map(|pod| pod["spec"]["nodeName"].to_string())
        .collect();
    assert_eq!(nodes.len(), 2, "spread over the nodes");
    let first = serving(&lab).expect("names");
    let log = lab
        .weft(&["logs", "-n", "shop", first[0].trim_start_matches("pod/")])
        .expect("a log");
    assert!(log.contains("first\n"), "{log}");
    assert!(
        log.contains("v1 on node-") && log.contains("in /tmp"),
        "{log}"
    );

    // One of them is as good as another.
    for target in ["deploy/web", "svc/web"] {
        let log = lab.weft(&["logs", "-n", "shop", target]).expect("a log");
        assert!(log.contains("v1 on node-"), "{log}");
        let command = ["exec", "-n", "shop", target, "--", "printenv", "VERSION"];
        assert_eq!(lab.weft(&command).expect("it runs").trim(), "v1");
    }

    // A new template replaces every pod, and no request fails meanwhile.
    lab.write("lab.yaml", &yaml(3, "v2", "tcpSocket: {port: 8080}"))
        .expect("written");
    lab.eventually(SOON, "v2 answers alone", || {
        let reply = lab
            .peer("shop/client", &["get", "web:80"])
            .expect("a request during the change");
        ensure!(reply.starts_with("v2 "), "{reply}");
        let now = serving(&lab)?;
        ensure!(!now.iter().any(|pod| first.contains(pod)), "{now:?}");
        Ok(())
    })
    .expect("v2");
    wait_for(&lab, 3);

    lab.write("lab.yaml", &yaml(1, "v2", "tcpSocket: {port: 8080}"))
        .expect("written");
    wait_for(&lab, 1);
    lab.remove("lab.yaml").expect("removed");
    lab.eventually(SOON, "its pods are gone with it", || {
        let pods = serving(&lab)?;
        ensure!(pods.is_empty(), "{pods:?}");
        Ok(())
    })
    .expect("gone");
}

#[test]
fn a_pod_that_is_not_ready_gets_no_traffic_until_it_is() {
    let flag = tempfile::NamedTempFile::new().expect("a file");
    let path = flag.path().display().to_string();
    let exec = format!("exec: {{command: [test, -e, {path}]}}");
    let lab = Lab::up(&yaml(1, "v1", &exec)).expect("the mesh starts");
    wait_for(&lab, 1);
    lab.peer("shop/client", &["get", "web:80"]).expect("ready");

    drop(flag);
    lab.eventually(SOON, "requests are refused", || {
        let reply = lab.peer_output("shop/client", &["get", "web:80"])?;
        ensure!(!reply.status.success(), "still served");
        Ok(())
    })
    .expect("refused");
    let status = lab.weft(&["status"]).expect("a status");
    assert!(
        status.contains("containers with unready status: [web]"),
        "{status}"
    );

    std::fs::write(&path, "").expect("written");
    wait_for(&lab, 1);
    lab.eventually(SOON, "requests pass again", || {
        lab.peer("shop/client", &["get", "web:80"]).map(|_| ())
    })
    .expect("served");
    std::fs::remove_file(&path).expect("removed");
}

#[test]
fn a_container_that_fails_its_liveness_probe_is_started_again() {
    let lab = Lab::up("").expect("the mesh starts");
    lab.write(
        "sick.yaml",
        "\
apiVersion: v1
kind: Pod
metadata: {name: sick, namespace: default}
spec:
  containers:
    - name: sick
      command: [sleep, infinity]
      livenessProbe: {tcpSocket: {port: 1}, periodSeconds: 1, failureThreshold: 1}
",
    )
    .expect("written");
    lab.eventually(SOON, "it was started again", || {
        let pod = lab.pod("default/sick")?;
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        ensure!(restarts > Some(0), "{}", pod["status"]);
        Ok(())
    })
    .expect("restarted");
}
