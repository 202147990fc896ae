//! GRPCRoute on a Service.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::shop::{apply_routes, ask, expect, shared};

fn grpc_route(name: &str, rules: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {{name: {name}, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: {name}}}]
  rules:
{rules}"
    )
}

#[test]
fn mesh_grpc_route_request_header_modifier() {
    let lab = shared();
    apply_routes(
        lab,
        "grpc-headers",
        &grpc_route(
            "grpc-headers",
            "  - matches: [{method: {service: echo.Echo, method: Say}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: x-set, value: set}]
        add: [{name: x-add, value: added}]
        remove: [x-remove]
    backendRefs: [{name: echo-v1, port: 7070}]
",
        ),
    );
    let answer = expect(
        lab,
        &[
            "--grpc",
            "http://grpc-headers.shop:7070/echo.Echo/Say",
            "-H",
            "x-set: mine",
            "-H",
            "x-add: mine",
            "-H",
            "x-remove: mine",
        ],
        |answer| {
            ensure!(
                answer
                    .trailers
                    .get("grpc-status")
                    .is_some_and(|all| all[0] == "0")
            );
            ensure!(answer.pod() == "echo-v1");
            Ok(())
        },
    );
    let seen = answer.seen.expect("our server answered");
    assert_eq!(seen.headers["x-set"], ["set"]);
    let added: Vec<&str> = seen.headers["x-add"]
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    assert_eq!(added, ["mine", "added"]);
    assert_eq!(seen.header("x-remove"), None);
}

/// A call that no rule matches is answered as gRPC answers: 200 and UNIMPLEMENTED.
#[test]
fn grpc_route_no_match() {
    let lab = shared();
    apply_routes(
        lab,
        "grpc-exact",
        &grpc_route(
            "grpc-exact",
            "  - matches: [{method: {service: echo.Echo, method: Say}}]
    backendRefs: [{name: echo-v1, port: 7070}]
",
        ),
    );
    expect(
        lab,
        &["--grpc", "http://grpc-exact.shop:7070/echo.Echo/Other"],
        |answer| {
            ensure!(answer.status == 200 && answer.header("grpc-status") == Some("12"));
            Ok(())
        },
    );
}

#[test]
fn mesh_grpc_route_weight() {
    let lab = shared();
    apply_routes(
        lab,
        "grpc-weight",
        &grpc_route(
            "grpc-weight",
            "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-routed, value: routed}]}}]
    backendRefs:
    - {name: echo-v1, port: 7070, weight: 9}
    - {name: echo-v2, port: 7070, weight: 1}
",
        ),
    );
    let url = "http://grpc-weight.shop:7070/echo.Echo/Say";
    expect(lab, &["--grpc", url], |answer| {
        ensure!(answer.status == 200 && !answer.pod().is_empty());
        // Before the route is in force, the service itself answers.
        ensure!(answer.header("x-routed") == Some("routed"));
        Ok(())
    });
    let count = ["--connections", "2", "--count", "500", "--seconds", "60"];
    let load = [&["--grpc", url][..], &count].concat();
    let report = crate::shop::load(lab, &load).expect("the load");
    assert_share(&report.by_pod, "echo-v1", 0.9);
    assert_eq!(report.failed(), 0, "{report:?}");
    ask(lab, "shop/client", &["--grpc", url]).expect("one more");
}

/// Within five standard deviations, of as many draws as a busy machine has had the time for.
pub(super) fn assert_share(by_pod: &BTreeMap<String, u64>, pod: &str, share: f64) {
    let all = by_pod.values().sum::<u64>() as f64;
    let got = by_pod.get(pod).copied().unwrap_or(0) as f64 / all;
    let deviation = (share * (1.0 - share) / all).sqrt();
    assert!(
        (got - share).abs() < 5.0 * deviation,
        "{pod} got {got} of {by_pod:?}"
    );
}
