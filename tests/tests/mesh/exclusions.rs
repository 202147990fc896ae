//! Ports that a pod's annotations keep from capture: plaintext passes there as it would without the
//! mesh, callers of the mesh still reach them over their tunnels, and everything else stays as it is.

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::NAMESPACES;

const PODS: &str = "\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: node-1
  containers: [{name: peer, command: [peer, serve]}]
---
apiVersion: v1
kind: Pod
metadata:
  name: leaky
  namespace: shop
  annotations:
    traffic.sidecar.istio.io/excludeOutboundPorts: \"8080\"
spec:
  nodeName: node-1
  containers: [{name: peer, command: [peer, serve]}]
---
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: plain, labels: {app: outsider}}
spec:
  nodeName: node-1
  containers: [{name: peer, command: [peer, serve, --name, outsider]}]
---
apiVersion: v1
kind: Pod
metadata:
  name: server
  namespace: shop
  labels: {app: server}
  annotations:
    traffic.sidecar.istio.io/excludeInboundPorts: \"9001, nonsense\"
spec:
  nodeName: node-2
  containers: [{name: peer, command: [peer, serve, --name, server]}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec:
  selector: {app: server}
  ports:
    - {name: request, port: 80, targetPort: 8080}
    - {name: banner, port: 9001}
";

#[test]
fn excluded_ports_pass_as_if_there_were_no_mesh_and_callers_of_the_mesh_reach_them() {
    let yaml = format!("{NAMESPACES}{PODS}");
    let lab = Lab::up_with(&yaml, &["--nodes", "2"]).expect("the mesh starts");
    let server = lab.addresses("shop/server").expect("addresses")[0];
    let outsider = lab.addresses("plain/outsider").expect("addresses")[0];
    let (request, banner) = (format!("{server}:8080"), format!("{server}:9001"));
    let passes = |pod: &str, command: [&str; 2]| {
        let output = lab.peer_output(pod, &command).expect("runs");
        output.status.success()
    };

    // STRICT holds where nothing is excluded.
    lab.eventually(SOON, "plaintext is refused", || {
        ensure!(!passes("plain/outsider", ["get", &request]));
        Ok(())
    })
    .expect("refused");
    assert!(passes("plain/outsider", ["banner", &banner]));
    assert!(passes("plain/outsider", ["banner", "server.shop:9001"]));

    // From inside the mesh both are reached, over mutual TLS.
    assert!(passes("shop/client", ["get", "server:80"]));
    assert!(passes("shop/client", ["banner", "server:9001"]));
    assert!(passes("shop/client", ["banner", &banner]));
    let labels = [
        "reporter=\"destination\"",
        "connection_security_policy=\"mutual_tls\"",
        "source_workload=\"client\"",
        "response_flags=\"-\"",
    ];
    let tunnelled = lab.counted("node-2", "istio_tcp_connections_opened_total", &labels);
    assert_eq!(tunnelled.expect("metrics"), 3.0);
    // A port excluded on the way out is dialled in plaintext, which STRICT refuses; others go
    // through the tunnel.
    assert!(!passes("shop/leaky", ["get", &request]));
    assert!(passes("shop/leaky", ["get", &format!("{outsider}:8080")]));
    assert!(
        passes("shop/leaky", ["get", "server:80"]),
        "a service's port is another"
    );

    let status = lab.weft(&["status"]).expect("a status");
    for told in [
        "connections to port 9001, by annotation",
        "connections from it to port 8080, by annotation",
        "\"nonsense\" is not a port: it stays captured",
    ] {
        assert!(status.contains(told), "no {told:?} in\n{status}");
    }
    let other = "excludeInboundPorts: \"8080\"";
    let uid = || lab.pod("shop/server").expect("a pod")["metadata"]["uid"].clone();
    let before = uid();
    let changed = yaml.replace("excludeInboundPorts: \"9001, nonsense\"", other);
    lab.write("lab.yaml", &changed).expect("written");
    lab.eventually(SOON, "the ports of the new annotation are excluded", || {
        ensure!(
            passes("plain/outsider", ["get", &request]),
            "8080 is captured"
        );
        ensure!(
            !passes("plain/outsider", ["banner", &banner]),
            "9001 is not"
        );
        Ok(())
    })
    .expect("in force");
    assert_eq!(uid(), before, "the same pod");
    assert!(passes("shop/client", ["get", "server:80"]));
    assert!(passes("shop/client", ["banner", "server:9001"]));
}
