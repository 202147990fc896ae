//! Connections that are not HTTP, behind a waypoint.

use anyhow::{Context, Result, ensure};
use tests::lab::{Lab, SOON};

use crate::shop::shared;

/// A service of two pods, of which the route leads to one or the other by weight.
const OBJECTS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: raw-v1, namespace: shop, labels: {app: raw, version: v1}}
spec: {containers: [{name: raw, command: [peer, serve, --name, raw-v1]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: raw-v2, namespace: shop, labels: {app: raw, version: v2}}
spec: {containers: [{name: raw, command: [peer, serve, --name, raw-v2]}]}
---
apiVersion: v1
kind: Service
metadata: {name: raw, namespace: shop}
spec:
  selector: {app: raw, version: v1}
  ports: [PORTS]
---
apiVersion: v1
kind: Service
metadata: {name: raw-v2, namespace: shop}
spec:
  selector: {app: raw, version: v2}
  ports: [PORTS]
---
";

/// A port that says that it is TCP, and one of which nothing is said.
const PORTS: &str = "{name: tcp-line, port: 8080}, {name: tcp-banner, port: 9001}, \
                     {name: tcp-sink, port: 9002}, {name: tcp-source, port: 9003}, \
                     {name: unsaid, port: 19001, targetPort: 9001}";

fn route(weights: [u32; 2]) -> String {
    let [v1, v2] = weights;
    let rule = |port: u16| {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {{name: raw-{port}, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: raw, port: {port}}}]
  rules:
  - backendRefs:
    - {{name: raw, port: {port}, weight: {v1}}}
    - {{name: raw-v2, port: {port}, weight: {v2}}}
"
        )
    };
    let rules = [8080, 9001, 9002, 9003, 19001].map(rule);
    format!("{}{}", OBJECTS.replace("PORTS", PORTS), rules.join("---\n"))
}

/// Waits until only this pod answers.
fn until(lab: &Lab, pod: &str) {
    lab.eventually(SOON, "the route leads there", || {
        for _ in 0..5 {
            let answer = lab.peer("shop/client", &["get", "raw.shop:8080"])?;
            ensure!(answer.starts_with(pod), "{answer}");
        }
        Ok(())
    })
    .expect("routed");
}

/// Connections to the service that its waypoint has counted.
fn counted(lab: &Lab) -> Result<f64> {
    let label = "gateway.networking.k8s.io/gateway-name";
    let pods = lab.pods()?;
    let waypoint = pods.iter().find(|pod| {
        pod["metadata"]["namespace"] == "shop" && !pod["metadata"]["labels"][label].is_null()
    });
    let name = waypoint.context("no waypoint")?["metadata"]["name"].to_string();
    let pod = format!("shop/{}", name.trim_matches('"'));
    let page = ["peer", "http", "127.0.0.1:15020", "/stats/prometheus"];
    let text = lab.exec(&pod, &page)?;
    let series = text.lines().filter(|line| {
        line.starts_with("istio_tcp_connections_opened_total{reporter=\"waypoint\"")
            && line.contains("destination_service_name=\"raw\"")
    });
    series
        .map(|line| Ok(line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?))
        .sum()
}

#[test]
fn connections_go_by_weight_and_whatever_they_speak_passes() {
    let lab = shared();
    lab.write("raw.yaml", &route([1, 0])).expect("written");
    until(lab, "raw-v1");
    lab.write("raw.yaml", &route([0, 1])).expect("written");
    until(lab, "raw-v2");
    let before = counted(lab).expect("counters");
    let peer = |arguments: &[&str]| lab.peer("shop/client", arguments).expect("passes");
    // The server begins, on a port that says what it speaks and on one that does not.
    for port in ["9001", "19001"] {
        let answer = peer(&["banner", &format!("raw.shop:{port}")]);
        assert!(answer.contains("raw-v2"), "{answer}");
    }
    // One direction ends long before the other; neither loses a byte.
    peer(&["upload", "raw.shop:9002", "5000000"]);
    peer(&["download", "raw.shop:9003", "5000000"]);
    lab.eventually(SOON, "all are counted", || {
        let counted = counted(lab)? - before;
        ensure!(counted == 4.0, "{counted}");
        Ok(())
    })
    .expect("counted");
    lab.write("raw.yaml", &route([1, 1])).expect("written");
    lab.eventually(SOON, "both take their share", || {
        let answers: Vec<String> = (0..20)
            .map(|_| lab.peer("shop/client", &["get", "raw.shop:8080"]))
            .collect::<Result<_>>()?;
        for pod in ["raw-v1", "raw-v2"] {
            ensure!(
                answers.iter().any(|one| one.starts_with(pod)),
                "{answers:?}"
            );
        }
        Ok(())
    })
    .expect("shared");
}
