//! The core profile: services with and without routes, ports, splits, frontends, consumers.

use anyhow::ensure;
use tests::lab::SOON;

use crate::shop::{apply_routes, ask, expect, expect_pod, expect_status, http_route, shared};

#[test]
fn mesh_basic() {
    let lab = shared();
    expect(lab, &["http://echo-v1.shop/"], |answer| {
        ensure!(answer.status == 200 && answer.pod() == "echo-v1");
        Ok(())
    });
}

#[test]
fn mesh_traffic_split() {
    let lab = shared();
    apply_routes(
        lab,
        "split",
        &http_route(
            "split",
            "  - matches: [{path: {type: Exact, value: /v1}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: Exact, value: /v2}}]
    backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    expect_pod(lab, "echo-v1", &["http://split.shop/v1"]);
    expect_pod(lab, "echo-v2", &["http://split.shop/v2"]);
    expect_status(lab, 404, &["http://split.shop/"]);
}

#[test]
fn mesh_ports() {
    let lab = shared();
    let route = |name: &str, port: u16| {
        format!(
            "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: ports, port: {port}}}]
  rules:
  - filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-port, value: \"{port}\"}}]}}}}]
    backendRefs: [{{name: ports, port: {port}}}]
"
        )
    };
    let routes = format!("{}---\n{}", route("port-80", 80), route("port-8080", 8080));
    apply_routes(lab, "ports", &routes);
    for (url, port) in [
        ("http://ports.shop/", "80"),
        ("http://ports.shop:8080/", "8080"),
    ] {
        expect(lab, &[url], |answer| {
            ensure!(answer.status == 200 && answer.header("x-port") == Some(port));
            Ok(())
        });
    }
}

#[test]
fn mesh_frontend() {
    let lab = shared();
    apply_routes(
        lab,
        "frontend",
        &http_route(
            "frontend",
            "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-frontend, value: routed}]}}]
    backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    expect(lab, &["http://frontend.shop/"], |answer| {
        ensure!(answer.pod() == "echo-v2" && answer.header("x-frontend") == Some("routed"));
        Ok(())
    });
    // The backend's own service is not touched by the frontend's route.
    let direct = expect_pod(lab, "echo-v2", &["http://echo-v2.shop/"]);
    assert_eq!(direct.header("x-frontend"), None);
}

/// The address that was dialled decides, not the Host header.
#[test]
fn mesh_frontend_hostname() {
    let lab = shared();
    apply_routes(
        lab,
        "by-address",
        &http_route(
            "by-address",
            "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-routed, value: routed}]}}]
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    expect(
        lab,
        &["http://by-address.shop/", "-H", "Host: echo-v2.shop"],
        |answer| {
            ensure!(answer.pod() == "echo-v1" && answer.header("x-routed") == Some("routed"));
            Ok(())
        },
    );
}

/// A route in another namespace than its Service's is for that namespace's clients only, and
/// wins over the producer's for them.
#[test]
fn mesh_consumer_route() {
    let lab = shared();
    let producer = http_route(
        "consumed",
        "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: producer}]}}]
    backendRefs: [{name: echo-v1, port: 80}]
",
    );
    let consumer = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: consumed, namespace: consumer}
spec:
  parentRefs: [{group: \"\", kind: Service, name: consumed, namespace: shop}]
  rules:
  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: consumer}]}}]
    backendRefs: [{name: echo-v1, namespace: shop, port: 80}]
";
    apply_routes(lab, "consumed", &format!("{producer}---\n{consumer}"));
    expect(lab, &["http://consumed.shop/"], |answer| {
        ensure!(answer.header("x-by") == Some("producer"));
        Ok(())
    });
    lab.eventually(SOON, "the consumer's own route applies", || {
        let answer = ask(lab, "consumer/client", &["http://consumed.shop/"])?;
        ensure!(answer.header("x-by") == Some("consumer"), "{answer:?}");
        Ok(())
    })
    .expect("the consumer's route");
}
