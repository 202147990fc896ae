//! Which endpoint is chosen: trafficDistribution and internalTrafficPolicy.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use tests::lab::Lab;

fn yaml() -> String {
    let mut yaml = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
"
    .to_owned();
    for (name, namespace, node) in [
        ("client", "shop", "node-1"),
        ("client", "plain", "node-1"),
        ("near", "shop", "node-1"),
        ("far", "shop", "node-2"),
    ] {
        let app = if name == "client" { "client" } else { "web" };
        yaml.push_str(&format!(
            "\
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}
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
    assert_eq!(servers(&lab, "shop/client", "local"), near);
    assert_eq!(servers(&lab, "plain/client", "local"), near, "uncaptured");

    lab.weft(&["delete", "pod", "near", "-n", "shop"])
        .expect("deleted");
    lab.eventually(Duration::from_secs(40), "only far is left", || {
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
