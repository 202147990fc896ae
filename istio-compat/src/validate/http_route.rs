//! HTTPRoute: matches that can hold, filters that agree, limits within bounds.

use std::collections::HashSet;
use std::time::Duration;

use crate::kinds::http_route::{
    HttpHeaderMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts,
    PathMatchType, TextMatchType,
};
use crate::kinds::route_filter::HttpRouteFilterType;
use crate::validate::route_filter::{self, Of};
use crate::validate::{Problems, Validate, http, route};

const MAX_MATCHES: usize = 64;
const MAX_CONDITIONS: usize = 16;
const MAX_QUERY_VALUE: usize = 1024;

impl Validate for HttpRoute {
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

fn rule(field: &str, rule: &HttpRouteRule, problems: &mut Problems<'_>) {
    problems.at_most(format!("{field}.matches"), rule.matches.len(), MAX_MATCHES);
    for (index, one) in rule.matches.iter().enumerate() {
        http_match(&format!("{field}.matches[{index}]"), one, problems);
    }
    let of = Of::Http {
        one_prefix: one_prefix(&rule.matches),
    };
    route_filter::filters(&format!("{field}.filters"), &rule.filters, of, problems);
    let backends = format!("{field}.backendRefs");
    route::backends(&backends, &rule.backend_refs, problems);
    for (index, backend) in rule.backend_refs.iter().enumerate() {
        let filters = format!("{backends}[{index}].filters");
        route_filter::filters(&filters, &backend.filters, of, problems);
    }
    let redirects = |filter: &crate::kinds::route_filter::HttpRouteFilter| {
        filter.type_ == HttpRouteFilterType::RequestRedirect
    };
    if !rule.backend_refs.is_empty() && rule.filters.iter().any(redirects) {
        problems.error(
            backends,
            "is there together with a filter RequestRedirect, which answers by itself: keep one \
             of them",
        );
    }
    if let Some(timeouts) = &rule.timeouts {
        self::timeouts(&format!("{field}.timeouts"), timeouts, problems);
    }
    if let Some(retry) = &rule.retry {
        self::retry(&format!("{field}.retry"), retry, problems);
    }
}

/// Where there is no match, the default is the prefix `/`.
fn one_prefix(matches: &[HttpRouteMatch]) -> bool {
    match matches {
        [] => true,
        [one] => one
            .path
            .as_ref()
            .is_none_or(|path| path.type_ == PathMatchType::PathPrefix),
        _ => false,
    }
}

fn http_match(field: &str, one: &HttpRouteMatch, problems: &mut Problems<'_>) {
    if let Some(path) = &one.path {
        let check = match path.type_ {
            PathMatchType::Exact | PathMatchType::PathPrefix => http::path(&path.value),
            PathMatchType::RegularExpression => http::pattern(&path.value),
        };
        problems.check(format!("{field}.path.value"), check);
    }
    if let Some(method) = &one.method
        && !http::METHODS.contains(&method.as_str())
    {
        problems.error(
            format!("{field}.method"),
            format!("{method:?} is not one of {}", http::METHODS.join(", ")),
        );
    }
    headers(&format!("{field}.headers"), &one.headers, problems);
    let params = format!("{field}.queryParams");
    problems.at_most(params.as_str(), one.query_params.len(), MAX_CONDITIONS);
    let mut seen = HashSet::new();
    for (index, param) in one.query_params.iter().enumerate() {
        let field = format!("{params}[{index}]");
        problems.given(format!("{field}.name"), &param.name);
        let value = format!("{field}.value");
        problems.given(value.as_str(), &param.value);
        match param.type_ {
            TextMatchType::Exact if param.value.len() > MAX_QUERY_VALUE => problems.error(
                value,
                format!(
                    "has {} characters, more than {MAX_QUERY_VALUE}",
                    param.value.len()
                ),
            ),
            TextMatchType::Exact => {}
            TextMatchType::RegularExpression => problems.check(value, http::pattern(&param.value)),
        }
        if !seen.insert(&param.name) {
            problems.error(
                format!("{field}.name"),
                format!("{:?} is there twice", param.name),
            );
        }
    }
}

pub(super) fn headers(field: &str, headers: &[HttpHeaderMatch], problems: &mut Problems<'_>) {
    problems.at_most(field, headers.len(), MAX_CONDITIONS);
    let mut seen = HashSet::new();
    for (index, header) in headers.iter().enumerate() {
        let name = format!("{field}[{index}].name");
        problems.check(name.as_str(), http::header_name(&header.name));
        let value = match header.type_ {
            TextMatchType::Exact => http::header_value(&header.value),
            TextMatchType::RegularExpression => http::pattern(&header.value),
        };
        problems.check(format!("{field}[{index}].value"), value);
        if !seen.insert(header.name.to_ascii_lowercase()) {
            problems.error(name, format!("{:?} is there twice", header.name));
        }
    }
}

fn timeouts(field: &str, timeouts: &HttpRouteTimeouts, problems: &mut Problems<'_>) {
    if let (Some(request), Some(backend)) = (&timeouts.request, &timeouts.backend_request)
        && request.duration() != Duration::ZERO
        && backend.duration() > request.duration()
    {
        problems.error(
            format!("{field}.backendRequest"),
            format!("{backend} is longer than request, {request}, which it is part of"),
        );
    }
}

fn retry(field: &str, retry: &HttpRouteRetry, problems: &mut Problems<'_>) {
    for (index, code) in retry.codes.iter().enumerate() {
        if !(400..=599).contains(code) {
            problems.error(
                format!("{field}.codes[{index}]"),
                format!("{code} is not the status of a failure: use one from 400 to 599"),
            );
        }
    }
    if let Some(attempts) = retry.attempts
        && !(0..=MAX_ATTEMPTS).contains(&attempts)
    {
        problems.error(
            format!("{field}.attempts"),
            format!("{attempts} is not a number of tries from 0 to {MAX_ATTEMPTS}"),
        );
    }
}

/// More would multiply the load of a service that fails already.
const MAX_ATTEMPTS: i32 = 100;
