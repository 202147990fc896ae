//! Tests of validation: one document each, and the field and words of its first error.

mod request_authentication;
mod routes;

use crate::kinds::metadata::ObjectMeta;
use crate::parse::{Raw, parse};

fn errors(text: &str) -> Vec<String> {
    match parse("x.yaml", text.as_bytes(), Raw::Drop) {
        Ok(_) => Vec::new(),
        Err(rejected) => rejected
            .errors
            .iter()
            .map(|error| {
                assert_ne!(error.line, 0, "{error} has no place");
                format!("{}: {}", error.field, error.message)
            })
            .collect(),
    }
}

fn document(api_version: &str, kind: &str, spec: &str) -> String {
    format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: one}}\nspec: {spec}\n")
}

/// Expects each spec to be refused with the words, or taken where there are none.
#[track_caller]
fn check(api_version: &str, kind: &str, cases: &[(&str, &str)]) {
    for (spec, expected) in cases {
        let errors = errors(&document(api_version, kind, spec));
        match *expected {
            "" => assert_eq!(errors, [""; 0], "{spec}"),
            words => assert!(
                errors.first().is_some_and(|error| error.contains(words)),
                "{spec}: {errors:?} has no {words:?}"
            ),
        }
    }
}

#[test]
fn names_are_rfc_1123() {
    for (name, fine) in [
        ("a", true),
        ("a-1.b", true),
        ("A", false),
        ("-a", false),
        ("a_b", false),
        ("a..b", false),
        ("../a", false),
        (&"a".repeat(64), false),
    ] {
        let text = format!("apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}}}\n");
        assert_eq!(errors(&text).is_empty(), fine, "{name}");
    }
    let nameless = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {}\n";
    assert_eq!(
        errors(nameless),
        ["metadata.name: has no value: every object needs a name"]
    );
    assert_eq!(ObjectMeta::default().name, "");
}

#[test]
fn authorization_policies_say_what_they_mean() {
    let source = |source: &str| format!("{{rules: [{{from: [{{source: {source}}}]}}]}}");
    let operation = |operation: &str| format!("{{rules: [{{to: [{{operation: {operation}}}]}}]}}");
    let when = |when: &str| format!("{{rules: [{{when: [{when}]}}]}}");
    let cases = [
        (source("{principals: [\"*/sa/web\"]}"), ""),
        (
            source("{principals: [\"spiffe://a/ns/b/sa/c\"]}"),
            "match nobody",
        ),
        (source("{namespaces: [\"a*b\"]}"), "would match nothing"),
        (source("{namespaces: [\"*a*\"]}"), "would match nothing"),
        (source("{}"), "which would match everything"),
        (
            source("{ipBlocks: [10.0.0.0/33]}"),
            "not an IP address or range",
        ),
        (source("{serviceAccounts: [a/b, c]}"), ""),
        (source("{serviceAccounts: [\"a/*\"]}"), "without wildcards"),
        (
            source("{serviceAccounts: [a/b], namespaces: [a]}"),
            "together with principals or namespaces",
        ),
        (
            source(&format!("{{serviceAccounts: [{}]}}", "a,".repeat(17))),
            "has 17 accounts",
        ),
        (operation("{ports: [\"80\"]}"), ""),
        (operation("{ports: [80]}"), "put it in quotes"),
        (operation("{ports: [\"0\"]}"), "not a port"),
        (operation("{ports: [\"http\"]}"), "not a port"),
        (operation("{paths: [\"/a/{*}/b/{**}\"]}"), ""),
        (operation("{paths: [\"/a/{**}/b\"]}"), "not a template"),
        (when("{key: source.ip, values: [10.0.0.1]}"), ""),
        (when("{key: source.ip, values: [x]}"), "not an IP address"),
        (when("{key: source.color, values: [red]}"), "is not a key"),
        (when("{key: source.ip}"), "is empty, and so is notValues"),
        ("{action: CUSTOM}".into(), "needs a provider"),
        (
            "{action: DENY, provider: {name: x}}".into(),
            "only for action CUSTOM",
        ),
        (
            "{action: Deny}".into(),
            "is not one of ALLOW, DENY, AUDIT, CUSTOM",
        ),
        (
            "{selector: {matchLabels: {a: b}}, targetRefs: [{kind: Service, name: x}]}".into(),
            "keep one of them",
        ),
        (
            "{targetRefs: [{kind: Service}]}".into(),
            "targetRefs[0].name",
        ),
        (
            "{targetRefs: [{kind: Service, name: x, namespace: far}]}".into(),
            "its own namespace only",
        ),
        (
            format!(
                "{{targetRefs: [{}]}}",
                "{kind: Service, name: x},".repeat(17)
            ),
            "17 targets",
        ),
        (format!("{{rules: [{}]}}", "{},".repeat(513)), "513 rules"),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(s, e)| (s.as_str(), *e)).collect();
    check("security.istio.io/v1", "AuthorizationPolicy", &cases);
}

