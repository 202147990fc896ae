//! Which endpoint is chosen: trafficDistribution, internalTrafficPolicy, whether it answers, and how much
//! it has to do.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::NAMESPACES;

fn yaml() -> String {
    let mut yaml = NAMESPACES.to_owned();
    yaml.push_str(
        "\
apiVersion: v1
kind: Node
metadata:
  name: node-1
  labels: {topology.kubernetes.io/region: north, topology.kubernetes.io/zone: a}
---
apiVersion: v1
kind: Node
metadata:
  name: node-2
  labels: {topology.kubernetes.io/region: north, topology.kubernetes.io/zone: b}
---
# Ready, for all that is known of it, and nobody listens.
apiVersion: v1
kind: Pod
metadata: {name: broken, namespace: shop, labels: {half: works}}
spec:
  nodeName: node-2
  containers:
    - name: peer
      command: [peer, watch, \"127.0.0.1:9\"]
---
apiVersion: v1
kind: Service
metadata:
  name: half
  namespace: shop
  annotations: {weft.dev/load-balancer: LEAST_REQUEST}
spec:
  selector: {half: works}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata:
  name: even
  namespace: shop
  annotations: {weft.dev/load-balancer: LEAST_REQUEST}
spec:
  selector: {app: web}
  ports: [{name: tcp, port: 9000, targetPort: 9000}]
",
    );
    for (name, namespace, node) in [
        ("client", "shop", "node-1"),
        ("client", "plain", "node-1"),
        ("near", "shop", "node-1"),
        ("far", "shop", "node-2"),
    ] {
        let app = if name == "client" { "client" } else { "web" };
        let half = if name == "near" { ", half: works" } else { "" };
        yaml.push_str(&format!(
            "\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}{half}}}}}
spec:
  nodeName: {node}
  containers:
    - name: peer
      command: [peer, serve, --name, {name}]
      readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
"
        ));
    }
    for (name, preference) in [
        ("any", "{}"),
        ("same-node", "{trafficDistribution: PreferSameNode}"),
        ("local", "{internalTrafficPolicy: Local}"),
        ("same-zone", "{trafficDistribution: PreferClose}"),
    ] {
        let preference = preference.trim_matches(['{', '}']);
        yaml.push_str(&format!(
            "\
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
  {preference}
"
        ));
    }
    yaml
}

fn servers(lab: &Lab, client: &str, service: &str) -> BTreeSet<String> {
    (0..20)
        .map(|_| {
            let target = format!("{service}.shop:80");
            let reply = lab.peer(client, &["get", &target]).expect("an answer");
            reply.split(' ').next().unwrap_or_default().to_owned()
        })
        .collect()
}

#[test]
fn endpoints_of_the_same_node_come_first_or_alone() {
    let lab = Lab::up(&yaml()).expect("the mesh starts");
    let near = BTreeSet::from(["near".to_owned()]);
    let both = BTreeSet::from(["far".to_owned(), "near".to_owned()]);
    assert_eq!(servers(&lab, "shop/client", "any"), both);
    assert_eq!(servers(&lab, "shop/client", "same-node"), near);
    assert_eq!(servers(&lab, "shop/client", "same-zone"), near);
    assert_eq!(servers(&lab, "shop/client", "local"), near);
    assert_eq!(servers(&lab, "plain/client", "local"), near, "uncaptured");
    one_that_refuses_is_passed_over_and_left_alone(&lab);

    lab.weft(&["delete", "pod", "near", "-n", "shop"])
        .expect("deleted");
    lab.eventually(SOON, "only far is left", || {
        let reply = lab.peer("shop/client", &["get", "same-node.shop:80"])?;
        ensure!(reply.starts_with("far "), "{reply}");
        let pod = lab.pod("shop/near");
        ensure!(pod.is_err(), "near is still there");
        Ok(())
    })
    .expect("a preference is only that");
    for client in ["shop/client", "plain/client"] {
        let output = lab
            .peer_output(client, &["get", "local.shop:80"])
            .expect("runs");
        assert!(
            !output.status.success(),
            "{client}: Local never leaves the node"
        );
    }
}

fn one_that_refuses_is_passed_over_and_left_alone(lab: &Lab) {
    let near = BTreeSet::from(["near".to_owned()]);
    assert_eq!(servers(lab, "shop/client", "half"), near);
    let counted = |metric| lab.counted("node-1", metric, &[]).expect("metrics");
    let retries = counted("weft_connection_retries_total");
    let ejections = counted("weft_endpoint_ejections_total");
    // Half of the connections would meet it; each time it is left alone for twice as long.
    assert!((1.0..8.0).contains(&retries), "{retries} retries");
    assert_eq!(ejections, retries);
    let failed = lab.counted(
        "node-1",
        "istio_tcp_connections_failed_total",
        &["reporter=\"source\"", "destination_service_name=\"half\""],
    );
    assert_eq!(failed.expect("metrics"), 0.0, "no connection failed");

    lab.eventually(SOON, "it is shown to be left alone", || {
        lab.peer("shop/client", &["get", "half.shop:80"])?;
        let dump = lab.config_dump("node-1")?;
        let ejected = &dump["ejections"][0];
        ensure!(
            ejected["workloadUid"] == "Kubernetes//Pod/shop/broken",
            "{ejected}"
        );
        ensure!(ejected["port"] == 80, "{ejected}");
        Ok(())
    })
    .expect("shown");
    let dump = lab.config_dump("node-1").expect("a dump");
    let services = dump["services"].as_array().expect("services");
    let half = services.iter().find(|one| one["name"] == "half");
    assert_eq!(
        half.expect("known")["loadBalancer"]["algorithm"],
        "LEAST_REQUEST"
    );
}

#[test]
fn the_less_busy_endpoint_is_chosen_whichever_thread_asks() {
    // More threads than connections: none of them has seen another one's.
    let settings = [("ZTUNNEL_WORKER_THREADS", "24")];
    let lab = Lab::up_under(&yaml(), &settings).expect("the mesh starts");
    let hold = || {
        let arguments = ["peer", "hold", "even.shop:9000"];
        let mut child = lab.exec_spawn("shop/client", &arguments).expect("starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        assert_eq!(line, "open\n");
        child
    };
    let held: Vec<_> = (0..12).map(|_| hold()).collect();
    for pod in ["shop/near", "shop/far"] {
        let open = "ss -Htn state established sport = :9000 | wc -l";
        let open = lab.exec(pod, &["sh", "-c", open]).expect("counted");
        assert_eq!(open.trim(), "6", "{pod}");
    }
    for mut child in held {
        child.kill().expect("runs");
        child.wait().expect("ends");
    }
}
