//! GRPCRoute: services and methods as protobuf names them.

use crate::kinds::grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteRule};
use crate::kinds::http_route::TextMatchType;
use crate::validate::route_filter::{self, Of};
use crate::validate::{Problems, Validate, http, http_route, route};

const MAX_MATCHES: usize = 64;
const MAX_NAME: usize = 1024;

impl Validate for GrpcRoute {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        route::hostnames(&spec.hostnames, &spec.parent_refs, problems);
        let rules = spec.rules.iter();
        let rules = rules.map(|rule| (rule.name.as_ref(), rule.matches.len()));
        route::http_rules(&spec.parent_refs, rules, problems);
        for (index, rule) in spec.rules.iter().enumerate() {
            self::rule(&format!("spec.rules[{index}]"), rule, problems);
        }
    }
}

fn rule(field: &str, rule: &GrpcRouteRule, problems: &mut Problems<'_>) {
    problems.at_most(format!("{field}.matches"), rule.matches.len(), MAX_MATCHES);
    for (index, one) in rule.matches.iter().enumerate() {
        let field = format!("{field}.matches[{index}]");
        if let Some(one) = &one.method {
            method(&format!("{field}.method"), one, problems);
        }
        http_route::headers(&format!("{field}.headers"), &one.headers, problems);
    }
    route_filter::filters(
        &format!("{field}.filters"),
        &rule.filters,
        Of::Grpc,
        problems,
    );
    let backends = format!("{field}.backendRefs");
    route::backends(&backends, &rule.backend_refs, problems);
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let filters = format!("{backends}[{index}].filters");
        route_filter::filters(&filters, &backend.filters, Of::Grpc, problems);
    }
}

fn method(field: &str, one: &GrpcMethodMatch, problems: &mut Problems<'_>) {
    if one.service.is_none() && one.method.is_none() {
        problems.error(field, "names neither service nor method: give one");
    }
    let parts = [
        ("service", &one.service, service as fn(&str) -> bool),
        ("method", &one.method, identifier),
    ];
    for (name, text, fine) in parts {
        let Some(text) = text else { continue };
        let field = format!("{field}.{name}");
        match one.type_ {
            TextMatchType::RegularExpression => problems.check(field, http::pattern(text)),
            TextMatchType::Exact if text.len() > MAX_NAME || !fine(text) => problems.error(
                field,
                format!("{text:?} is not the name of a {name} of gRPC"),
            ),
            TextMatchType::Exact => {}
        }
    }
}

/// With its package: `helloworld.Greeter`.
fn service(text: &str) -> bool {
    text.split('.').all(identifier)
}

fn identifier(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit())
}