#[test]
fn peer_authentications_have_port_levels_for_selected_workloads() {
    check(
        "security.istio.io/v1beta1",
        "PeerAuthentication",
        &[
            ("{mtls: {mode: STRICT}}", ""),
            ("{mtls: {mode: strict}}", "is not one of UNSET"),
            (
                "{portLevelMtls: {80: {mode: STRICT}}}",
                "needs spec.selector",
            ),
            (
                "{selector: {matchLabels: {}}, portLevelMtls: {80: {mode: STRICT}}}",
                "needs spec.selector",
            ),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
                "is not a port",
            ),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}",
                "has no port",
            ),
            (
                "{selector: {matchLabels: {a: b}}, portLevelMtls: {\"80\": {mode: STRICT}}}",
                "",
            ),
            ("{mtl: {mode: STRICT}}", "did you mean mtls?"),
        ],
    );
}

#[test]
fn services_have_ports_that_can_be_told_apart() {
    check(
        "v1",
        "Service",
        &[
            ("{ports: [{port: 80}]}", ""),
            ("{}", "has no port"),
            ("{clusterIP: None}", ""),
            ("{ports: [{port: 0}]}", "0 is not a port"),
            ("{ports: [{port: 80}, {port: 81}]}", "name each"),
            (
                "{ports: [{name: a, port: 80}, {name: b, port: 80}]}",
                "there twice",
            ),
            (
                "{ports: [{name: a, port: 80}, {name: b, port: 80, protocol: UDP}]}",
                "",
            ),
            ("{ports: [{port: 80, targetPort: Http}]}", "a port's name"),
            ("{ports: [{port: 80}], clusterIP: web}", "not an IP address"),
            (
                "{ports: [{port: 80}], ipFamilies: [IPv4, IPv4]}",
                "names a family twice",
            ),
            (
                "{ports: [{port: 80}], clusterIPs: [\"fd00::1\"], ipFamilies: [IPv4]}",
                "not of the family",
            ),
            ("{type: ExternalName}", "needs one"),
            (
                "{ports: [{port: 80}], trafficDistribution: Near}",
                "is not one of",
            ),
        ],
    );
}

#[test]
fn pods_have_containers_that_can_run() {
    let container = |container: &str| format!("{{containers: [{{name: a, {container}}}]}}");
    let cases = [
        (container("command: [sleep, \"9\"]"), ""),
        ("{containers: []}".into(), "has no container"),
        ("{containers: [{name: a}, {name: a}]}".into(), "there twice"),
        (
            container("ports: [{containerPort: 70000}]"),
            "from 0 to 65535",
        ),
        (
            container("readinessProbe: {httpGet: {port: http}}"),
            "no port named \"http\"",
        ),
        (container("readinessProbe: {}"), "exactly one of"),
        (
            container("livenessProbe: {tcpSocket: {port: 80}, periodSeconds: 0}"),
            "must be at least 1",
        ),
        (
            container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.color}}}]"),
            "is not one of metadata.name",
        ),
        (
            container("env: [{name: \"A=B\", value: c}]"),
            "variable's name",
        ),
        (
            "{containers: [{name: a}], dnsPolicy: None}".into(),
            "has no server",
        ),
        (
            "{containers: [{name: a}], serviceAccountName: ../root}".into(),
            "is not a name",
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(s, e)| (s.as_str(), *e)).collect();
    check("v1", "Pod", &cases);
}

