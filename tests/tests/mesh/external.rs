//! ServiceEntry and WorkloadEntry: hosts that are no pods of the mesh, under names of their own.

use anyhow::ensure;
use tests::lab::{Lab, SOON};

use crate::shop::own;

fn entries(address: &str) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.example.com]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  endpoints: [{{address: {address}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: machines, namespace: shop}}
spec:
  hosts: [machines.example.com]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{{number: 81, name: http, protocol: HTTP, targetPort: 8080}}]
  workloadSelector: {{labels: {{app: machine}}}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: machine, namespace: shop}}
spec:
  address: {address}
  labels: {{app: machine}}
"
    )
}

#[track_caller]
fn check_reaches(lab: &Lab, target: &str) {
    lab.eventually(SOON, target, || {
        for client in ["shop/client", "shop/server"] {
            let reply = lab.peer(client, &["get", target])?;
            ensure!(reply.starts_with("outsider "), "{reply}");
        }
        Ok(())
    })
    .expect("reached");
}

#[test]
fn entries_are_reached_by_their_host_names() {
    let lab = own();
    let address = lab.addresses("plain/outsider").expect("addresses")[0];
    lab.write("entries.yaml", &entries(&address.to_string()))
        .expect("written");
    check_reaches(&lab, "api.example.com:80");
    check_reaches(&lab, "machines.example.com:81");
    for kind in ["serviceentries", "workloadentries"] {
        let shown = lab.weft(&["get", kind, "-n", "shop", "-o", "wide"]);
        let shown = shown.expect("shown");
        let rows = shown.lines().skip(1);
        assert!(rows.clone().count() > 0, "{shown}");
        assert!(rows.clone().all(|row| row.contains("Accepted")), "{shown}");
    }

    lab.remove("entries.yaml").expect("removed");
    lab.eventually(SOON, "the names are gone", || {
        let output = lab.peer_output("shop/client", &["get", "api.example.com:80"])?;
        ensure!(!output.status.success(), "still reached");
        Ok(())
    })
    .expect("gone");
}
