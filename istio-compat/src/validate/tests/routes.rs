//! Validation of the routes of Gateway API, of Gateways and ReferenceGrants.

use super::check;

const V1: &str = "gateway.networking.k8s.io/v1";
const PARENT: &str = "parentRefs: [{group: \"\", kind: Service, name: web}]";

fn specs<'a>(cases: &'a [(String, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let cases = cases.iter();
    cases.map(|(spec, words)| (spec.as_str(), *words)).collect()
}

/// A route of one rule.
fn rule(rule: &str) -> String {
    format!("{{{PARENT}, rules: [{{{rule}}}]}}")
}

fn matching(one: &str) -> String {
    rule(&format!("matches: [{one}]"))
}

fn filtered(filters: &str) -> String {
    rule(&format!("filters: [{filters}]"))
}

#[test]
fn routes_have_parents_and_rules_within_the_limits() {
    let many = |item: &str, count: usize| vec![item; count].join(", ");
    let matches = many("{path: {value: /a}}", 65);
    let rules = many("{}", 17);
    let cases = [
        (format!("{{{PARENT}, rules: [{{}}]}}"), ""),
        (format!("{{{PARENT}}}"), "has no rule"),
        (
            format!("{{{PARENT}, rules: [{rules}]}}"),
            "17 entries, more than 16",
        ),
        (
            rule(&format!("matches: [{matches}]")),
            "65 entries, more than 64",
        ),
        (
            format!("{{{PARENT}, rules: [{{name: a}}, {{name: a}}]}}"),
            "\"a\" is there twice",
        ),
        (
            "{parentRefs: [{kind: Service, group: \"\", name: a}, \
              {kind: Service, group: \"\", name: a}], rules: [{}]}"
                .to_owned(),
            "is there twice",
        ),
        (rule("backendRefs: [{name: web}]"), "one of its ports"),
        (rule("backendRefs: [{name: web, port: 0}]"), "not a port"),
        (
            rule("backendRefs: [{name: web, port: 80, weight: -1}]"),
            "not a weight",
        ),
        (
            rule("backendRefs: [{name: web, port: 80, weight: 1000000}]"),
            "",
        ),
    ];
    check(V1, "HTTPRoute", &specs(&cases));
}

#[test]
fn matches_of_http_can_hold() {
    let long = format!(
        "{{path: {{type: RegularExpression, value: {}}}}}",
        "a".repeat(1025)
    );
    let cases = [
        (matching("{path: {type: Exact, value: /a}}"), ""),
        (
            matching("{path: {type: Prefix, value: /a}}"),
            "is not one of",
        ),
        (matching("{path: {value: a}}"), "starts with /"),
        (matching("{path: {value: /a/../b}}"), "no request's path"),
        (matching("{path: {value: /a/..}}"), "no request's path"),
        (
            matching("{path: {type: RegularExpression, value: \"/[a\"}}"),
            "no regular expression",
        ),
        (
            matching("{path: {type: RegularExpression, value: \"(x{1000}){1000}\"}}"),
            "no regular expression",
        ),
        (matching(&long), "longer than 1024"),
        (matching("{method: get}"), "is not one of GET"),
        (
            matching("{headers: [{name: \"x y\", value: a}]}"),
            "not a header's name",
        ),
        (
            matching("{headers: [{name: X, value: a}, {name: x, value: b}]}"),
            "\"x\" is there twice",
        ),
        (matching("{headers: [{name: x}]}"), "has no value: add it"),
        (
            matching("{queryParams: [{name: a, value: b}, {name: a, value: c}]}"),
            "is there twice",
        ),
    ];
    check(V1, "HTTPRoute", &specs(&cases));
}

#[test]
fn filters_agree_with_each_other_and_their_rule() {
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: a.com}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a.com}}";
    let prefix = "filters: [{type: URLRewrite, urlRewrite: \
                  {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]";
    let headers = |set: &str| {
        filtered(&format!(
            "{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{set}]}}}}"
        ))
    };
    let mirror = |share: &str| {
        filtered(&format!(
            "{{type: RequestMirror, requestMirror: {{backendRef: {{name: a, port: 80}}{share}}}}}"
        ))
    };
    let cors = |cors: &str| filtered(&format!("{{type: CORS, cors: {{{cors}}}}}"));
    let cases = [
        (filtered(redirect), ""),
        (
            filtered(&format!("{redirect}, {rewrite}")),
            "keep one of them",
        ),
        (
            filtered(&format!("{rewrite}, {rewrite}")),
            "URLRewrite is there twice",
        ),
        (
            rule(&format!(
                "filters: [{redirect}], backendRefs: [{{name: a, port: 80}}]"
            )),
            "answers by itself",
        ),
        (filtered("{type: URLRewrite}"), "needs it"),
        (
            filtered("{type: CORS, cors: {}, urlRewrite: {hostname: a.com}}"),
            "is for filters of type URLRewrite",
        ),
        (filtered("{type: Rewrite}"), "is not one of"),
        (filtered("{requestMirror: {}}"), "has no backendRef"),
        (rule(prefix), ""),
        (
            rule(&format!("{prefix}, matches: [{{path: {{value: /a}}}}]")),
            "",
        ),
        (
            rule(&format!(
                "{prefix}, matches: [{{path: {{type: Exact, value: /a}}}}]"
            )),
            "exactly one match",
        ),
        (
            rule(&format!(
                "{prefix}, matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}]"
            )),
            "exactly one match",
        ),
        (
            filtered("{type: RequestRedirect, requestRedirect: {statusCode: 304}}"),
            "is not one of 301",
        ),
        (
            filtered("{type: RequestRedirect, requestRedirect: {scheme: ftp}}"),
            "is not one of http",
        ),
        (headers("{name: x, value: a}"), ""),
        (headers("{name: x, value: \"\"}"), "has 0 characters"),
        (
            headers("{name: x, value: \"a\\u0000\"}"),
            "not a header's value",
        ),
        (
            headers("{name: x, value: a}, {name: X, value: b}"),
            "is there twice",
        ),
        (mirror(""), ""),
        (mirror(", percent: 101"), "not a percentage"),
        (
            mirror(", percent: 1, fraction: {numerator: 1}"),
            "together with fraction",
        ),
        (
            mirror(", fraction: {numerator: 3, denominator: 2}"),
            "not a fraction",
        ),
        (
            cors("allowOrigins: [\"https://*.example.com:8443\", \"http://a\"]"),
            "",
        ),
        (cors("allowOrigins: [example.com]"), "not an origin"),
        (cors("allowOrigins: [\"*\", \"http://a\"]"), "* alone"),
        (cors("allowMethods: [FETCH]"), "is not one of *"),
        (cors("maxAge: 0"), "from 1 up"),
    ];
    check(V1, "HTTPRoute", &specs(&cases));
}

