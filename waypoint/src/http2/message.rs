//! What an HTTP/2 request or response must be before it may become one of another version, and
//! the other way round (RFC 9113 §8.2 to §8.3).

use bytes::BytesMut;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request, response};

use crate::http1::framing::Statement;
use crate::http1::head;
use crate::limits::HeadLimits;

/// Why a request is refused, with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("malformed request target")]
    Target,
    #[error("malformed or contradicting host")]
    Host,
    #[error("content-length is not one number")]
    ContentLength,
    #[error("connection-specific field")]
    ConnectionSpecific,
    #[error("space around a field's value")]
    Space,
    #[error("too many header fields")]
    TooManyFields,
    #[error("request target too long")]
    TargetTooLong,
}

/// Checks a request as it was received and gives it the form that the pipeline expects.
pub fn receive(parts: &mut request::Parts, limits: &HeadLimits) -> Result<(), MessageError> {
    if parts.headers.len() > limits.fields {
        return Err(MessageError::TooManyFields);
    }
    connection_specific(&parts.headers)?;
    spaces(&parts.headers)?;
    content_length(&mut parts.headers)?;
    if parts.method != Method::CONNECT {
        authority(parts)?;
        target(parts, limits)?;
    }
    join_cookies(&mut parts.headers);
    Ok(())
}

/// Makes of a request of any version one that is sent over HTTP/2; the scheme inside the mesh's
/// tunnels is http.
pub fn send_request(mut parts: request::Parts) -> Result<http::Request<()>, MessageError> {
    let mut uri = parts.uri.into_parts();
    if uri.authority.is_none() {
        let host = parts.headers.get(header::HOST).ok_or(MessageError::Host)?;
        let authority = Authority::try_from(host.as_bytes()).map_err(|_| MessageError::Host)?;
        uri.authority = Some(authority);
    }
    parts.headers.remove(header::HOST);
    uri.scheme.get_or_insert(Scheme::HTTP);
    uri.path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    parts.uri = Uri::from_parts(uri).map_err(|_| MessageError::Target)?;
    parts.version = Version::HTTP_2;
    strip(&mut parts.headers);
    Ok(http::Request::from_parts(parts, ()))
}

/// Makes of a response of any version one that is sent over HTTP/2.
pub fn send_response(mut parts: response::Parts) -> http::Response<()> {
    parts.version = Version::HTTP_2;
    strip(&mut parts.headers);
    if head::is_lengthless(parts.status) {
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    http::Response::from_parts(parts, ())
}

/// The trailers that may go on.
pub fn trailers(mut trailers: HeaderMap) -> HeaderMap {
    let bad: Vec<_> = trailers
        .keys()
        .filter(|name| !head::is_trailer(name))
        .cloned()
        .collect();
    for name in bad {
        trailers.remove(name);
    }
    trailers
}

/// Removes what means a connection only, less `te: trailers` (RFC 9113 §8.2.2).
pub(crate) fn strip(headers: &mut HeaderMap) {
    let te_trailers = headers.get_all(header::TE).iter().any(|value| {
        head::tokens(value.as_bytes()).any(|token| token.eq_ignore_ascii_case(b"trailers"))
    });
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        head::KEEP_ALIVE,
        head::PROXY_CONNECTION,
    ] {
        headers.remove(name);
    }
    if te_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

fn connection_specific(headers: &HeaderMap) -> Result<(), MessageError> {
    let te = headers.get_all(header::TE);
    let only_trailers = te.iter().all(|value| value == "trailers");
    let bad = headers.contains_key(header::CONNECTION)
        || headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::UPGRADE)
        || headers.contains_key(head::KEEP_ALIVE)
        || headers.contains_key(head::PROXY_CONNECTION);
    if bad || !only_trailers {
        return Err(MessageError::ConnectionSpecific);
    }
    Ok(())
}

/// RFC 9113 §8.2.1. HTTP/1.1's readers take such space away, so that a policy would have seen
/// another value than the application does (CVE-2019-18802).
fn spaces(headers: &HeaderMap) -> Result<(), MessageError> {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bad = |value: &HeaderValue| {
        let value = value.as_bytes();
        is_space(value.first()) || is_space(value.last())
    };
    if headers.values().any(bad) {
        return Err(MessageError::Space);
    }
    Ok(())
}

fn content_length(headers: &mut HeaderMap) -> Result<(), MessageError> {
    let mut said = Statement::default();
    for value in headers.get_all(header::CONTENT_LENGTH) {
        said.add_content_length(value.as_bytes())
            .map_err(|_| MessageError::ContentLength)?;
    }
    if let Some(length) = said.content_length {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Ok(())
}

/// RFC 9113 §8.3.1: a `host` that says something else than `:authority` is a malformed request.
fn authority(parts: &mut request::Parts) -> Result<(), MessageError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(MessageError::Host);
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), Some(host))
            if !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return Err(MessageError::Host);
        }
        (Some(authority), _) => authority.clone(),
        (None, Some(host)) => {
            Authority::try_from(host.as_bytes()).map_err(|_| MessageError::Host)?
        }
        (None, None) => return Err(MessageError::Host),
    };
    let bad = |byte| b"@,".contains(&byte);
    if authority.as_str().is_empty() || authority.as_str().bytes().any(bad) {
        return Err(MessageError::Host);
    }
    if parts.uri.authority().is_none() {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.authority = Some(authority);
        uri.scheme.get_or_insert(Scheme::HTTP);
        uri.path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        parts.uri = Uri::from_parts(uri).map_err(|_| MessageError::Target)?;
    }
    Ok(())
}

fn target(parts: &request::Parts, limits: &HeadLimits) -> Result<(), MessageError> {
    let known = matches!(parts.uri.scheme_str(), Some("http" | "https"));
    let target = parts.uri.path_and_query().ok_or(MessageError::Target)?;
    let target = target.as_str();
    if target.len() > limits.target {
        return Err(MessageError::TargetTooLong);
    }
    let form = target.starts_with('/') || (target == "*" && parts.method == Method::OPTIONS);
    let visible = target.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
    if known && form && visible {
        Ok(())
    } else {
        Err(MessageError::Target)
    }
}

/// HTTP/2 may split a cookie; nobody else expects that (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs = headers.get_all(header::COOKIE);
    if crumbs.iter().count() < 2 {
        return;
    }
    let mut joined = BytesMut::new();
    for crumb in crumbs {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_maybe_shared(joined.freeze()) {
        headers.insert(header::COOKIE, joined);
    }
}

// === impl MessageError ===

impl MessageError {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Target
            | Self::Host
            | Self::ContentLength
            | Self::ConnectionSpecific
            | Self::Space => StatusCode::BAD_REQUEST,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
        }
    }
}

#[cfg(test)]
mod tests;
