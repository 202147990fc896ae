//! AuthorizationPolicy with L7 attributes on live traffic; `weft why` says the same each time.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::lab::Lab;

use crate::shop::{self, SOON, apply, ask, expect_status, shared};

/// One request and what becomes of it.
struct Case {
    from: &'static str,
    method: &'static str,
    path: &'static str,
    headers: &'static [&'static str],
    status: u16,
}

const fn case(from: &'static str, method: &'static str, path: &'static str, status: u16) -> Case {
    Case {
        from,
        method,
        path,
        headers: &[],
        status,
    }
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: {name}}}]
{spec}"
    )
}

/// Applies policies to a service and checks every case, live and by `weft why`.
fn check(name: &str, objects: &str, cases: &[Case]) {
    let lab = shared();
    // What a policy guards is refused to those who come to the same pods by another service,
    // so these have pods of their own.
    let guarded = shop::versions(name, "{app: guarded}");
    lab.write(&format!("{name}.yaml"), &format!("{guarded}---\n{objects}"))
        .expect("written");
    for case in cases {
        let url = format!("http://{name}.shop{}", case.path);
        let mut arguments = vec![url.as_str(), "-X", case.method];
        for header in case.headers {
            arguments.extend(["-H", header]);
        }
        lab.eventually(SOON, &format!("{name}: {arguments:?}"), || {
            let answer = ask(lab, case.from, &arguments)?;
            ensure!(
                answer.status == case.status,
                "{answer:?}, not {}",
                case.status
            );
            Ok(())
        })
        .expect("the verdict");
        let told = why(lab, name, case).expect("weft why answers");
        let allowed = told["allowed"].as_bool().expect("a verdict");
        assert_eq!(
            allowed,
            case.status != 403,
            "{name}: {arguments:?}: {told:#}"
        );
    }
}

fn why(lab: &Lab, name: &str, case: &Case) -> Result<Value> {
    let destination = format!("{name}.shop:80");
    let mut arguments = vec!["why", case.from, &destination, case.method, case.path];
    for header in case.headers {
        arguments.extend(["-H", header]);
    }
    arguments.extend(["-o", "json"]);
    let output = lab.weft_output(&arguments)?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

const CLIENT: &str = "shop/client";
const INTRUDER: &str = "shop/intruder";

#[test]
fn allow_methods_and_paths() {
    check(
        "ap-allow",
        &policy(
            "ap-allow",
            "  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]
    to: [{operation: {methods: [GET], paths: [/info*, /exact, '*.txt']}}]
",
        ),
        &[
            case(CLIENT, "GET", "/info/x", 200),
            case(CLIENT, "GET", "/exact", 200),
            case(CLIENT, "GET", "/deep/a.txt", 200),
            case(CLIENT, "GET", "/exact/", 403),
            case(CLIENT, "POST", "/exact", 403),
            case(INTRUDER, "GET", "/exact", 403),
        ],
    );
}

#[test]
fn deny_path_is_not_bypassed_by_spelling() {
    check(
        "ap-deny",
        &policy(
            "ap-deny",
            "  action: DENY
  rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]
",
        ),
        &[
            case(CLIENT, "GET", "/public", 200),
            case(CLIENT, "GET", "/admin", 403),
            case(CLIENT, "GET", "/x/../admin", 403),
            case(CLIENT, "GET", "/./admin", 403),
            case(CLIENT, "GET", "/x/..%2e/admin/", 200),
            case(CLIENT, "GET", "/%61dmin", 403),
            case(CLIENT, "GET", "/admin?x=y", 403),
            case(CLIENT, "GET", "/admin/users", 403),
        ],
    );
}

#[test]
fn path_templates() {
    check(
        "ap-template",
        &policy(
            "ap-template",
            "  action: ALLOW
  rules: [{to: [{operation: {paths: ['/users/{*}/orders', '/files/{**}']}}]}]
",
        ),
        &[
            case(CLIENT, "GET", "/users/7/orders", 200),
            case(CLIENT, "GET", "/users/7/8/orders", 403),
            case(CLIENT, "GET", "/users//orders", 403),
            case(CLIENT, "GET", "/files/a/b/c", 200),
            case(CLIENT, "GET", "/file", 403),
        ],
    );
}

#[test]
fn headers_and_hosts() {
    let with = |headers: &'static [&'static str], status| Case {
        headers,
        ..case(CLIENT, "GET", "/", status)
    };
    check(
        "ap-headers",
        &policy(
            "ap-headers",
            "  action: DENY
  rules:
  - when: [{key: 'request.headers[x-role]', values: [blocked]}]
  - to: [{operation: {hosts: [forbidden.example]}}]
",
        ),
        &[
            with(&[], 200),
            with(&["x-role: blocked"], 403),
            with(&["X-Role: fine", "X-Role: blocked"], 403),
            with(&["x-role: blocked,fine"], 200),
            with(&["Host: forbidden.example"], 403),
            with(&["Host: FORBIDDEN.example:80"], 403),
            with(&["Host: other.example"], 200),
        ],
    );
}

/// A policy with a selector reaches services and pods dialled by their own address alike.
#[test]
fn a_selector_is_not_bypassed_by_dialling_the_pod() {
    let lab = shop::own();
    expect_status(&lab, 200, &["http://echo-v1.shop/admin"]);
    lab.write(
        "policy.yaml",
        "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
",
    )
    .expect("written");
    expect_status(&lab, 403, &["http://echo-v1.shop/admin"]);
    expect_status(&lab, 200, &["http://echo-v1.shop/public"]);
    let pod = lab.addresses("shop/echo-v1").expect("addresses")[0];
    expect_status(&lab, 403, &[&format!("http://{pod}:8080/admin")]);
    expect_status(&lab, 200, &[&format!("http://{pod}:8080/public")]);
    // And who is outside the mesh can't reach them but through it.
    let url = format!("http://{pod}:8080/admin");
    assert!(
        ask(&lab, "outside/client", &[&url]).is_err(),
        "plaintext got in"
    );
}

/// From the moment it is accepted, no request meets the behaviour without the policy.
#[test]
fn an_l7_policy_fails_closed_from_the_start() {
    let lab = shop::own();
    apply(
        &lab,
        "closed",
        &policy(
            "closed",
            "  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
",
        ),
    );
    let mut answered = 0;
    let deadline = std::time::Instant::now() + SOON;
    while answered < 5 && std::time::Instant::now() < deadline {
        match ask(&lab, CLIENT, &["http://closed.shop/", "-X", "DELETE"]) {
            Ok(answer) => {
                assert_eq!(answer.status, 403, "{answer:?}");
                answered += 1;
            }
            // Refused while the waypoint starts.
            Err(_) => continue,
        }
    }
    assert_eq!(answered, 5, "the waypoint never answered");
}
