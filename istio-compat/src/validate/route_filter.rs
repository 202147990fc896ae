//! Filters: each complete, none twice that can be there once, none that contradicts another.

use std::collections::HashSet;

use crate::kinds::route_filter::{
    HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathModifier, HttpPathModifierType,
    HttpRequestMirrorFilter, HttpRequestRedirectFilter, HttpRouteFilter, HttpRouteFilterType,
};
use crate::validate::{Problems, http, names, route};

const MAX_FILTERS: usize = 16;
const MAX_HEADERS: usize = 16;
const MAX_CORS: usize = 64;
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// What the filters belong to.
#[derive(Clone, Copy)]
pub(super) enum Of {
    Http {
        /// Whether requests are matched by exactly one prefix, which can be replaced.
        one_prefix: bool,
    },
    Grpc,
}

pub(super) fn filters(
    field: &str,
    filters: &[HttpRouteFilter],
    of: Of,
    problems: &mut Problems<'_>,
) {
    problems.at_most(field, filters.len(), MAX_FILTERS);
    let mut seen = HashSet::new();
    for (index, one) in filters.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let repeats = match one.type_ {
            HttpRouteFilterType::RequestMirror
            | HttpRouteFilterType::ExtensionRef
            | HttpRouteFilterType::ExternalAuth => true,
            HttpRouteFilterType::RequestHeaderModifier
            | HttpRouteFilterType::ResponseHeaderModifier
            | HttpRouteFilterType::RequestRedirect
            | HttpRouteFilterType::UrlRewrite
            | HttpRouteFilterType::Cors => false,
        };
        if !seen.insert(one.type_) && !repeats {
            problems.error(
                format!("{field}.type"),
                format!("{} is there twice: keep one of them", name(one.type_)),
            );
        }
        filter(&field, one, of, problems);
    }
    if seen.contains(&HttpRouteFilterType::RequestRedirect)
        && seen.contains(&HttpRouteFilterType::UrlRewrite)
    {
        problems.error(
            field,
            "has RequestRedirect and URLRewrite: what is redirected is not sent on; keep one of \
             them",
        );
    }
}

fn name(type_: HttpRouteFilterType) -> &'static str {
    match type_ {
        HttpRouteFilterType::RequestHeaderModifier => "RequestHeaderModifier",
        HttpRouteFilterType::ResponseHeaderModifier => "ResponseHeaderModifier",
        HttpRouteFilterType::RequestMirror => "RequestMirror",
        HttpRouteFilterType::RequestRedirect => "RequestRedirect",
        HttpRouteFilterType::UrlRewrite => "URLRewrite",
        HttpRouteFilterType::Cors => "CORS",
        HttpRouteFilterType::ExtensionRef => "ExtensionRef",
        HttpRouteFilterType::ExternalAuth => "ExternalAuth",
    }
}

fn filter(field: &str, filter: &HttpRouteFilter, of: Of, problems: &mut Problems<'_>) {
    let settings = [
        (
            "requestHeaderModifier",
            HttpRouteFilterType::RequestHeaderModifier,
            filter.request_header_modifier.is_some(),
        ),
        (
            "responseHeaderModifier",
            HttpRouteFilterType::ResponseHeaderModifier,
            filter.response_header_modifier.is_some(),
        ),
        (
            "requestMirror",
            HttpRouteFilterType::RequestMirror,
            filter.request_mirror.is_some(),
        ),
        (
            "requestRedirect",
            HttpRouteFilterType::RequestRedirect,
            filter.request_redirect.is_some(),
        ),
        (
            "urlRewrite",
            HttpRouteFilterType::UrlRewrite,
            filter.url_rewrite.is_some(),
        ),
        ("cors", HttpRouteFilterType::Cors, filter.cors.is_some()),
        (
            "extensionRef",
            HttpRouteFilterType::ExtensionRef,
            filter.extension_ref.is_some(),
        ),
    ];
    for (setting, type_, given) in settings {
        match (type_ == filter.type_, given) {
            (true, false) => problems.error(
                format!("{field}.{setting}"),
                format!("has no value: a filter of type {} needs it", name(type_)),
            ),
            (false, true) => problems.error(
                format!("{field}.{setting}"),
                format!("is for filters of type {}", name(type_)),
            ),
            (true, true) | (false, false) => {}
        }
    }
    match filter.type_ {
        HttpRouteFilterType::ExtensionRef | HttpRouteFilterType::ExternalAuth => problems.warn(
            format!("{field}.type"),
            format!(
                "{} is not honoured yet: requests it is for are answered with 500",
                name(filter.type_)
            ),
        ),
        HttpRouteFilterType::RequestRedirect
        | HttpRouteFilterType::UrlRewrite
        | HttpRouteFilterType::Cors
            if matches!(of, Of::Grpc) =>
        {
            problems.error(
                format!("{field}.type"),
                format!("{} is no filter of GRPCRoute", name(filter.type_)),
            );
        }
        HttpRouteFilterType::RequestHeaderModifier
        | HttpRouteFilterType::ResponseHeaderModifier
        | HttpRouteFilterType::RequestMirror
        | HttpRouteFilterType::RequestRedirect
        | HttpRouteFilterType::UrlRewrite
        | HttpRouteFilterType::Cors => {}
    }
    contents(field, filter, of, problems);
}

