//! AuthorizationPolicy with L7 attributes on live traffic; `weft why` says the same each time.

use anyhow::{Context, Result, ensure};
use tests::lab::{Lab, SOON};

use crate::shop::{self, apply, ask, expect_status, shared};
use crate::why;

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
    check_in(shared(), name, objects, cases);
}

fn check_in(lab: &Lab, name: &str, objects: &str, cases: &[Case]) {
    // What guards these pods would hold for every service that leads to them and has no policy,
    // so that they are pods of their own.
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
        let told = why::ask(lab, case.from, &arguments).expect("weft why answers");
        let allowed = told["allowed"].as_bool().expect("a verdict");
        assert_eq!(
            allowed,
            case.status != 403,
            "{name}: {arguments:?}: {told:#}"
        );
        let line = told["trace"].as_array().and_then(|steps| {
            let mut steps = steps.iter();
            steps.find(|step| step["stage"] == "policy")?["line"].as_u64()
        });
        // Below the Service and the policy's head.
        let first = guarded.lines().count() + 1 + policy(name, "").lines().count();
        assert!(line > Some(first as u64), "the rule's line: {told:#}");
    }
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

/// The address that the nearest proxy saw, which is the last in `x-forwarded-for`; without any, the client's own.
#[test]
fn remote_ip_blocks() {
    let from = |headers: &'static [&'static str], status| Case {
        headers,
        ..case(CLIENT, "GET", "/", status)
    };
    check(
        "ap-remote",
        &policy(
            "ap-remote",
            "  action: ALLOW
  rules:
  - from: [{source: {remoteIpBlocks: [203.0.113.0/24, '2001:db8::/32'], notRemoteIpBlocks: [203.0.113.9]}}]
",
        ),
        &[
            from(&[], 403),
            from(&["x-forwarded-for: 203.0.113.7"], 200),
            from(&["x-forwarded-for: 2001:db8::7"], 200),
            from(&["x-forwarded-for: 203.0.113.9"], 403),
            from(&["x-forwarded-for: 198.51.100.1, 203.0.113.7"], 200),
            from(&["x-forwarded-for: 203.0.113.7, 198.51.100.1"], 403),
            from(&["x-forwarded-for: 198.51.100.1", "x-forwarded-for: 203.0.113.7"], 200),
            from(&["x-forwarded-for: 203.0.113.7", "x-forwarded-for: 198.51.100.1"], 403),
            from(&["x-forwarded-for: nowhere"], 403),
        ],
    );
}

#[test]
fn not_remote_ip_blocks_deny() {
    let from = |headers: &'static [&'static str], status| Case {
        headers,
        ..case(CLIENT, "GET", "/", status)
    };
    check(
        "ap-not-remote",
        &policy(
            "ap-not-remote",
            "  action: DENY
  rules:
  - from: [{source: {notRemoteIpBlocks: [203.0.113.0/24]}}]
  - when: [{key: remote.ip, values: [203.0.113.9]}]
",
        ),
        &[
            from(&[], 403),
            from(&["x-forwarded-for: 203.0.113.7"], 200),
            from(&["x-forwarded-for: 203.0.113.9"], 403),
            from(&["x-forwarded-for: nowhere"], 403),
        ],
    );
}

#[test]
fn trust_domains() {
    let rules =
        |name: &str, rule: &str| policy(name, &format!("  action: ALLOW\n  rules:\n  - {rule}\n"));
    for (name, rule, status) in [
        (
            "ap-trust",
            "from: [{source: {trustDomains: [cluster.local]}}]",
            200,
        ),
        (
            "ap-trust-other",
            "from: [{source: {trustDomains: [elsewhere.example]}}]",
            403,
        ),
        (
            "ap-trust-not",
            "from: [{source: {notTrustDomains: ['cluster.*']}}]",
            403,
        ),
        (
            "ap-trust-when",
            "when: [{key: source.trustDomain, notValues: [elsewhere.example]}]",
            200,
        ),
    ] {
        check(
            name,
            &rules(name, rule),
            &[case(CLIENT, "GET", "/", status)],
        );
    }
}

