//! Routes and token rules as the golden files show them: structure as YAML, single values in
//! the words of the model.

use std::fmt::Debug;

use mesh::request_authentication::{JwtRule, RequestAuthentication};
use mesh::route::{Backend, HttpMatch, HttpRule, Route, RouteParent, RouteRules, TcpRule};
use serde_json::{Value, json};

pub(crate) fn route(route: &Route) -> Value {
    let rules: Vec<Value> = match &route.rules {
        RouteRules::Http(rules) => rules.iter().map(http_rule).collect(),
        RouteRules::Tcp(rules) => rules.iter().map(tcp_rule).collect(),
    };
    json!({
        "key": route.key.to_string(),
        "parents": route.parents.iter().map(parent).collect::<Vec<_>>(),
        "created": route.created,
        "rules": rules,
    })
}

fn parent(parent: &RouteParent) -> Value {
    let port = parent.port.map_or(String::new(), |port| format!(":{port}"));
    let clients = parent.clients.as_ref();
    let clients = clients.map_or(String::new(), |clients| {
        format!(" for clients of {clients}")
    });
    json!(format!("{}{port}{clients}", parent.service))
}

fn http_rule(rule: &HttpRule) -> Value {
    let mut shown = json!({
        "matches": rule.matches.iter().map(http_match).collect::<Vec<_>>(),
        "backends": rule.backends.iter().map(backend).collect::<Vec<_>>(),
    });
    if let Some(name) = &rule.name {
        shown["name"] = json!(name);
    }
    if !rule.filters.is_empty() {
        shown["filters"] = all(&rule.filters);
    }
    if rule.timeouts != Default::default() {
        shown["timeouts"] = one(&rule.timeouts);
    }
    if let Some(retry) = &rule.retry {
        shown["retry"] = one(retry);
    }
    shown
}

fn tcp_rule(rule: &TcpRule) -> Value {
    json!({ "backends": rule.backends.iter().map(backend).collect::<Vec<_>>() })
}

fn http_match(shown: &HttpMatch) -> Value {
    let mut value = json!({});
    if let Some(path) = &shown.path {
        value["path"] = one(path);
    }
    if let Some(method) = &shown.method {
        value["method"] = json!(method.as_str());
    }
    if !shown.headers.is_empty() {
        value["headers"] = all(&shown.headers);
    }
    if !shown.query_params.is_empty() {
        value["queryParams"] = all(&shown.query_params);
    }
    value
}

fn backend(backend: &Backend) -> Value {
    let mut shown = json!({ "backend": one(&backend.backend), "weight": backend.weight });
    if !backend.filters.is_empty() {
        shown["filters"] = all(&backend.filters);
    }
    shown
}

pub(crate) fn request_authentication(policy: &RequestAuthentication) -> Value {
    json!({
        "key": policy.key().to_string(),
        "scope": policy.scope,
        "targets": policy.targets,
        "rules": policy.rules.iter().map(jwt_rule).collect::<Vec<_>>(),
    })
}

fn jwt_rule(rule: &JwtRule) -> Value {
    json!({
        "issuer": rule.issuer,
        "audiences": rule.audiences,
        "keys": one(&rule.keys),
        "locations": all(&rule.locations),
        "outputPayloadToHeader": rule.output_payload_to_header,
        "outputClaimToHeaders": all(&rule.output_claim_to_headers),
        "forwardOriginalToken": rule.forward_original_token,
        "timeout": one(&rule.timeout),
        "spaceDelimitedClaims": rule.space_delimited_claims,
    })
}

fn all<T: Debug>(values: &[T]) -> Value {
    values.iter().map(one).collect()
}

fn one<T: Debug>(value: &T) -> Value {
    json!(format!("{value:?}"))
}