fn contents(field: &str, filter: &HttpRouteFilter, of: Of, problems: &mut Problems<'_>) {
    if let Some(modifier) = &filter.request_header_modifier {
        headers(
            &format!("{field}.requestHeaderModifier"),
            modifier,
            problems,
        );
    }
    if let Some(modifier) = &filter.response_header_modifier {
        headers(
            &format!("{field}.responseHeaderModifier"),
            modifier,
            problems,
        );
    }
    if let Some(mirror) = &filter.request_mirror {
        self::mirror(&format!("{field}.requestMirror"), mirror, problems);
    }
    if let Some(redirect) = &filter.request_redirect {
        self::redirect(&format!("{field}.requestRedirect"), redirect, of, problems);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let field = format!("{field}.urlRewrite");
        if let Some(hostname) = &rewrite.hostname {
            problems.check(format!("{field}.hostname"), names::host(hostname));
        }
        if let Some(modifier) = &rewrite.path {
            path(&format!("{field}.path"), modifier, of, problems);
        }
    }
    if let Some(cors) = &filter.cors {
        self::cors(&format!("{field}.cors"), cors, problems);
    }
}

fn headers(field: &str, modifier: &HttpHeaderFilter, problems: &mut Problems<'_>) {
    let lists: [(&str, &[HttpHeader]); 2] = [("set", &modifier.set), ("add", &modifier.add)];
    for (list, headers) in lists {
        let field = format!("{field}.{list}");
        problems.at_most(field.as_str(), headers.len(), MAX_HEADERS);
        let mut seen = HashSet::new();
        for (index, header) in headers.iter().enumerate() {
            let name = format!("{field}[{index}].name");
            problems.check(name.as_str(), http::header_name(&header.name));
            problems.check(
                format!("{field}[{index}].value"),
                http::header_value(&header.value),
            );
            if !seen.insert(header.name.to_ascii_lowercase()) {
                problems.error(name, format!("{:?} is there twice", header.name));
            }
        }
    }
    problems.at_most(
        format!("{field}.remove"),
        modifier.remove.len(),
        MAX_HEADERS,
    );
    for (index, name) in modifier.remove.iter().enumerate() {
        problems.check(format!("{field}.remove[{index}]"), http::header_name(name));
    }
}

fn mirror(field: &str, mirror: &HttpRequestMirrorFilter, problems: &mut Problems<'_>) {
    let backend = format!("{field}.backendRef");
    route::backend(&backend, &mirror.backend_ref, problems);
    if !mirror.backend_ref.filters.is_empty() || mirror.backend_ref.weight.is_some() {
        problems.warn(
            backend,
            "has a weight or filters: a mirrored request has none, and they have no effect",
        );
    }
    if let Some(percent) = mirror.percent {
        if mirror.fraction.is_some() {
            problems.error(
                format!("{field}.percent"),
                "is there together with fraction: keep one of them",
            );
        }
        if !(0..=100).contains(&percent) {
            problems.error(
                format!("{field}.percent"),
                format!("{percent} is not a percentage: use a number from 0 to 100"),
            );
        }
    }
    if let Some(fraction) = mirror.fraction {
        let denominator = fraction.denominator.unwrap_or(100);
        if fraction.numerator < 0 || denominator < 1 || fraction.numerator > denominator {
            problems.error(
                format!("{field}.fraction"),
                format!(
                    "{}/{denominator} is not a fraction from 0 to 1",
                    fraction.numerator
                ),
            );
        }
    }
}

