//! Whether a request is one that a match is about, and which of two matches goes first.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HOST, HeaderValue};

use super::{HeaderMatch, HttpMatch, PathMatch, QueryParamMatch, RouteKind, ValueMatch};
use crate::path::unescape;
use crate::request::Request;

/// How specific a match is; the greatest one that holds decides. Only summaries of one kind of
/// route are compared, as one kind decides on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precedence {
    Http(HttpPrecedence),
    Grpc(GrpcPrecedence),
    /// VirtualService: what is declared first goes first.
    Declared,
}

/// The order of HTTPRouteRule's `matches`. The specification leaves regular expressions open;
/// they come after prefixes, as in Istio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpPrecedence {
    path: PathPrecedence,
    method: bool,
    headers: usize,
    query_params: usize,
}

/// With the number of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathPrecedence {
    Any,
    RegularExpression(usize),
    Prefix(usize),
    Exact(usize),
}

/// The order of GRPCRouteRule's `matches`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrpcPrecedence {
    service: usize,
    method: usize,
    headers: usize,
}

// === impl HttpMatch ===

impl HttpMatch {
    /// Whether all of it holds for the request.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        self.path
            .as_ref()
            .is_none_or(|path| path.matches(request.path))
            && self.matches_besides_path(request)
    }

    pub(super) fn matches_besides_path(&self, request: &Request<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| method == request.method)
            && self.headers().all(|header| header.matches(request))
            && self
                .query_params()
                .all(|param| param.matches(request.query))
    }

    /// Of entries with the same name only the first counts (HTTPHeaderMatch).
    fn headers(&self) -> impl Iterator<Item = &HeaderMatch> {
        let first = |at: usize, header: &HeaderMatch| {
            let earlier = &self.headers[..at];
            !earlier.iter().any(|known| known.name == header.name)
        };
        let numbered = self.headers.iter().enumerate();
        numbered.filter_map(move |(at, header)| first(at, header).then_some(header))
    }

    /// Of entries with the same name only the first counts (HTTPQueryParamMatch).
    fn query_params(&self) -> impl Iterator<Item = &QueryParamMatch> {
        let first = |at: usize, param: &QueryParamMatch| {
            let earlier = &self.query_params[..at];
            !earlier.iter().any(|known| known.name == param.name)
        };
        let numbered = self.query_params.iter().enumerate();
        numbered.filter_map(move |(at, param)| first(at, param).then_some(param))
    }

    /// Where this match stands among those of routes of the same kind.
    pub fn precedence(&self, kind: RouteKind) -> Precedence {
        match kind {
            RouteKind::Grpc => {
                let (service, method) = self.path.as_ref().map_or((0, 0), grpc_lengths);
                Precedence::Grpc(GrpcPrecedence {
                    service,
                    method,
                    headers: self.headers().count(),
                })
            }
            RouteKind::Http => Precedence::Http(HttpPrecedence {
                path: PathPrecedence::of(self.path.as_ref()),
                method: self.method.is_some(),
                headers: self.headers().count(),
                query_params: self.query_params().count(),
            }),
            RouteKind::VirtualService | RouteKind::Tls | RouteKind::Tcp => Precedence::Declared,
        }
    }
}

// === impl PathPrecedence ===

impl PathPrecedence {
    fn of(path: Option<&PathMatch>) -> Self {
        match path {
            None => Self::Any,
            Some(PathMatch::Exact(path)) => Self::Exact(path.chars().count()),
            Some(PathMatch::PathPrefix(prefix) | PathMatch::StringPrefix(prefix)) => {
                Self::Prefix(prefix.chars().count())
            }
            Some(PathMatch::RegularExpression(pattern)) => {
                Self::RegularExpression(pattern.as_str().chars().count())
            }
        }
    }
}

/// The characters of service and method that a path of a gRPC match names. A pattern that takes
/// any segment names none.
fn grpc_lengths(path: &PathMatch) -> (usize, usize) {
    let text = match path {
        PathMatch::Exact(text) | PathMatch::PathPrefix(text) | PathMatch::StringPrefix(text) => {
            &**text
        }
        PathMatch::RegularExpression(pattern) => pattern.as_str(),
    };
    let length = |segment: &str| match segment {
        "[^/]+" | "[^/]*" | ".+" | ".*" => 0,
        segment => segment.chars().count(),
    };
    // The slash of `[^/]+` separates nothing.
    let text = text.strip_prefix('/').unwrap_or(text);
    let (service, method) = match ["[^/]+", "[^/]*"]
        .into_iter()
        .find(|any| text.starts_with(any))
    {
        Some(any) => (any, text[any.len()..].trim_start_matches('/')),
        None => text.split_once('/').unwrap_or((text, "")),
    };
    (length(service), length(method))
}

// === impl PathMatch ===

impl PathMatch {
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::PathPrefix(prefix) => covers(prefix, path),
            Self::StringPrefix(prefix) => path.starts_with(&**prefix),
            Self::RegularExpression(pattern) => pattern.matches(path.as_bytes()),
        }
    }
}

/// Whether the segments of `prefix` are the first ones of `path`. A slash at the end of the
/// prefix says nothing, so that `/` covers every path.
fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.starts_with('/') || (rest.is_empty() && !prefix.is_empty()))
}

// === impl HeaderMatch ===

impl HeaderMatch {
    /// A repeated header is one value, its parts joined by commas (RFC 9110 §5.3). `host` is the
    /// request's authority, with or without its port, however the client sent it.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        if self.name == HOST {
            return self.value.matches(request.host.as_bytes())
                || request.port.is_some_and(|port| {
                    let authority = format!("{}:{port}", request.host);
                    self.value.matches(authority.as_bytes())
                });
        }
        joined(request.headers, &self.name).is_some_and(|value| self.value.matches(&value))
    }
}

/// All values of a header; copied only where there are several.
fn joined<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(Cow::Borrowed(first));
    };
    let mut joined = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    Some(Cow::Owned(joined))
}

// === impl QueryParamMatch ===

impl QueryParamMatch {
    /// The first parameter of the name counts; names and values are compared decoded.
    pub fn matches(&self, query: Option<&str>) -> bool {
        let mut params = query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty());
        params
            .find_map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (*decoded(name) == *self.name.as_bytes()).then_some(value)
            })
            .is_some_and(|value| self.value.matches(&decoded(value)))
    }
}

/// Decodes escapes (RFC 3986 §2.1); what is no escape stands for itself. `+` is `+`: only forms
/// read it as a space.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (plain, escape) = rest.split_at(at);
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, length) = match escape.get(..3).and_then(unescape) {
            Some(byte) => (byte, 3),
            None => (b'%', 1),
        };
        bytes.push(byte);
        rest = &escape[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Cow::Owned(bytes)
}

// === impl ValueMatch ===

impl ValueMatch {
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Prefix(prefix) => value.starts_with(prefix.as_bytes()),
            Self::RegularExpression(pattern) => pattern.matches(value),
            Self::Present => true,
        }
    }
}

#[cfg(test)]
mod tests;
