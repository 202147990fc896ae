//! HTTPRoute on a Service: matches, weights, filters, timeouts, retries.

use anyhow::ensure;

use super::extended::expect_mirrored;
use super::grpc_route::assert_share;
use crate::shop::{self, apply_routes, expect, expect_pod, expect_status, http_route, shared};

#[test]
fn mesh_http_route_matching() {
    let lab = shared();
    apply_routes(
        lab,
        "matching",
        &http_route(
            "matching",
            "  - matches:
    - {path: {type: PathPrefix, value: /}}
    - {headers: [{name: version, value: one}]}
    backendRefs: [{name: echo-v1, port: 80}]
  - matches:
    - {path: {type: PathPrefix, value: /v2}}
    - {headers: [{name: version, value: two}]}
    backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    for path in ["/", "/example", "/v2example", "/foo/v2"] {
        expect_pod(lab, "echo-v1", &[&format!("http://matching.shop{path}")]);
    }
    for path in ["/v2", "/v2/", "/v2/example"] {
        expect_pod(lab, "echo-v2", &[&format!("http://matching.shop{path}")]);
    }
    expect_pod(
        lab,
        "echo-v2",
        &["http://matching.shop/", "-H", "Version: two"],
    );
    // The longer path wins over the header.
    expect_pod(
        lab,
        "echo-v2",
        &["http://matching.shop/v2/x", "-H", "Version: one"],
    );
}

#[test]
fn mesh_http_route_simple_same_namespace() {
    let lab = shared();
    apply_routes(
        lab,
        "simple",
        &http_route("simple", "  - backendRefs: [{name: echo-v1, port: 8080}]\n"),
    );
    expect_pod(lab, "echo-v1", &["http://simple.shop/"]);
}

#[test]
fn mesh_http_route_weight() {
    let lab = shared();
    apply_routes(
        lab,
        "weight",
        &http_route(
            "weight",
            "  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-routed, value: routed}]}}]
    backendRefs:
    - {name: echo-v1, port: 80, weight: 70}
    - {name: echo-v2, port: 80, weight: 30}
",
        ),
    );
    // Before the route is in force, the service itself answers.
    expect(lab, &["http://weight.shop/"], |answer| {
        ensure!(answer.status == 200 && answer.header("x-routed") == Some("routed"));
        Ok(())
    });
    let load = ["http://weight.shop/", "--count", "500", "--seconds", "60"];
    let report = shop::load(lab, &load).expect("the load");
    assert_share(&report.by_pod, "echo-v1", 0.7);
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[test]
fn mesh_http_route_request_header_modifier() {
    let lab = shared();
    let filter = |kind: &str, what: &str| {
        format!("[{{type: RequestHeaderModifier, requestHeaderModifier: {{{kind}: {what}}}}}]")
    };
    let rule = |path: &str, filters: &str| {
        format!(
            "  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]
    filters: {filters}
    backendRefs: [{{name: echo-v1, port: 80}}]
"
        )
    };
    let rules = rule(
        "/set",
        &filter(
            "set",
            "[{name: X-Header-Set, value: set-overwrites-values}]",
        ),
    ) + &rule(
        "/add",
        &filter("add", "[{name: X-Header-Add, value: add-appends-values}]"),
    ) + &rule("/remove", &filter("remove", "[X-Header-Remove]"));
    apply_routes(
        lab,
        "request-headers",
        &http_route("request-headers", &rules),
    );
    let seen = |path: &str, header: &str| {
        let url = format!("http://request-headers.shop{path}");
        let answer = expect_pod(lab, "echo-v1", &[&url, "-H", header]);
        answer.seen.expect("our server answered").headers
    };
    assert_eq!(
        seen("/set", "X-Header-Set: mine")["x-header-set"],
        ["set-overwrites-values"]
    );
    let added = seen("/add", "X-Header-Add: mine")["x-header-add"].join(",");
    assert_eq!(added.replace(", ", ","), "mine,add-appends-values");
    assert!(!seen("/remove", "X-Header-Remove: mine").contains_key("x-header-remove"));
}

#[test]
fn mesh_http_route_backend_request_header_modifier() {
    let lab = shared();
    apply_routes(
        lab,
        "backend-headers",
        &http_route(
            "backend-headers",
            "  - backendRefs:
    - name: echo-v1
      port: 80
      filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-backend, value: v1}]}}]
",
        ),
    );
    let answer = expect_pod(lab, "echo-v1", &["http://backend-headers.shop/"]);
    assert_eq!(answer.seen.expect("ours").header("x-backend"), Some("v1"));
}

