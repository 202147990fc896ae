//! Extended features of HTTPRoute, as Gateway API's tests of gateways have them, on a Service.

use anyhow::ensure;
use tests::lab::SOON;

use crate::shop::{self, apply_routes, ask, expect, expect_pod, expect_status, http_route, shared};

#[test]
fn http_route_rewrite_host() {
    let lab = shared();
    apply_routes(
        lab,
        "rewrite-host",
        &http_route(
            "rewrite-host",
            "  - matches: [{path: {type: PathPrefix, value: /one}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: one.example}}]
    backendRefs: [{name: echo-v1, port: 80}]
  - backendRefs: [{name: echo-v2, port: 80}]
",
        ),
    );
    let answer = expect_pod(lab, "echo-v1", &["http://rewrite-host.shop/one"]);
    assert_eq!(answer.seen.expect("ours").host, "one.example");
    let answer = expect_pod(lab, "echo-v2", &["http://rewrite-host.shop/two"]);
    assert_eq!(answer.seen.expect("ours").host, "rewrite-host.shop");
}

#[test]
fn http_route_backend_url_rewrite() {
    let lab = shared();
    apply_routes(
        lab,
        "backend-rewrite",
        &http_route(
            "backend-rewrite",
            "  - backendRefs:
    - name: echo-v1
      port: 80
      filters: [{type: URLRewrite, urlRewrite: {hostname: backend.example, path: {type: ReplaceFullPath, replaceFullPath: /rewritten}}}]
",
        ),
    );
    let answer = expect_pod(lab, "echo-v1", &["http://backend-rewrite.shop/x?y=z"]);
    let seen = answer.seen.expect("ours");
    assert_eq!(
        (&*seen.host, &*seen.path),
        ("backend.example", "/rewritten?y=z")
    );
}

#[test]
fn http_route_backend_request_redirect() {
    let lab = shared();
    apply_routes(
        lab,
        "backend-redirect",
        &http_route(
            "backend-redirect",
            "  - backendRefs:
    - name: echo-v1
      port: 80
      filters: [{type: RequestRedirect, requestRedirect: {hostname: moved.example, statusCode: 301}}]
",
        ),
    );
    expect(lab, &["http://backend-redirect.shop/x"], |answer| {
        ensure!(answer.status == 301 && answer.pod().is_empty());
        ensure!(answer.header("location") == Some("http://moved.example/x"));
        Ok(())
    });
}

/// Waits until each of these servers has got its copy of a request, which they count by its key.
/// The copy is on its way when the request has been answered.
pub(super) fn expect_mirrored(route: &str, servers: &[&str], arguments: &[&str]) {
    let lab = shared();
    let mut attempt = 0;
    lab.eventually(SOON, "each gets its copy", || {
        attempt += 1;
        let url = |host: &str| format!("http://{host}.shop/?fail=1&key={route}-{attempt}");
        ask(lab, "shop/client", &[&[&*url(route)], arguments].concat())?;
        for server in servers {
            let answer = ask(lab, "shop/client", &[&url(server)])?;
            ensure!(answer.status == 200, "{server} got none");
        }
        Ok(())
    })
    .expect("mirrored");
}

/// The mirrored server counts requests of a key: how many of `sent` came by.
fn mirrored(host: &str, route: &str, sent: usize) -> usize {
    let lab = shared();
    // Before the route is in force, the service itself answers.
    expect(lab, &[&format!("http://{route}.shop/ready")], |answer| {
        ensure!(answer.header("x-routed") == Some("routed"));
        Ok(())
    });
    let key = format!("{route}-mirrored");
    let url = format!("http://{route}.shop/?fail=1000&key={key}");
    for _ in 0..sent {
        ask(lab, "shop/client", &[&url]).expect("an answer");
    }
    // A request that is not among the first `limit` is answered with 200, and not counted.
    let counted = |limit: &usize| {
        let url = format!("http://{host}.shop/?fail={limit}&key={key}");
        let answer = ask(lab, "shop/client", &[&url]).expect("an answer");
        answer.status == 200
    };
    (1..=sent).take_while(counted).count()
}