/// A policy that still has a former name of the trust domain, at a waypoint and on a node.
#[test]
fn trust_domain_aliases() {
    let aliases = [
        "--nodes",
        "2",
        "--trust-domain-alias",
        "old.example,older.example",
    ];
    let lab = Lab::up_with(shop::YAML, &aliases).expect("the mesh starts");
    let allow = |name: &str, domain: &str| {
        policy(
            name,
            &format!(
                "  action: ALLOW
  rules:
  - from: [{{source: {{principals: [{domain}/ns/shop/sa/client]}}}}]
    to: [{{operation: {{methods: [GET]}}}}]
"
            ),
        )
    };
    for (name, domain, status) in [
        ("ap-alias", "old.example", 200),
        ("ap-older", "older.example", 200),
        ("ap-stranger", "other.example", 403),
    ] {
        let cases = [
            case(CLIENT, "GET", "/", status),
            case(CLIENT, "POST", "/", 403),
            case(INTRUDER, "GET", "/", 403),
        ];
        check_in(&lab, name, &allow(name, domain), &cases);
    }
    lab.write(
        "node.yaml",
        "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-the-client, namespace: shop}
spec:
  selector: {matchLabels: {app: echo}}
  action: DENY
  rules: [{from: [{source: {principals: [older.example/ns/shop/sa/client]}}]}]
",
    )
    .expect("written");
    let url = ["http://echo-v1.shop/"];
    lab.eventually(SOON, "the node refuses the client", || {
        ensure!(ask(&lab, CLIENT, &url).is_err(), "let in");
        Ok(())
    })
    .expect("refused");
    let told = why::ask(&lab, CLIENT, &url).expect("weft why answers");
    assert_eq!(told["allowed"], false, "{told:#}");
    ask(&lab, INTRUDER, &url).expect("somebody else is let in");
    let told = why::ask(&lab, INTRUDER, &url).expect("weft why answers");
    assert_eq!(told["allowed"], true, "{told:#}");
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
    // The pod's own node hears of it when it does, whatever the client's node knows.
    let url = format!("http://{pod}:8080/admin");
    lab.eventually(SOON, "plaintext is refused", || {
        ensure!(
            ask(&lab, "outside/client", &[&url]).is_err(),
            "plaintext got in"
        );
        Ok(())
    })
    .expect("refused");
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

/// Another way to the same pods is behind the waypoint, too, and meets the same policy.
#[test]
fn a_service_over_guarded_pods_is_guarded() {
    let lab = shared();
    let services = ["beside-guarded", "beside"].map(|name| shop::versions(name, "{app: beside}"));
    lab.write("beside.yaml", &services.join("---\n"))
        .expect("written");
    let url = |name: &str, path: &str| format!("http://{name}.shop{path}");
    for name in ["beside-guarded", "beside"] {
        expect_status(lab, 200, &[&url(name, "/admin")]);
    }
    let guard = policy(
        "beside-guarded",
        "  action: DENY
  rules: [{to: [{operation: {paths: [/admin], ports: ['80']}}]}]
",
    );
    lab.write("beside-guard.yaml", &guard).expect("written");
    for name in ["beside-guarded", "beside"] {
        expect_status(lab, 403, &[&url(name, "/admin")]);
        expect_status(lab, 200, &[&url(name, "/public")]);
    }
    // The pod's port is the guarded service's, whatever the others call it.
    expect_status(lab, 403, &[&url("beside", ":8080/admin")]);
    let pod = lab.addresses("shop/beside").expect("addresses")[0];
    let denied = ask(lab, CLIENT, &[&format!("http://{pod}:8080/admin")]).expect("an answer");
    assert_eq!(denied.status, 403, "{denied:?}");
    let why = lab.weft(&["waypoint", "why", "shop/beside"]).expect("said");
    assert!(
        why.contains("AuthorizationPolicy shop/beside-guarded")
            && why.contains("beside-guard.yaml:1"),
        "{why}"
    );
}

/// The page of a waypoint's metrics, whichever pod it is.
fn metrics(lab: &Lab) -> Result<String> {
    let label = "gateway.networking.k8s.io/gateway-name";
    let pods = lab.pods()?;
    let is_ours = |pod: &&serde_json::Value| {
        pod["metadata"]["namespace"] == "shop" && !pod["metadata"]["labels"][label].is_null()
    };
    let pod = pods.iter().find(is_ours).context("no waypoint")?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let page = ["peer", "http", "127.0.0.1:15020", "/stats/prometheus"];
    lab.exec(&format!("shop/{name}"), &page)
}

/// A policy that is tried out refuses nobody, and tells whom it would, under a ztunnel's metric.
#[test]
fn a_dry_run_tells_and_refuses_nobody() {
    let lab = shared();
    let objects = [
        shop::versions("ap-dry", "{app: guarded}"),
        shop::http_route("ap-dry", "  - backendRefs: [{name: ap-dry, port: 80}]\n"),
        policy(
            "ap-dry",
            "  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
",
        )
        .replace(
            "name: ap-dry, namespace: shop}",
            "name: ap-dry, namespace: shop, annotations: {istio.io/dry-run: \"true\"}}",
        ),
    ];
    lab.write("ap-dry.yaml", &objects.join("---\n"))
        .expect("written");
    let told = |tried: &str, by: &str| {
        let labels = format!("enforced=\"allow\",dry_run=\"{tried}\",policy=\"{by}\"");
        lab.eventually(SOON, "the metrics say so", || {
            for method in ["GET", "DELETE"] {
                let asked = ask(lab, CLIENT, &["http://ap-dry.shop/", "-X", method])?;
                ensure!(asked.status == 200, "{asked:?}");
            }
            let page = metrics(lab)?;
            let mut lines = page.lines();
            let is_told = lines.any(|line| {
                line.starts_with("weft_policy_dry_run_total{") && line.contains(&labels)
            });
            ensure!(is_told, "{labels}");
            Ok(())
        })
        .expect("told");
    };
    told("deny", "shop/ap-dry");
    told("allow", "none");
}

/// A waypoint, its class and a host outside the mesh are targets as services are.
#[test]
fn gateways_classes_and_entries_are_targets() {
    let lab = &shop::own();
    let deny = |name: &str, namespace: &str, targets: &str| {
        format!(
            "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  targetRefs: [{targets}]
  action: DENY
  rules: [{{to: [{{operation: {{paths: [/{name}]}}}}]}}]
"
        )
    };
    let gateway = "gateway.networking.k8s.io";
    let objects = [
        shop::service("ap-targets"),
        shop::http_route(
            "ap-targets",
            "  - backendRefs: [{name: ap-targets, port: 80}]\n",
        ),
        crate::external::entry("targeted", "web.outside.svc.cluster.local"),
        deny(
            "ap-gateway",
            "shop",
            &format!("{{group: {gateway}, kind: Gateway, name: waypoint}}"),
        ),
        deny(
            "ap-class",
            "istio-system",
            &format!("{{group: {gateway}, kind: GatewayClass, name: istio-waypoint}}"),
        ),
        deny(
            "ap-entry",
            "shop",
            "{group: networking.istio.io, kind: ServiceEntry, name: targeted}",
        ),
    ];
    lab.write("ap-targets.yaml", &objects.join("---\n"))
        .expect("written");
    let service = |path: &str, status| {
        expect_status(lab, status, &[&format!("http://ap-targets.shop{path}")]);
    };
    let entry = |path: &str, status| {
        let url = format!("http://targeted.example.com{path}");
        expect_status(lab, status, &[&url]);
    };
    service("/ap-gateway", 403);
    entry("/ap-gateway", 403);
    service("/ap-class", 403);
    entry("/ap-class", 403);
    entry("/ap-entry", 403);
    service("/ap-entry", 200);
    entry("/", 200);
}
