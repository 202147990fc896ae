//! GRPCRoute to route: a call is a POST to `/service/method`.

use http::Method;
use mesh::route::{HttpMatch, HttpRule, PathMatch, RouteKind, RouteRules};

use crate::kinds::grpc_route::{GrpcMethodMatch, GrpcRoute, GrpcRouteMatch, GrpcRouteRule};
use crate::kinds::http_route::TextMatchType;
use crate::translate::Translation;
use crate::translate::http_route::{headers, http_rule, pattern};
use crate::translate::route::Translating;
use crate::view::View;

/// Any segment of a path.
const ANY: &str = "[^/]+";

pub(super) fn translate(view: &View, route: &GrpcRoute) -> Translation {
    let spec = &route.spec;
    let (kind, metadata) = (RouteKind::Grpc, &route.metadata);
    Translating::route(view, kind, metadata, &spec.parent_refs, |translating| {
        RouteRules::Http(translating.rules(&spec.rules, rule))
    })
}

fn rule(translating: &mut Translating<'_>, rule: &GrpcRouteRule) -> Option<HttpRule> {
    let matches = (rule.matches.as_slice(), grpc_match);
    let (filters, backends) = (&rule.filters, &rule.backend_refs);
    http_rule(
        translating,
        rule.name.as_deref(),
        matches,
        filters,
        backends,
    )
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
