//! The filters of HTTPRoute and GRPCRoute.

use std::sync::Arc;
use std::time::Duration;

use mesh::route::{
    Cors, Filter, HeaderModifier, PathModifier, RequestMirror, RequestRedirect, UrlRewrite,
};

use crate::kinds::route_filter::{
    HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathModifier, HttpPathModifierType,
    HttpRequestMirrorFilter, HttpRequestRedirectFilter, HttpRouteFilter, HttpRouteFilterType,
    HttpUrlRewriteFilter,
};
use crate::translate::route::Translating;

/// The default of HTTPCORSFilter.
const MAX_AGE: i32 = 5;
/// The default of HTTPRequestRedirectFilter: 302.
const FOUND: u16 = 302;

/// The filters, and why requests can't be let through where there is one that is not known:
/// Gateway API wants an error then, not the request without the filter.
pub(super) fn translate(
    translating: &mut Translating<'_>,
    filters: &[HttpRouteFilter],
) -> (Vec<Filter>, Option<Arc<str>>) {
    let mut translated = Vec::new();
    let mut unknown = None;
    for filter in filters {
        match self::filter(translating, filter) {
            Ok(filter) => translated.push(filter),
            Err(message) => {
                unknown = Some(message.as_str().into());
                translating.invalid_filter(message);
            }
        }
    }
    (translated, unknown)
}

fn filter(translating: &mut Translating<'_>, filter: &HttpRouteFilter) -> Result<Filter, String> {
    let type_ = filter.type_;
    let incomplete = || format!("filter {type_:?} has no settings");
    match type_ {
        HttpRouteFilterType::RequestHeaderModifier => {
            let modifier = filter.request_header_modifier.as_ref();
            headers(modifier.ok_or_else(incomplete)?).map(Filter::RequestHeaderModifier)
        }
        HttpRouteFilterType::ResponseHeaderModifier => {
            let modifier = filter.response_header_modifier.as_ref();
            headers(modifier.ok_or_else(incomplete)?).map(Filter::ResponseHeaderModifier)
        }
        HttpRouteFilterType::RequestMirror => {
            let mirrored = filter.request_mirror.as_ref().ok_or_else(incomplete)?;
            Ok(Filter::RequestMirror(mirror(translating, mirrored)))
        }
        HttpRouteFilterType::RequestRedirect => {
            let redirected = filter.request_redirect.as_ref().ok_or_else(incomplete)?;
            redirect(redirected).map(Filter::RequestRedirect)
        }
        HttpRouteFilterType::UrlRewrite => {
            let rewritten = filter.url_rewrite.as_ref().ok_or_else(incomplete)?;
            rewrite(rewritten).map(Filter::UrlRewrite)
        }
        HttpRouteFilterType::Cors => {
            let shared = filter.cors.as_ref().ok_or_else(incomplete)?;
            Ok(Filter::Cors(cors(shared)))
        }
        HttpRouteFilterType::ExtensionRef | HttpRouteFilterType::ExternalAuth => Err(format!(
            "filter {type_:?} is not honoured yet: its requests are answered with 500"
        )),
    }
}

fn headers(modifier: &HttpHeaderFilter) -> Result<HeaderModifier, String> {
    let name = |name: &str| {
        name.parse()
            .map_err(|_| format!("{name:?} is not a header's name"))
    };
    let pairs = |headers: &[HttpHeader]| {
        headers
            .iter()
            .map(|header| {
                let value = header.value.parse();
                let value =
                    value.map_err(|_| format!("{:?} is not a header's value", header.value));
                Ok((name(&header.name)?, value?))
            })
            .collect::<Result<Vec<_>, String>>()
    };
    Ok(HeaderModifier {
        set: pairs(&modifier.set)?,
        add: pairs(&modifier.add)?,
        remove: modifier
            .remove
            .iter()
            .map(|header| name(header))
            .collect::<Result<_, String>>()?,
    })
}

fn mirror(translating: &mut Translating<'_>, mirror: &HttpRequestMirrorFilter) -> RequestMirror {
    let whole = |number: i32| u32::try_from(number).unwrap_or(0);
    let (numerator, denominator) = match (mirror.percent, mirror.fraction) {
        (Some(percent), _) => (whole(percent), 100),
        (None, Some(fraction)) => (
            whole(fraction.numerator),
            fraction.denominator.map_or(100, whole),
        ),
        (None, None) => (100, 100),
    };
    RequestMirror {
        backend: translating.backend_ref(&mirror.backend_ref),
        numerator,
        denominator: denominator.max(1),
    }
}

fn redirect(redirect: &HttpRequestRedirectFilter) -> Result<RequestRedirect, String> {
    let status = redirect.status_code.unwrap_or(FOUND);
    Ok(RequestRedirect {
        scheme: redirect.scheme.as_deref().map(Into::into),
        hostname: redirect.hostname.as_deref().map(Into::into),
        path: redirect.path.as_ref().map(path).transpose()?,
        port: redirect.port,
        status: http::StatusCode::from_u16(status)
            .map_err(|_| format!("{status} is not a status code"))?,
    })
}

fn rewrite(rewrite: &HttpUrlRewriteFilter) -> Result<UrlRewrite, String> {
    Ok(UrlRewrite {
        hostname: rewrite.hostname.as_deref().map(Into::into),
        path: rewrite.path.as_ref().map(path).transpose()?,
    })
}

fn path(modifier: &HttpPathModifier) -> Result<PathModifier, String> {
    let (path, make): (_, fn(Arc<str>) -> PathModifier) = match modifier.type_ {
        HttpPathModifierType::ReplaceFullPath => {
            (&modifier.replace_full_path, PathModifier::ReplaceFullPath)
        }
        HttpPathModifierType::ReplacePrefixMatch => (
            &modifier.replace_prefix_match,
            PathModifier::ReplacePrefixMatch,
        ),
    };
    let path = path.as_deref();
    path.map(|path| make(path.into()))
        .ok_or_else(|| format!("{:?} has no value", modifier.type_))
}

fn cors(filter: &HttpCorsFilter) -> Cors {
    let texts = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let seconds = filter.max_age.unwrap_or(MAX_AGE);
    Cors {
        allow_origins: texts(&filter.allow_origins),
        allow_credentials: filter.allow_credentials.unwrap_or_default(),
        allow_methods: texts(&filter.allow_methods),
        allow_headers: texts(&filter.allow_headers),
        expose_headers: texts(&filter.expose_headers),
        max_age: u64::try_from(seconds).ok().map(Duration::from_secs),
    }
}