#[test]
fn limits_of_time_and_tries_are_within_bounds() {
    let cases = [
        (rule("timeouts: {request: 1s, backendRequest: 500ms}"), ""),
        (rule("timeouts: {request: 0s, backendRequest: 5s}"), ""),
        (
            rule("timeouts: {request: 1s, backendRequest: 2s}"),
            "is longer than request",
        ),
        (rule("timeouts: {request: 1.5s}"), "is not a duration"),
        (rule("timeouts: {request: 1d}"), "is not a duration"),
        (rule("retry: {attempts: 0}"), ""),
        (rule("retry: {attempts: -1}"), "not a number of tries"),
        (rule("retry: {codes: [200]}"), "not the status of a failure"),
        (rule("retry: {backoff: 1}"), "put it in quotes"),
    ];
    check(V1, "HTTPRoute", &specs(&cases));
}

#[test]
fn grpc_routes_name_services_and_methods() {
    let cases = [
        (matching("{method: {service: a.b.C, method: Do_it2}}"), ""),
        (matching("{method: {}}"), "neither service nor method"),
        (
            matching("{method: {service: a/b}}"),
            "not the name of a service",
        ),
        (
            matching("{method: {method: 2x}}"),
            "not the name of a method",
        ),
        (
            matching("{method: {type: RegularExpression, method: \"(\"}}"),
            "no regular expression",
        ),
        (
            filtered("{type: URLRewrite, urlRewrite: {hostname: a.com}}"),
            "no filter of GRPCRoute",
        ),
    ];
    check(V1, "GRPCRoute", &specs(&cases));
}

#[test]
fn tcp_routes_have_backends_without_filters() {
    let filters = "{type: RequestHeaderModifier, requestHeaderModifier: {remove: [x]}}";
    let cases = [
        (rule("backendRefs: [{name: db, port: 5432}]"), ""),
        (rule("backendRefs: []"), "has no backend"),
        (
            rule(&format!(
                "backendRefs: [{{name: db, port: 1, filters: [{filters}]}}]"
            )),
            "is about requests",
        ),
    ];
    check(
        "gateway.networking.k8s.io/v1alpha2",
        "TCPRoute",
        &specs(&cases),
    );
}

#[test]
fn gateways_have_listeners_and_grants_both_sides() {
    let gateway =
        |listeners: &str| format!("{{gatewayClassName: istio-waypoint, listeners: [{listeners}]}}");
    let mesh = "{name: mesh, port: 15008, protocol: HBONE}";
    let cases = [
        (gateway(mesh), ""),
        (gateway(""), "has no listener"),
        (gateway(&format!("{mesh}, {mesh}")), "is there twice"),
        (gateway("{name: mesh, port: 15008}"), "use HBONE"),
        (
            gateway(
                "{name: mesh, port: 15008, protocol: HBONE, \
                 allowedRoutes: {namespaces: {from: Selector}}}",
            ),
            "from Selector needs one",
        ),
        (format!("{{listeners: [{mesh}]}}"), "use istio-waypoint"),
    ];
    check(V1, "Gateway", &specs(&cases));
    let grants = [
        (
            "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}], \
             to: [{group: \"\", kind: Service}]}",
            "",
        ),
        ("{to: [{group: \"\", kind: Service}]}", "has no entry"),
    ];
    check(
        "gateway.networking.k8s.io/v1beta1",
        "ReferenceGrant",
        &grants,
    );
    let classes = [
        ("{controllerName: istio.io/mesh-controller}", ""),
        ("{controllerName: mesh}", "write domain/path"),
    ];
    check(V1, "GatewayClass", &classes);
}