#[test]
fn mesh_http_route_query_param_matching() {
    let lab = shared();
    apply_routes(
        lab,
        "query",
        &http_route(
            "query",
            "  - matches: [{queryParams: [{name: animal, value: whale}]}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}]
    backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    expect_pod(lab, "echo-v1", &["http://query.shop/?animal=whale"]);
    expect_pod(
        lab,
        "echo-v2",
        &["http://query.shop/?color=blue&animal=dolphin"],
    );
    expect_status(
        lab,
        404,
        &["http://query.shop/?animal=dolphin&color=yellow"],
    );
    expect_status(lab, 404, &["http://query.shop/"]);
}

#[test]
fn mesh_http_route_named_rule() {
    let lab = shared();
    apply_routes(
        lab,
        "named",
        &http_route(
            "named",
            "  - name: first
    matches: [{path: {type: Exact, value: /named}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    expect_pod(lab, "echo-v1", &["http://named.shop/named"]);
    expect_pod(lab, "echo-v2", &["http://named.shop/unnamed"]);
}

#[test]
fn mesh_http_route_rewrite_path() {
    let lab = shared();
    apply_routes(
        lab,
        "rewrite",
        &http_route(
            "rewrite",
            "  - matches: [{path: {type: PathPrefix, value: /prefix/one}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /full/one}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /one}}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /strip-prefix}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /host}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: rewritten.example}}]
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    for (asked, seen) in [
        ("/prefix/one/two", "/one/two"),
        ("/full/one/two", "/one"),
        ("/strip-prefix/three", "/three"),
        ("/strip-prefix", "/"),
        ("/prefix/one/two?x=y", "/one/two?x=y"),
    ] {
        let url = format!("http://rewrite.shop{asked}");
        let answer = expect_pod(lab, "echo-v1", &[&url]);
        assert_eq!(answer.seen.expect("ours").path, seen, "{asked}");
    }
    let answer = expect_pod(lab, "echo-v1", &["http://rewrite.shop/host"]);
    assert_eq!(answer.seen.expect("ours").host, "rewritten.example");
}

#[test]
fn http_route_method_matching() {
    let lab = shared();
    apply_routes(
        lab,
        "method",
        &http_route(
            "method",
            "  - matches: [{method: POST}]
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{method: GET}]
    backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    expect_pod(
        lab,
        "echo-v1",
        &["http://method.shop/", "-X", "POST", "-d", "content"],
    );
    expect_pod(lab, "echo-v2", &["http://method.shop/"]);
    expect_status(lab, 404, &["http://method.shop/", "-X", "DELETE"]);
}

#[test]
fn http_route_response_header_modifier() {
    let lab = shared();
    apply_routes(
        lab,
        "response-headers",
        &http_route(
            "response-headers",
            "  - filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{name: content-type, value: text/changed}]
        add: [{name: x-added, value: added}]
        remove: [date]
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    let answer = expect(lab, &["http://response-headers.shop/"], |answer| {
        ensure!(answer.header("x-added") == Some("added"));
        Ok(())
    });
    assert_eq!(answer.header("content-type"), Some("text/changed"));
    assert_eq!(answer.header("date"), None);
}

#[test]
fn http_route_timeout_request() {
    let lab = shared();
    apply_routes(
        lab,
        "timeout",
        &http_route(
            "timeout",
            "  - matches: [{path: {type: PathPrefix, value: /request}}]
    timeouts: {request: 300ms}
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /backend}}]
    timeouts: {backendRequest: 300ms}
    backendRefs: [{name: echo-v1, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /disabled}}]
    timeouts: {request: 0s}
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    expect_status(lab, 200, &["http://timeout.shop/request"]);
    expect_status(lab, 504, &["http://timeout.shop/request?delay=2000"]);
    expect_status(lab, 504, &["http://timeout.shop/backend?delay=2000"]);
    expect_status(lab, 200, &["http://timeout.shop/disabled?delay=1000"]);
}

#[test]
fn http_route_retry() {
    let lab = shared();
    apply_routes(
        lab,
        "retry",
        &http_route(
            "retry",
            "  - matches: [{path: {type: PathPrefix, value: /twice}}]
    retry: {attempts: 2, codes: [503], backoff: 10ms}
    backendRefs: [{name: echo-v1, port: 80}]
  - backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    expect_status(lab, 200, &["http://retry.shop/twice"]);
    expect_status(lab, 200, &["http://retry.shop/twice?fail=2&key=enough"]);
    expect_status(lab, 503, &["http://retry.shop/once?fail=1&key=none"]);
    let posted = shop::ask(
        lab,
        "shop/client",
        &[
            "http://retry.shop/twice?fail=2&key=post",
            "-X",
            "POST",
            "-d",
            "kept content",
        ],
    )
    .expect("an answer");
    assert_eq!(posted.seen.expect("ours").length, "kept content".len());
    let out = shop::ask(
        lab,
        "shop/client",
        &["http://retry.shop/twice?fail=3&key=short"],
    );
    assert_eq!(out.expect("an answer").status, 503);
}

#[test]
fn http_route_request_mirror() {
    let lab = shared();
    apply_routes(
        lab,
        "mirror",
        &http_route(
            "mirror",
            "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: echo-v2, port: 80}}}]
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    expect_status(lab, 200, &["http://mirror.shop/"]);
    expect_mirrored("mirror", &["echo-v2"], &["-X", "POST", "-d", "content"]);
}

#[test]
fn http_route_cors() {
    let lab = shared();
    apply_routes(
        lab,
        "cors",
        &http_route(
            "cors",
            "  - filters:
    - type: CORS
      cors:
        allowOrigins: [https://www.example.com, https://*.example.org]
        allowMethods: [GET, OPTIONS]
        allowHeaders: [x-allowed]
        exposeHeaders: [x-exposed]
        allowCredentials: true
        maxAge: 600
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    let preflight = |origin: &'static str| {
        expect(
            lab,
            &[
                "http://cors.shop/",
                "-X",
                "OPTIONS",
                "-H",
                origin,
                "-H",
                "Access-Control-Request-Method: GET",
            ],
            |answer| {
                ensure!(answer.status < 300);
                Ok(())
            },
        )
    };
    let answer = preflight("Origin: https://www.example.com");
    let allowed = "access-control-allow-origin";
    assert_eq!(answer.header(allowed), Some("https://www.example.com"));
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    let answer = preflight("Origin: https://a.b.example.org");
    assert_eq!(answer.header(allowed), Some("https://a.b.example.org"));
    assert_eq!(
        preflight("Origin: https://evil.example").header(allowed),
        None
    );
    let asked = ["http://cors.shop/", "-H", "Origin: https://www.example.com"];
    let answer = expect_status(lab, 200, &asked);
    assert_eq!(answer.header(allowed), Some("https://www.example.com"));
    assert_eq!(
        answer.header("access-control-expose-headers"),
        Some("x-exposed")
    );
}

/// What a route refers to and is not there takes its share of requests, with 500.
#[test]
fn http_route_invalid_backend() {
    let lab = shared();
    apply_routes(
        lab,
        "invalid",
        &http_route("invalid", "  - backendRefs: [{name: nowhere, port: 80}]\n"),
    );
    expect_status(lab, 500, &["http://invalid.shop/"]);
}

/// A rule that can't be honoured is refused by itself, and the route's status names it.
#[test]
fn http_route_partially_invalid() {
    let lab = shared();
    apply_routes(
        lab,
        "partially",
        &http_route(
            "partially",
            "  - matches: [{path: {value: /extended}}]
    filters:
    - {type: ExtensionRef, extensionRef: {group: example.com, kind: Filter, name: own}}
    backendRefs: [{name: echo-v1, port: 80}]
  - backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    expect_pod(lab, "echo-v2", &["http://partially.shop/"]);
    expect_status(lab, 500, &["http://partially.shop/extended"]);
    let told = lab
        .weft(&["get", "httproute", "partially", "-n", "shop", "-o", "json"])
        .expect("the route");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let conditions = told["status"]["parents"][0]["conditions"].as_array();
    let condition = |type_: &str| {
        let mut all = conditions.into_iter().flatten();
        all.find(|one| one["type"] == type_)
            .unwrap_or_else(|| panic!("no {type_}: {told:#}"))
    };
    assert_eq!(condition("Accepted")["status"], "True", "{told:#}");
    let partially = condition("PartiallyInvalid");
    assert_eq!(partially["status"], "True", "{told:#}");
    assert_eq!(partially["reason"], "UnsupportedValue", "{told:#}");
    let message = partially["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("Dropped Rule spec.rules[0]: "),
        "{message}"
    );
    assert_eq!(
        partially["observedGeneration"],
        told["metadata"]["generation"]
    );
    assert!(partially["lastTransitionTime"].is_string(), "{told:#}");
}
