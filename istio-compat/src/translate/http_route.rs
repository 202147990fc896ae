//! HTTPRoute to route.

use std::time::Duration;

use mesh::route::{
    Backend, BackendRef as MeshBackendRef, HeaderMatch, HttpMatch, HttpRule, PathMatch, Pattern,
    QueryParamMatch, Retry, RetryOn, RouteKind, RouteRules, Timeouts, ValueMatch,
};

use crate::kinds::gateway_duration::GatewayDuration;
use crate::kinds::http_route::{
    HttpHeaderMatch, HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule,
    HttpRouteTimeouts, PathMatchType, TextMatchType,
};
use crate::kinds::route::BackendRef;
use crate::kinds::route_filter::HttpRouteFilter;
use crate::translate::Translation;
use crate::translate::route::Translating;
use crate::translate::route_filter;
use crate::view::View;

/// Tries besides the first, where `retry` does not say.
const ATTEMPTS: u32 = 2;
/// What is tried again besides the `codes`: failures to connect (GEP-1731), and what gRPC says
/// of them.
const CONNECTION_ERRORS: [RetryOn; 5] = [
    RetryOn::ConnectFailure,
    RetryOn::RefusedStream,
    RetryOn::Reset,
    RetryOn::Unavailable,
    RetryOn::Cancelled,
];

pub(super) fn translate(view: &View, route: &HttpRoute) -> Translation {
    let spec = &route.spec;
    let (kind, metadata) = (RouteKind::Http, &route.metadata);
    Translating::route(view, kind, metadata, &spec.parent_refs, |translating| {
        RouteRules::Http(translating.rules(&spec.rules, rule))
    })
}

fn rule(translating: &mut Translating<'_>, rule: &HttpRouteRule) -> Option<HttpRule> {
    let matches = (rule.matches.as_slice(), http_match);
    let (filters, backends) = (&rule.filters, &rule.backend_refs);
    let common = http_rule(
        translating,
        rule.name.as_deref(),
        matches,
        filters,
        backends,
    )?;
    let written = rule.timeouts.as_ref();
    Some(HttpRule {
        timeouts: written.map_or_else(Timeouts::default, timeouts),
        retry: rule.retry.as_ref().map(retry),
        ..common
    })
}

/// What rules of HTTPRoute and GRPCRoute have in common; none where a match can't be understood:
/// rules are in force whole or not at all.
pub(super) fn http_rule<M: Default>(
    translating: &mut Translating<'_>,
    name: Option<&str>,
    (matches, read): (&[M], impl Fn(&M) -> Result<HttpMatch, String>),
    filters: &[HttpRouteFilter],
    backends: &[BackendRef],
) -> Option<HttpRule> {
    let default = [M::default()];
    let written = if matches.is_empty() {
        &default
    } else {
        matches
    };
    let matches: Result<Vec<_>, String> = written.iter().map(read).collect();
    let matches = matches
        .map_err(|message| translating.unsupported(message))
        .ok()?;
    let (filters, unknown) = route_filter::translate(translating, filters);
    let backends = translating.backends(backends);
    Some(HttpRule {
        name: name.map(Into::into),
        matches,
        filters,
        backends: unknown.map_or(backends, refusing),
        timeouts: Timeouts::default(),
        retry: None,
    })
}

/// In place of the backends of a rule that asks for what is not known.
fn refusing(reason: std::sync::Arc<str>) -> Vec<Backend> {
    vec![Backend {
        backend: MeshBackendRef::Invalid(reason),
        weight: 1,
        filters: Vec::new(),
    }]
}

/// A path that is absent is the prefix `/`, so that it ranks as the API has it.
fn http_match(one: &HttpRouteMatch) -> Result<HttpMatch, String> {
    let default = HttpPathMatch::default();
    Ok(HttpMatch {
        path: Some(path(one.path.as_ref().unwrap_or(&default))?),
        method: one
            .method
            .as_ref()
            .map(|method| {
                let parsed = method.parse();
                parsed.map_err(|_| format!("{method:?} is not a method"))
            })
            .transpose()?,
        headers: headers(&one.headers)?,
        query_params: one
            .query_params
            .iter()
            .map(|param| {
                Ok(QueryParamMatch {
                    name: param.name.as_str().into(),
                    value: value(param.type_, &param.value)?,
                })
            })
            .collect::<Result<_, String>>()?,
    })
}

fn path(path: &HttpPathMatch) -> Result<PathMatch, String> {
    let text = path.value.as_str();
    Ok(match path.type_ {
        PathMatchType::Exact => PathMatch::Exact(text.into()),
        PathMatchType::PathPrefix => PathMatch::PathPrefix(text.into()),
        PathMatchType::RegularExpression => PathMatch::RegularExpression(pattern(text)?),
    })
}

pub(super) fn headers(headers: &[HttpHeaderMatch]) -> Result<Vec<HeaderMatch>, String> {
    headers
        .iter()
        .map(|header| {
            let name = header.name.parse();
            Ok(HeaderMatch {
                name: name.map_err(|_| format!("{:?} is not a header's name", header.name))?,
                value: value(header.type_, &header.value)?,
            })
        })
        .collect()
}

fn value(type_: TextMatchType, text: &str) -> Result<ValueMatch, String> {
    Ok(match type_ {
        TextMatchType::Exact => ValueMatch::Exact(text.into()),
        TextMatchType::RegularExpression => ValueMatch::RegularExpression(pattern(text)?),
    })
}

pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| error.to_string())
}

/// Zero is no limit.
fn timeouts(timeouts: &HttpRouteTimeouts) -> Timeouts {
    let limit = |written: &Option<GatewayDuration>| {
        let duration = written.as_ref().map(GatewayDuration::duration);
        duration.filter(|duration| *duration != Duration::ZERO)
    };
    Timeouts {
        request: limit(&timeouts.request),
        backend_request: limit(&timeouts.backend_request),
    }
}

fn retry(retry: &HttpRouteRetry) -> Retry {
    let attempts = retry.attempts;
    let codes = retry.codes.iter().map(|code| RetryOn::Status(*code));
    Retry {
        attempts: attempts.map_or(ATTEMPTS, |number| u32::try_from(number).unwrap_or(0)),
        on: CONNECTION_ERRORS.into_iter().chain(codes).collect(),
        backoff: retry.backoff.as_ref().map(GatewayDuration::duration),
    }
}
