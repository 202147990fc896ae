//! Backends that have only a name, outside the mesh, behind a waypoint.

use anyhow::{Context, ensure};

use crate::shop::{expect, expect_status, shared};

/// A host outside the mesh whose address is that of another name, and a route for it.
pub(crate) fn entry(name: &str, address: &str) -> String {
    format!(
        "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: shop}}
spec:
  hosts: [{name}.example.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8080}}]
  endpoints: [{{address: {address}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{group: networking.istio.io, kind: ServiceEntry, name: {name}}}]
  rules:
  - filters: [{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-routed, value: routed}}]}}}}]
    backendRefs: [{{group: networking.istio.io, kind: Hostname, name: {name}.example.com, port: 80}}]
"
    )
}

#[test]
fn a_name_outside_the_mesh_is_resolved() {
    let lab = shared();
    let yaml = entry("api", "web.outside.svc.cluster.local");
    lab.write("external.yaml", &yaml).expect("written");
    expect(lab, &["http://api.example.com/x"], |answer| {
        let seen = answer.seen.as_ref().context("not ours")?;
        let is_routed = seen.header("x-routed") == Some("routed");
        ensure!(answer.pod() == "outsider" && is_routed);
        Ok(())
    });
}

/// A name that nobody has is told of.
#[test]
fn a_name_without_an_address_is_refused_with_the_reason() {
    let lab = shared();
    let yaml = entry("lost", "nowhere.outside.svc.cluster.local");
    lab.write("lost.yaml", &yaml).expect("written");
    let answer = expect_status(lab, 503, &["http://lost.example.com/"]);
    let name = "nowhere.outside.svc.cluster.local can't be resolved";
    assert!(answer.body.contains(name), "{answer:?}");
}

/// What a captured pod gets in plaintext, it could not know to be from whom.
#[test]
fn a_name_of_a_captured_pod_gets_no_plaintext() {
    let lab = shared();
    let headless = "\
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: shop}
spec:
  clusterIP: None
  selector: {app: echo, version: v2}
  ports: [{name: http, port: 8080}]
---
";
    let yaml = entry("inside", "headless.shop.svc.cluster.local");
    lab.write("inside.yaml", &format!("{headless}{yaml}"))
        .expect("written");
    expect(lab, &["http://inside.example.com/"], |answer| {
        ensure!(answer.status == 503 && answer.body.contains("plaintext is not sent there"));
        Ok(())
    });
}

#[test]
fn an_address_of_a_captured_pod_gets_no_plaintext_either() {
    let lab = shared();
    let address = lab.addresses("shop/echo-v2").expect("addresses")[0];
    let yaml = entry("given", &address.to_string()).replace("DNS", "STATIC");
    lab.write("given.yaml", &yaml).expect("written");
    expect(lab, &["http://given.example.com/"], |answer| {
        ensure!(answer.status == 503 && answer.body.contains("plaintext is not sent there"));
        Ok(())
    });
}
