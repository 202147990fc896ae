//! Every kind of refusal, over a folder that no mesh runs on.

mod plaintext;

use istio_compat::object::Object;
use istio_compat::parse::{Raw, parse};

use super::answer::{Answer, Enforcer};
use super::message::Message;
use super::party::{Destination, Source};
use super::{decision, screen, simulation};
use crate::exit::Result;

/// A client and a web application of two pods that are captured, and one that is not.
const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {serviceAccountName: client, containers: [{name: it}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: outside}
spec: {containers: [{name: it}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web-v1, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {serviceAccountName: web, containers: [{name: it, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: tcp, port: 5432, targetPort: 8080, appProtocol: tcp}]
";

/// A second after which tokens of the tests are valid for long.
const NOW: f64 = 1_800_000_000.0;

fn objects(text: &str) -> Vec<Object> {
    let parsed = parse("shop.yaml", SHOP.as_bytes(), Raw::Drop).expect("the shop is read");
    let more = parse("more.yaml", text.as_bytes(), Raw::Drop).expect("the objects are read");
    parsed.objects.into_iter().chain(more.objects).collect()
}

fn ask(text: &str, source: &str, destination: &str, request: &[&str]) -> Result<Answer> {
    let known = simulation::of(objects(text));
    let message = match request {
        [] => None,
        [method, path, headers @ ..] => {
            let headers: Vec<String> = headers.iter().map(ToString::to_string).collect();
            Some(Message::read(method, path, &headers)?)
        }
        [_] => panic!("a method without a path"),
    };
    let source = Source::find(&known, source, "default")?;
    let destination = Destination::find(&known, destination, &source.namespace, &source)?;
    Ok(decision::decide(
        &known,
        &source,
        &destination,
        message.as_ref(),
        NOW,
    ))
}

/// `None` for the connection alone, else the status that the client sees.
#[track_caller]
fn check(
    text: &str,
    (source, destination, request): (&str, &str, &[&str]),
    (allowed, enforced_by, status): (bool, Enforcer, Option<u16>),
    because: &str,
) -> Answer {
    let answer = ask(text, source, destination, request).expect("an answer");
    let shown = screen::of(&answer);
    let shown = anstream::adapter::strip_str(&shown).to_string();
    assert_eq!(
        (answer.allowed, answer.enforced_by, answer.status),
        (allowed, enforced_by, status),
        "{shown}"
    );
    let heading = shown.split("\n\n").next().unwrap_or_default();
    assert!(heading.contains(because), "no {because:?} in\n{shown}");
    answer
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}"
    )
}

const CLIENT: &str = "shop/client";

#[test]
fn nothing_in_the_way_is_allowed() {
    for destination in [
        "web.shop:80",
        "shop/web",
        "web",
        "web.shop.svc.cluster.local:80",
    ] {
        let answer = check(
            "",
            (CLIENT, destination, &[]),
            (true, Enforcer::Node, None),
            "allowed",
        );
        assert!(!answer.needs_request);
    }
}

#[test]
fn a_node_denies_by_identity() {
    let deny = policy(
        "no-client",
        "  action: DENY\n  rules:\n  - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]\n",
    );
    check(
        &deny,
        (CLIENT, "web.shop:80", &[]),
        (false, Enforcer::Node, None),
        "AuthorizationPolicy shop/no-client, more.yaml:7",
    );
    check(
        &deny,
        (CLIENT, "web.shop:80", &["GET", "/"]),
        (false, Enforcer::Node, None),
        "from.source.principals",
    );
    check(
        &deny,
        ("spiffe://cluster.local/ns/shop/sa/web", "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "allowed",
    );
}

#[test]
fn a_dry_run_decides_nothing_and_is_told() {
    let deny = policy(
        "try",
        "  action: DENY\n  rules:\n  - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]\n",
    );
    let annotated = "namespace: shop, annotations: {istio.io/dry-run: \"true\"}}";
    let dry_run = deny.replace("namespace: shop}", annotated);
    let answer = check(
        &dry_run,
        (CLIENT, "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "dry run: would be denied by AuthorizationPolicy shop/try, more.yaml:7",
    );
    assert!(answer.verdict.starts_with("allowed"), "{}", answer.verdict);
    let source = "spiffe://cluster.local/ns/shop/sa/web";
    let answer = check(
        &dry_run,
        (source, "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "allowed",
    );
    assert!(answer.reasons.is_empty(), "{:?}", answer.reasons);
}

#[test]
fn no_allow_policy_matches() {
    let allow = policy(
        "only-api",
        "  rules:\n  - from: [{source: {principals: [cluster.local/ns/shop/sa/api]}}]\n    \
         to: [{operation: {ports: ['8080']}}]\n",
    );
    check(
        &allow,
        (CLIENT, "web.shop:80", &[]),
        (false, Enforcer::Node, None),
        "AuthorizationPolicy shop/only-api, more.yaml:6: rule 1 fails on from.source.principals: \
         \"cluster.local/ns/shop/sa/client\", wanted cluster.local/ns/shop/sa/api",
    );
    check(
        &allow,
        ("spiffe://cluster.local/ns/shop/sa/api", "web.shop:80", &[]),
        (true, Enforcer::Node, None),
        "allowed by AuthorizationPolicy shop/only-api",
    );
}

/// At a node, which has only the rules about connections, and with the numbers of the file.
#[test]
fn each_rule_is_told_with_its_own_line() {
    let text = policy(
        "some",
        "  rules:\n  - to: [{operation: {methods: [GET]}}]\n    from: [{source: {namespaces: [bank]}}]\n  \
         - from: [{source: {namespaces: [mars]}}]\n  - from: [{source: {namespaces: [shop]}}]\n",
    );
    let off = "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  \
               labels: {istio.io/dataplane-mode: ambient, weft.dev/waypoint: 'off'}\n";
    let text = format!("{text}{off}");
    let known = |text: &str| {
        let mut objects = objects("");
        let own = parse("own.yaml", text.as_bytes(), Raw::Drop).expect("read");
        objects.retain(|object| own.objects.iter().all(|one| one.key() != object.key()));
        objects.extend(own.objects);
        simulation::of(objects)
    };
    let known = known(&text);
    let source = Source::find(&known, CLIENT, "default").expect("the client");
    let destination = Destination::find(&known, "web", "shop", &source).expect("the service");
    let answer = decision::decide(&known, &source, &destination, None, NOW);
    assert_eq!(
        (answer.enforced_by, answer.verdict.as_str()),
        (
            Enforcer::Node,
            "allowed by AuthorizationPolicy shop/some, own.yaml:9"
        )
    );
    let reasons = answer.reasons.join("\n");
    assert!(reasons.starts_with("rule 3 matches"), "{reasons}");
}

#[test]
fn a_waypoint_denies_by_what_requests_say() {
    const REFUSED: (bool, Enforcer, Option<u16>) = (false, Enforcer::Waypoint, Some(403));
    const PASSED: (bool, Enforcer, Option<u16>) = (true, Enforcer::Waypoint, None);
    let targeted = |spec: &str| {
        let target = "  targetRefs: [{group: \"\", kind: Service, name: web}]\n";
        policy("rule", &format!("{target}{spec}"))
    };
    let deny_path =
        targeted("  action: DENY\n  rules: [{to: [{operation: {paths: [/admin, /admin/*]}}]}]\n");
    let deny_method =
        targeted("  action: DENY\n  rules: [{to: [{operation: {methods: [POST]}}]}]\n");
    let deny_header = targeted(
        "  action: DENY\n  rules: [{when: [{key: 'request.headers[x-role]', values: [blocked]}]}]\n",
    );
    let deny_host =
        targeted("  action: DENY\n  rules: [{to: [{operation: {hosts: [forbidden.example]}}]}]\n");
    let allow = targeted("  rules: [{to: [{operation: {methods: [GET], paths: [/info*]}}]}]\n");
    for (text, request, expected, because) in [
        (&deny_path, &["GET", "/public"][..], PASSED, "allowed"),
        (
            &deny_path,
            &["GET", "/admin"],
            REFUSED,
            "rule 1 matches to.operation.paths: \"/admin\"",
        ),
        (&deny_path, &["GET", "/x/../admin"], REFUSED, "\"/admin\""),
        (&deny_path, &["GET", "/./admin"], REFUSED, "\"/admin\""),
        (&deny_path, &["GET", "/x/..%2e/admin/"], PASSED, "allowed"),
        (&deny_path, &["GET", "/%61dmin"], REFUSED, "\"/admin\""),
        (&deny_path, &["GET", "/admin?x=y"], REFUSED, "\"/admin\""),
        (
            &deny_method,
            &["POST", "/"],
            REFUSED,
            "to.operation.methods",
        ),
        (&deny_method, &["GET", "/"], PASSED, "allowed"),
        (
            &deny_header,
            &["GET", "/", "X-Role: fine", "X-Role: blocked"],
            REFUSED,
            "when request.headers[x-role]",
        ),
        (
            &deny_header,
            &["GET", "/", "x-role: blocked,fine"],
            PASSED,
            "allowed",
        ),
        (
            &deny_host,
            &["GET", "/", "Host: FORBIDDEN.example:80"],
            REFUSED,
            "to.operation.hosts",
        ),
        (
            &deny_host,
            &["GET", "/", "Host: other.example"],
            PASSED,
            "allowed",
        ),
        (&allow, &["GET", "/info/x"], PASSED, "allowed by"),
        (
            &allow,
            &["POST", "/info/x"],
            REFUSED,
            "rule 1 fails on to.operation.methods: \"POST\", wanted GET",
        ),
    ] {
        let answer = check(text, (CLIENT, "web.shop:80", request), expected, because);
        assert!(
            answer
                .trace
                .iter()
                .any(|step| step.text.contains("waypoint shop/waypoint"))
        );
    }
    // The connection alone.
    let answer = check(&deny_path, (CLIENT, "web.shop:80", &[]), PASSED, "METHOD");
    assert!(answer.needs_request);
}

#[test]
fn a_pod_behind_a_waypoint_is_not_reached_around_it() {
    let deny = policy(
        "no-admin",
        "  selector: {matchLabels: {app: web}}\n  action: DENY\n  \
         rules: [{to: [{operation: {paths: [/admin]}}]}]\n",
    );
    // Through the waypoint, whatever is dialled.
    for destination in ["web.shop:80", "shop/web-v1:8080"] {
        check(
            &deny,
            (CLIENT, destination, &["GET", "/admin"]),
            (false, Enforcer::Waypoint, Some(403)),
            "AuthorizationPolicy shop/no-admin, more.yaml:7",
        );
        check(
            &deny,
            (CLIENT, destination, &["GET", "/public"]),
            (true, Enforcer::Waypoint, None),
            "allowed",
        );
        // And not at all from outside.
        let routed = format!(
            "{deny}---\n{}",
            route("  - backendRefs: [{name: web, port: 80}]\n")
        );
        let answer = check(
            &routed,
            ("outside/stranger", destination, &["GET", "/public"]),
            (false, Enforcer::Node, None),
            "only waypoint shop/waypoint may connect here",
        );
        let reasons = answer.reasons.join("\n");
        assert!(reasons.contains("shop/no-admin covers it"), "{reasons}");
        assert!(!reasons.contains("HTTPRoute"), "{reasons}");
        let trace = format!("{:?}", answer.trace);
        assert!(trace.contains("of which a node knows nothing"), "{trace}");
    }
}

fn route(rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: way, namespace: shop}}\nspec:\n  \
         parentRefs: [{{group: \"\", kind: Service, name: web}}]\n  rules:\n{rules}"
    )
}

#[test]
fn routes_that_match_nothing_answer_404() {
    let api = route(
        "  - matches: [{path: {type: PathPrefix, value: /api}}]\n    \
         backendRefs: [{name: web, port: 80}]\n",
    );
    let answer = check(
        &api,
        (CLIENT, "web.shop:80", &["GET", "/api/x"]),
        (true, Enforcer::Waypoint, None),
        "allowed",
    );
    let route = answer.route.expect("a route");
    assert_eq!(
        (route.route.as_deref(), route.rule),
        (Some("HTTPRoute shop/way"), Some(1))
    );
    assert_eq!(route.backends, ["web.shop.svc.cluster.local:80"]);
    check(
        &api,
        (CLIENT, "web.shop:80", &["GET", "/other"]),
        (false, Enforcer::Waypoint, Some(404)),
        "HTTPRoute shop/way, more.yaml:1",
    );
}

#[test]
fn backends_that_are_not_there_answer_500() {
    check(
        &route("  - backendRefs: [{name: nowhere, port: 80}]\n"),
        (CLIENT, "web.shop:80", &["GET", "/"]),
        (false, Enforcer::Waypoint, Some(500)),
        "no backend",
    );
    // A share of them is refused.
    check(
        &route("  - backendRefs: [{name: web, port: 80, weight: 9}, {name: nowhere, port: 80}]\n"),
        (CLIENT, "web.shop:80", &["GET", "/"]),
        (false, Enforcer::Waypoint, Some(500)),
        "at 1 of 2 ends",
    );
}

#[test]
fn a_redirect_is_an_answer() {
    check(
        &route(
            "  - filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, hostname: a.example}}]\n",
        ),
        (CLIENT, "web.shop:80", &["GET", "/"]),
        (true, Enforcer::Waypoint, Some(301)),
        "redirected",
    );
}

#[test]
fn what_is_malformed_is_refused_before_policies() {
    let deny = policy(
        "rule",
        "  targetRefs: [{group: \"\", kind: Service, name: web}]\n  action: DENY\n  \
         rules: [{to: [{operation: {paths: [/admin]}}]}]\n",
    );
    for request in [
        &["GET", "/a%00b"][..],
        &["GET", "/", "Host: a@b"],
        &["GET", "no-path"],
    ] {
        check(
            &deny,
            (CLIENT, "web.shop:80", request),
            (false, Enforcer::Waypoint, Some(400)),
            "malformed",
        );
    }
}

#[test]
fn a_waypoint_that_is_not_there_refuses() {
    let label = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\n  \
                 labels: {istio.io/use-waypoint: gone}\n\
                 spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
    let mut objects = objects("");
    let own = parse("own.yaml", label.as_bytes(), Raw::Drop).expect("read");
    objects.retain(|object| object.key() != own.objects[0].key());
    objects.extend(own.objects);
    let known = simulation::of(objects);
    let source = Source::find(&known, CLIENT, "default").expect("the client");
    let destination = Destination::find(&known, "web", "shop", &source).expect("the service");
    let answer = decision::decide(&known, &source, &destination, None, NOW);
    assert!(!answer.allowed && answer.enforced_by == Enforcer::Node);
    let reasons = answer.reasons.join("\n");
    assert!(
        reasons.contains("waypoint shop/gone is not there"),
        "{reasons}"
    );
    assert!(reasons.contains("own.yaml:1"), "{reasons}");
}

/// Two Gateways, and a service of its own that both are in front of.
fn shared(weight: &str, more: &str) -> String {
    let gateway = |name: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: {name}, namespace: shop}}\n\
             spec: {{gatewayClassName: istio-waypoint, \
             listeners: [{{name: mesh, port: 15008, protocol: HBONE}}]}}\n---\n"
        )
    };
    format!(
        "{}{}apiVersion: v1\nkind: Service\nmetadata:\n  name: shared\n  namespace: shop\n  \
         labels: {{istio.io/use-waypoint: first, istio.io/use-waypoint-canary: next}}\n  \
         annotations: {{istio.io/use-waypoint-canary-weight: '{weight}'}}\n\
         spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n{more}",
        gateway("first"),
        gateway("next")
    )
}

#[test]
fn each_of_the_waypoints_that_share_connections_is_asked() {
    let denied_at = |gateway: &str| {
        let group = "gateway.networking.k8s.io";
        policy(
            "no-admin",
            &format!(
                "  targetRefs: [{{group: {group}, kind: Gateway, name: {gateway}}}]\n  action: DENY\n  \
                 rules: [{{to: [{{operation: {{paths: [/admin]}}}}]}}]\n"
            ),
        )
    };
    let ask = |weight, gateway, path, expected, because| {
        let text = shared(weight, &denied_at(gateway));
        check(
            &text,
            (CLIENT, "shared.shop:80", &["GET", path]),
            expected,
            because,
        )
    };
    const REFUSED: (bool, Enforcer, Option<u16>) = (false, Enforcer::Waypoint, Some(403));
    const PASSED: (bool, Enforcer, Option<u16>) = (true, Enforcer::Waypoint, None);
    let answer = ask("20", "next", "/public", PASSED, "allowed");
    let step = answer
        .trace
        .iter()
        .find(|step| step.text.contains("in front of"));
    let step = step.expect("a step of the waypoints");
    assert_eq!(
        step.text,
        "waypoint shop/first (80 % of connections) and canary waypoint shop/next (20 % of \
         connections) are in front of Service shop/shared"
    );
    // Denied at one of the two, and said at which.
    ask(
        "20",
        "next",
        "/admin",
        REFUSED,
        "canary waypoint shop/next (20 % of connections): denied by",
    );
    ask(
        "20",
        "first",
        "/admin",
        REFUSED,
        "canary waypoint shop/next (20 % of connections): allowed",
    );
    // One of them has all.
    ask("100", "next", "/admin", REFUSED, "denied by");
    let answer = ask("100", "first", "/admin", PASSED, "allowed");
    let said = format!("{:?}", answer.trace);
    assert!(
        said.contains("as spiffe://cluster.local/ns/shop/sa/next"),
        "{said}"
    );
    ask("0", "next", "/admin", PASSED, "allowed");
    let answer = ask("many", "next", "/admin", PASSED, "allowed");
    let said = format!("{:?}", answer.trace);
    assert!(
        said.contains("gets no connection: CanaryInvalidWeight"),
        "{said}"
    );
}

/// What of a policy is about requests says nothing of a connection that carries none.
#[test]
fn a_port_of_tcp_knows_no_requests() {
    let target = "  targetRefs: [{group: \"\", kind: Service, name: db}]\n";
    let rules = "  rules: [{to: [{operation: {methods: [GET]}}]}]\n";
    for (action, because) in [
        ("", "fails on to.operation.methods: not an HTTP request"),
        ("  action: DENY\n", "denied by AuthorizationPolicy shop/db"),
    ] {
        let text = policy("db", &format!("{target}{action}{rules}"));
        for request in [&[][..], &["GET", "/"]] {
            check(
                &text,
                (CLIENT, "db.shop:5432", request),
                (false, Enforcer::Waypoint, None),
                because,
            );
        }
    }
}

/// Refused whatever is sent, so that no request need be named.
#[test]
fn what_refuses_every_request_refuses_the_connection() {
    let text = policy(
        "nobody",
        "  targetRefs: [{group: \"\", kind: Service, name: web}]\n  rules:\n  \
         - from: [{source: {namespaces: [elsewhere]}}]\n    \
         to: [{operation: {methods: [GET]}}]\n",
    );
    let answer = check(
        &text,
        (CLIENT, "web.shop:80", &[]),
        (false, Enforcer::Waypoint, Some(403)),
        "from.source.namespaces",
    );
    assert!(!answer.needs_request);
}

/// Its keys are somewhere else, so that what it says is believed.
#[test]
fn claims_decide() {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\n\
         metadata: {{name: tokens, namespace: shop}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  \
         jwtRules: [{{issuer: me, jwksUri: 'https://me.example/keys'}}]\n---\n{}",
        policy(
            "staff",
            "  selector: {matchLabels: {app: web}}\n  \
             rules: [{when: [{key: 'request.auth.claims[group]', values: [staff]}]}]\n",
        )
    );
    let token = |claims: &str| {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let header = encode(r#"{"alg":"RS256"}"#);
        format!(
            "authorization: Bearer {header}.{}.c2lnbmF0dXJl",
            encode(claims)
        )
    };
    let ask = |token: Option<String>, expected, because| {
        let mut request = vec!["GET", "/"];
        request.extend(token.as_deref());
        check(&text, (CLIENT, "web.shop:80", &request), expected, because)
    };
    let answer = ask(
        Some(token(r#"{"iss":"me","sub":"x","group":"staff"}"#)),
        (true, Enforcer::Waypoint, None),
        "request.auth.claims[group]",
    );
    let believed = answer
        .trace
        .iter()
        .find(|step| step.text.contains("as if verified"));
    assert!(believed.is_some(), "{answer:?}");
    let denied = (false, Enforcer::Waypoint, Some(403));
    ask(
        Some(token(r#"{"iss":"me","sub":"x","group":"guest"}"#)),
        denied,
        "\"guest\", wanted staff",
    );
    ask(None, denied, "no verified token");
    let refused = (false, Enforcer::Waypoint, Some(401));
    ask(
        Some(token(r#"{"iss":"you","sub":"x","group":"staff"}"#)),
        refused,
        "issuer is not configured",
    );
    ask(
        Some(token(r#"{"iss":"me","group":"staff","exp":1000}"#)),
        refused,
        "expired",
    );
}

#[test]
fn what_is_not_there_is_said() {
    use crate::exit::Exit;
    for (source, destination, exit) in [
        ("shop/nobody", "web.shop:80", Exit::NotFound),
        (CLIENT, "nothing.shop:80", Exit::NotFound),
        (CLIENT, "web.shop:0", Exit::Usage),
        (CLIENT, "192.0.2.1", Exit::Usage),
    ] {
        let failure = ask("", source, destination, &[]).expect_err("no answer");
        assert_eq!(failure.exit, exit, "{source} {destination}");
    }
}

#[test]
fn the_screen_begins_with_the_verdict() {
    let text = policy(
        "no-admin",
        "  targetRefs: [{group: \"\", kind: Service, name: web}]\n  action: DENY\n  \
         rules: [{to: [{operation: {paths: [/admin]}}]}]\n",
    );
    let answer = ask(&text, CLIENT, "web.shop", &["GET", "/x/../admin"]).expect("an answer");
    let shown = screen::of(&answer);
    insta::assert_snapshot!("screen", anstream::adapter::strip_str(&shown).to_string());
    insta::assert_snapshot!("json", serde_json::to_string_pretty(&answer).expect("JSON"));
}