#[test]
fn http_route_request_multiple_mirrors() {
    let lab = shared();
    apply_routes(
        lab,
        "mirrors",
        &http_route(
            "mirrors",
            "  - filters:
    - {type: RequestMirror, requestMirror: {backendRef: {name: echo-v2, port: 80}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: beside-mirror, port: 80}}}
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    lab.write(
        "beside-mirror.yaml",
        &shop::versions("beside-mirror", "{app: beside}"),
    )
    .expect("written");
    expect_status(lab, 200, &["http://mirrors.shop/"]);
    expect_mirrored("mirrors", &["echo-v2", "beside-mirror"], &[]);
}

#[test]
fn http_route_request_percentage_mirror() {
    let lab = shared();
    let route = |name: &str, percent: u32| {
        let rules = format!(
            "  - filters:
    - {{type: RequestMirror, requestMirror: {{backendRef: {{name: echo-v2, port: 80}}, percent: {percent}}}}}
    - {{type: ResponseHeaderModifier, responseHeaderModifier: {{set: [{{name: x-routed, value: routed}}]}}}}
    backendRefs: [{{name: echo-v1, port: 80}}]
"
        );
        apply_routes(lab, name, &http_route(name, &rules));
    };
    route("mirror-none", 0);
    route("mirror-half", 50);
    assert_eq!(mirrored("echo-v2", "mirror-none", 10), 0);
    // Fewer than 4 or more than 36 of 40 have a chance of one in a hundred million.
    let half = mirrored("echo-v2", "mirror-half", 40);
    assert!((4..=36).contains(&half), "{half} of 40");
}

#[test]
fn http_route_timeout_backend_request() {
    let lab = shared();
    apply_routes(
        lab,
        "backend-timeout",
        &http_route(
            "backend-timeout",
            "  - timeouts: {request: 5s, backendRequest: 300ms}
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    expect_status(lab, 200, &["http://backend-timeout.shop/"]);
    expect_status(lab, 504, &["http://backend-timeout.shop/?delay=2000"]);
}

/// A try that takes too long is one that failed.
#[test]
fn http_route_retry_backend_timeout() {
    let lab = shared();
    apply_routes(
        lab,
        "retry-timeout",
        &http_route(
            "retry-timeout",
            "  - timeouts: {request: 10s, backendRequest: 300ms}
    retry: {attempts: 2, codes: [504], backoff: 10ms}
    backendRefs: [{name: echo-v1, port: 80}]
",
        ),
    );
    expect_status(lab, 200, &["http://retry-timeout.shop/"]);
    let url = |late: u32, key: &str| {
        format!("http://retry-timeout.shop/?delay=2000&late={late}&key=retry-{key}")
    };
    expect_pod(lab, "echo-v1", &[&url(2, "enough")]);
    expect_status(lab, 504, &[&url(1000, "none")]);
}

/// Another endpoint is tried where one can't be reached.
#[test]
fn http_route_retry_connection_error() {
    let lab = shared();
    // Nothing listens in one of its two pods.
    let service = shop::versions("half", "{half: 'true'}");
    let route = http_route(
        "half",
        "  - retry: {attempts: 3, backoff: 10ms}
    backendRefs: [{name: half, port: 80}]
",
    );
    lab.write("half.yaml", &format!("{service}---\n{route}"))
        .expect("written");
    expect_pod(lab, "echo-v1", &["http://half.shop/"]);
    let report = shop::load(lab, &["http://half.shop/", "--count", "50"]).expect("the load");
    assert_eq!(report.failed(), 0, "{report:?}");
}

#[test]
fn http_route_parent_ref_port() {
    let lab = shared();
    apply_routes(
        lab,
        "parent-port",
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: parent-port, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: parent-port, port: 8080}]
  rules: [{backendRefs: [{name: echo-v2, port: 80}], filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-port, value: routed}]}}]}]
",
    );
    expect(lab, &["http://parent-port.shop:8080/"], |answer| {
        ensure!(answer.pod() == "echo-v2" && answer.header("x-port") == Some("routed"));
        Ok(())
    });
    let other = expect_status(lab, 200, &["http://parent-port.shop/"]);
    assert_eq!(other.header("x-port"), None);
}

/// A Service of this name whose port says what it speaks.
fn speaking(name: &str, protocol: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{app: echo, version: v1}}, \
         ports: [{{port: 80, targetPort: 8080, appProtocol: {protocol}}}]}}\n---\n"
    )
}

#[test]
fn http_route_backend_protocol_h2c() {
    let lab = shared();
    let backend = speaking("h2c-backend", "kubernetes.io/h2c");
    let route = http_route("h2c", "  - backendRefs: [{name: h2c-backend, port: 80}]\n");
    apply_routes(lab, "h2c", &format!("{backend}{route}"));
    let answer = expect_pod(lab, "echo-v1", &["http://h2c.shop/"]);
    assert_eq!(answer.seen.expect("ours").protocol, "HTTP/2.0");
}

#[test]
fn http_route_backend_protocol_web_socket() {
    let lab = shared();
    let backend = speaking("ws-backend", "kubernetes.io/ws");
    let route = http_route("ws", "  - backendRefs: [{name: ws-backend, port: 80}]\n");
    apply_routes(lab, "ws", &format!("{backend}{route}"));
    expect_pod(lab, "echo-v1", &["http://ws.shop/"]);
    let request = "GET /chat HTTP/1.1\r\nhost: ws.shop\r\nconnection: Upgrade\r\n\
                   upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nechoed";
    let bytes: String = request.bytes().map(|byte| format!("{byte:02x}")).collect();
    // What is echoed comes behind the answer, and may come after a silence.
    let ask = ["web", "raw", "--answered", "ws.shop:80", &bytes];
    lab.eventually(SOON, "bytes are echoed", || {
        let answers: Vec<String> = serde_json::from_str(&lab.exec("shop/client", &ask)?)?;
        let is_switched = answers[0].starts_with("HTTP/1.1 101 ");
        ensure!(is_switched && answers[0].ends_with("echoed"), "{answers:?}");
        Ok(())
    })
    .expect("echoed");
}
