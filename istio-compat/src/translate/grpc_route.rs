//! GRPCRoute to route: a call is a POST to `/service/method`.

use http::Method;
use mesh::route::{HttpMatch, HttpRule, PathMatch, RouteKey, RouteKind, RouteRules, Timeouts};

use crate::kinds::grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule};
use crate::kinds::http_route::TextMatchType;
use crate::translate::http_route::{headers, pattern, refusing, understood};
use crate::translate::route::Translating;
use crate::translate::{Translation, route_filter};
use crate::view::View;

/// Any segment of a path.
const ANY: &str = "[^/]+";

pub(super) fn translate(view: &View, route: &GrpcRoute) -> Translation {
    let metadata = &route.metadata;
    let (namespace, name) = (metadata.namespace.as_str(), metadata.name.as_str());
    let mut translating = Translating::new(view, namespace);
    let rules = route
        .spec
        .rules
        .iter()
        .filter_map(|one| rule(&mut translating, one))
        .collect();
    translating.finish(
        RouteKey::new(RouteKind::Grpc, namespace, name),
        metadata,
        &route.spec.parent_refs,
        RouteRules::Http(rules),
    )
}

/// None where none of its matches could be understood.
fn rule(translating: &mut Translating<'_>, rule: &GrpcRouteRule) -> Option<HttpRule> {
    let default = [GrpcRouteMatch::default()];
    let written = match rule.matches.as_slice() {
        [] => &default,
        matches => matches,
    };
    let matches = understood(translating, written.iter().map(grpc_match));
    if matches.is_empty() {
        return None;
    }
    let (filters, unknown) = route_filter::translate(translating, &rule.filters);
    let backends = translating.backends(&rule.backend_refs);
    Some(HttpRule {
        name: rule.name.as_deref().map(Into::into),
        matches,
        filters,
        backends: unknown.map_or(backends, refusing),
        timeouts: Timeouts::default(),
        retry: None,
    })
}

fn grpc_match(one: &GrpcRouteMatch) -> Result<HttpMatch, String> {
    let path = one.method.as_ref().map(path).transpose()?;
    Ok(HttpMatch {
        path: path.flatten(),
        method: Some(Method::POST),
        headers: headers(&one.headers)?,
        query_params: Vec::new(),
    })
}

/// None where the match names neither service nor method.
fn path(one: &GrpcMethodMatch) -> Result<Option<PathMatch>, String> {
    Ok(
        match (one.type_, one.service.as_deref(), one.method.as_deref()) {
            (_, None, None) => None,
            (TextMatchType::Exact, Some(service), Some(method)) => {
                Some(PathMatch::Exact(format!("/{service}/{method}").into()))
            }
            (TextMatchType::Exact, Some(service), None) => {
                Some(PathMatch::PathPrefix(format!("/{service}").into()))
            }
            // A name has no character that means something in an expression.
            (TextMatchType::Exact, None, Some(method))
            | (TextMatchType::RegularExpression, None, Some(method)) => {
                Some(expression(ANY, method)?)
            }
            (TextMatchType::RegularExpression, Some(service), method) => {
                Some(expression(service, method.unwrap_or(ANY))?)
            }
        },
    )
}

fn expression(service: &str, method: &str) -> Result<PathMatch, String> {
    let grouped = |text: &str| match text.contains('|') {
        true => format!("(?:{text})"),
        false => text.to_owned(),
    };
    let text = format!("/{}/{}", grouped(service), grouped(method));
    pattern(&text).map(PathMatch::RegularExpression)
}