fn redirect(
    field: &str,
    redirect: &HttpRequestRedirectFilter,
    of: Of,
    problems: &mut Problems<'_>,
) {
    if let Some(scheme) = &redirect.scheme
        && !["http", "https"].contains(&scheme.as_str())
    {
        problems.error(
            format!("{field}.scheme"),
            format!("{scheme:?} is not one of http, https"),
        );
    }
    if let Some(hostname) = &redirect.hostname {
        problems.check(format!("{field}.hostname"), names::host(hostname));
    }
    if let Some(port) = redirect.port {
        problems.check(format!("{field}.port"), names::port(port.into()));
    }
    if let Some(modifier) = &redirect.path {
        path(&format!("{field}.path"), modifier, of, problems);
    }
    if let Some(status) = redirect.status_code
        && !REDIRECTS.contains(&status)
    {
        problems.error(
            format!("{field}.statusCode"),
            format!("{status} is not one of 301, 302, 303, 307, 308"),
        );
    }
}

fn path(field: &str, modifier: &HttpPathModifier, of: Of, problems: &mut Problems<'_>) {
    let (given, other, names) = match modifier.type_ {
        HttpPathModifierType::ReplaceFullPath => (
            &modifier.replace_full_path,
            &modifier.replace_prefix_match,
            ["replaceFullPath", "replacePrefixMatch"],
        ),
        HttpPathModifierType::ReplacePrefixMatch => (
            &modifier.replace_prefix_match,
            &modifier.replace_full_path,
            ["replacePrefixMatch", "replaceFullPath"],
        ),
    };
    let [own, others] = names.map(|name| format!("{field}.{name}"));
    match given {
        None => problems.error(own, "has no value: the type asks for it"),
        // Nothing at all, in place of a prefix, is the root.
        Some(path) if !path.is_empty() => problems.check(own, http::path(path)),
        Some(_) => {}
    }
    if other.is_some() {
        problems.error(others, "is for the other type: keep the one of the type");
    }
    if modifier.type_ == HttpPathModifierType::ReplacePrefixMatch
        && matches!(of, Of::Http { one_prefix: false })
    {
        problems.error(
            format!("{field}.type"),
            "ReplacePrefixMatch needs exactly one match in the rule, with a path of type \
             PathPrefix",
        );
    }
}

fn cors(field: &str, cors: &HttpCorsFilter, problems: &mut Problems<'_>) {
    type Item = fn(&str) -> Result<(), String>;
    let lists: [(&str, &[String], Item); 4] = [
        ("allowOrigins", &cors.allow_origins, origin),
        ("allowMethods", &cors.allow_methods, method),
        ("allowHeaders", &cors.allow_headers, header),
        ("exposeHeaders", &cors.expose_headers, header),
    ];
    for (list, items, check) in lists {
        let field = format!("{field}.{list}");
        problems.at_most(field.as_str(), items.len(), MAX_CORS);
        for (index, item) in items.iter().enumerate() {
            problems.check(format!("{field}[{index}]"), check(item));
        }
        if items.len() > 1 && items.iter().any(|item| item == "*") {
            problems.error(field, "has * and others: * alone stands for all");
        }
    }
    if let Some(seconds) = cors.max_age.filter(|seconds| *seconds < 1) {
        problems.error(
            format!("{field}.maxAge"),
            format!("{seconds} is not a number of seconds from 1 up"),
        );
    }
}

fn header(text: &str) -> Result<(), String> {
    http::header_name(text)
}

fn method(text: &str) -> Result<(), String> {
    match text == "*" || http::METHODS.contains(&text) {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not one of *, {}",
            http::METHODS.join(", ")
        )),
    }
}

/// `*`, or scheme and host, with a port if need be; `*.` in front of a host stands for any part.
fn origin(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    let fine = text.split_once("://").is_some_and(|(scheme, authority)| {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse::<u16>().is_ok_and(|port| port != 0)),
            None => (authority, true),
        };
        let scheme = scheme.chars().enumerate().all(|(at, c)| {
            c.is_ascii_alphabetic()
                || (at > 0 && (c.is_ascii_digit() || matches!(c, '+' | '-' | '.')))
        });
        let host = host == "*" || names::host(host.strip_prefix("*.").unwrap_or(host)).is_ok();
        scheme && host && port && !authority.contains('/')
    });
    match fine {
        true => Ok(()),
        false => Err(format!(
            "{text:?} is not an origin: write https://example.com, without a path"
        )),
    }
}