#[test]
fn deployments_select_their_own_pods() {
    let template = "template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a}]}}";
    let cases = [
        (
            format!("{{selector: {{matchLabels: {{app: a}}}}, {template}}}"),
            "",
        ),
        (
            format!("{{selector: {{matchLabels: {{app: b}}}}, {template}}}"),
            "own pods",
        ),
        (format!("{{{template}}}"), "is empty"),
        (
            format!("{{replicas: -1, selector: {{matchLabels: {{app: a}}}}, {template}}}"),
            "whole number",
        ),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(s, e)| (s.as_str(), *e)).collect();
    check("apps/v1", "Deployment", &cases);
}

#[test]
fn service_entries_agree_with_their_resolution() {
    let ports = "ports: [{number: 80, name: http, protocol: HTTP}]";
    let cases = [
        ("hosts: [a.example.com], resolution: DNS", ""),
        ("hosts: []", "from 1 to 256"),
        ("hosts: [\"*\"]", "names every host"),
        (
            "hosts: [\"*.example.com\"], resolution: DNS",
            "can't be resolved",
        ),
        ("hosts: [\"*.example.com\"], resolution: NONE", ""),
        ("hosts: [\"a b\"]", "not a DNS name"),
        (
            "hosts: [a.b], addresses: [10.0.0.0/8], resolution: DNS",
            "range of addresses",
        ),
        ("hosts: [a.b], addresses: [x]", "not an IP address or range"),
        ("hosts: [a.b], resolution: STATIC", "needs endpoints"),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: c.d}]",
            "resolution STATIC needs one",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {x: 1}}]",
            "no port of spec.ports",
        ),
        (
            "hosts: [a.b], endpoints: [{address: 1.2.3.4}]",
            "takes no endpoints",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: 1.2.3.4}], \
             workloadSelector: {labels: {a: b}}",
            "keep one of them",
        ),
        (
            "hosts: [a.b], resolution: STATIC, workloadSelector: {labels: {}}",
            "would choose every workload",
        ),
        (
            "hosts: [a.b], resolution: DNS_ROUND_ROBIN, \
             endpoints: [{address: c.d}, {address: e.f}]",
            "at most one endpoint",
        ),
        (
            "hosts: [a.b], resolution: STATIC, endpoints: [{address: \"unix:///x\"}]",
            "unix socket",
        ),
    ];
    let cases: Vec<(String, &str)> = cases
        .iter()
        .map(|(spec, expected)| (format!("{{{spec}, {ports}}}"), *expected))
        .collect();
    let cases: Vec<(&str, &str)> = cases.iter().map(|(s, e)| (s.as_str(), *e)).collect();
    check("networking.istio.io/v1", "ServiceEntry", &cases);
}

#[test]
fn workload_entries_have_an_address() {
    check(
        "networking.istio.io/v1",
        "WorkloadEntry",
        &[
            ("{address: 10.0.0.1}", ""),
            ("{address: vm.example.com}", ""),
            ("{}", "has no value"),
            (
                "{address: 10.0.0.1, locality: a/b/c/d}",
                "region/zone/subzone",
            ),
            ("{address: 10.0.0.1, weight: -1}", "whole number"),
            ("{address: 10.0.0.1, ports: {http: 0}}", "not a port"),
        ],
    );
}
