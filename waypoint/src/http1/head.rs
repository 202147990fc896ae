//! Heads of HTTP/1 messages (RFC 9112 §2 to §5), read strictly and without I/O.
//!
//! What two readers could understand in two ways is refused. Values share the memory they came in.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};

use super::framing::{self, FramingError, Length, Statement, trim};
use crate::limits::HeadLimits;

pub(crate) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(crate) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// A request's head and what the connection needs to know of it. Its hop-by-hop fields are gone.
#[derive(Debug)]
pub struct RequestHead {
    pub request: Request<()>,
    pub length: Length,
    pub persistence: Persistence,
    /// It asks to switch protocols; `upgrade` is kept then.
    pub upgrade: bool,
    pub expects_continue: bool,
    pub accepts_trailers: bool,
}

/// A response's head and what the connection needs to know of it.
#[derive(Debug)]
pub struct ResponseHead {
    pub response: Response<()>,
    pub length: Length,
    pub persistence: Persistence,
}

/// Whether the connection may carry another message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    Keep,
    Close,
}

/// Why a head was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    #[error("unsupported HTTP version")]
    Version,
    #[error("head too large")]
    TooLarge,
    #[error("too many header fields")]
    TooManyFields,
    #[error("request target too long")]
    TargetTooLong,
    #[error("method too long")]
    MethodTooLong,
    #[error("{0}")]
    Framing(#[from] FramingError),
}

/// What the fields of a head say about its connection and body.
#[derive(Debug, Default)]
struct Fields {
    map: HeaderMap,
    said: Statement,
    close: bool,
    keep_alive: bool,
    upgrade_nominated: bool,
    te_trailers: bool,
    nominees: Vec<HeaderName>,
    http2_settings: bool,
}

/// The fields as they stand in the buffer.
type Slots<'a> = [MaybeUninit<httparse::Header<'a>>; HeadLimits::MOST_FIELDS];

/// Takes a request's head from the front of `input`; none while it is incomplete.
pub fn parse_request(
    input: &mut Bytes,
    limits: &HeadLimits,
) -> Result<Option<RequestHead>, HeadError> {
    let buffer = input.clone();
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HeadLimits::MOST_FIELDS];
    let slots = &mut slots[..limits.fields.min(HeadLimits::MOST_FIELDS)];
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(&buffer, slots);
    let Some(length) = complete(status, &buffer, limits)? else {
        return Ok(None);
    };
    check_line_ends(&buffer[..length])?;
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HeadError::Malformed("no request line"));
    };
    let version = version(parsed.version)?;
    if method.len() > limits.method {
        return Err(HeadError::MethodTooLong);
    }
    if target.len() > limits.target {
        return Err(HeadError::TargetTooLong);
    }
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Malformed("method"))?;
    let uri = parse_target(&method, buffer.slice_ref(target.as_bytes()))?;
    let mut fields = Fields::parse(&buffer, parsed.headers)?;
    fields.check_host(&uri, version)?;
    let body = framing::of_request(version, fields.said)?;
    let http2_upgrade = fields.http2_settings
        || fields
            .map
            .get(header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"h2c"));
    // An upgrade to HTTP/2 is one hop's business, and may be ignored (RFC 9110 §7.8).
    let upgrade = fields.upgrade_nominated
        && version == Version::HTTP_11
        && !http2_upgrade
        && fields.map.contains_key(header::UPGRADE);
    let persistence = fields.persistence(version);
    fields.strip(upgrade)?;
    let expects_continue = version == Version::HTTP_11
        && fields
            .map
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    let accepts_trailers = fields.te_trailers;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = fields.map;
    bytes::Buf::advance(input, length);
    Ok(Some(RequestHead {
        request,
        length: body,
        persistence,
        upgrade,
        expects_continue,
        accepts_trailers,
    }))
}

/// Takes the head of a response to `method` from the front of `input`; none while it is
/// incomplete.
pub fn parse_response(
    input: &mut Bytes,
    method: &Method,
    limits: &HeadLimits,
) -> Result<Option<ResponseHead>, HeadError> {
    let buffer = input.clone();
    let mut slots: Slots<'_> = [const { MaybeUninit::uninit() }; HeadLimits::MOST_FIELDS];
    let slots = &mut slots[..limits.fields.min(HeadLimits::MOST_FIELDS)];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, &buffer, slots);
    let Some(length) = complete(status, &buffer, limits)? else {
        return Ok(None);
    };
    check_line_ends(&buffer[..length])?;
    let version = version(parsed.version)?;
    let code = parsed.code.ok_or(HeadError::Malformed("no status line"))?;
    let status = StatusCode::from_u16(code).map_err(|_| HeadError::Malformed("status"))?;
    let mut fields = Fields::parse(&buffer, parsed.headers)?;
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    let body = framing::of_response(method, status, version, fields.said)?;
    let both = fields.said.content_length.is_some()
        && fields.said.transfer_encoding != framing::TransferEncoding::None;
    if both {
        fields.map.remove(header::CONTENT_LENGTH);
    }
    let persistence = if both || body == Length::UntilClose || switching {
        Persistence::Close
    } else {
        fields.persistence(version)
    };
    fields.strip(switching)?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = fields.map;
    bytes::Buf::advance(input, length);
    Ok(Some(ResponseHead {
        response,
        length: body,
        persistence,
    }))
}

/// The fields of a trailer section, without those that trailers must not bring (RFC 9110
/// §6.5.1); none where it is malformed.
pub(crate) fn parse_trailers(section: &Bytes, limits: &HeadLimits) -> Option<HeaderMap> {
    let mut slots = [httparse::EMPTY_HEADER; HeadLimits::MOST_FIELDS];
    let slots = &mut slots[..limits.fields.min(HeadLimits::MOST_FIELDS)];
    check_line_ends(section).ok()?;
    let Ok(httparse::Status::Complete((length, headers))) = httparse::parse_headers(section, slots)
    else {
        return None;
    };
    if length != section.len() {
        return None;
    }
    let mut trailers = HeaderMap::with_capacity(headers.len());
    for header in headers {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(section.slice_ref(header.value)).ok()?;
        if is_trailer(&name) {
            trailers.try_append(name, value).ok()?;
        }
    }
    Some(trailers)
}

/// Whether a response may not say how long its body is (RFC 9110 §8.6).
pub(crate) fn is_lengthless(status: StatusCode) -> bool {
    status.is_informational() || status == StatusCode::NO_CONTENT
}

/// Whether a trailer may have this name: not framing, routing, authentication or one hop's.
pub(crate) fn is_trailer(name: &HeaderName) -> bool {
    !(is_hop_by_hop(name)
        || matches!(
            *name,
            header::CONTENT_LENGTH
                | header::HOST
                | header::AUTHORIZATION
                | header::COOKIE
                | header::SET_COOKIE
                | header::CONTENT_ENCODING
                | header::CONTENT_TYPE
                | header::CONTENT_RANGE
                | header::EXPECT
                | header::MAX_FORWARDS
                | header::CACHE_CONTROL
                | header::TRAILER
        ))
}

/// Fields that mean one connection only (RFC 9110 §7.6.1).
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::UPGRADE
            | header::TE
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
    ) || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == HTTP2_SETTINGS
}

fn complete(
    status: httparse::Result<usize>,
    buffer: &[u8],
    limits: &HeadLimits,
) -> Result<Option<usize>, HeadError> {
    match status {
        Ok(httparse::Status::Complete(length)) if length > limits.bytes => Err(HeadError::TooLarge),
        Ok(httparse::Status::Complete(length)) => Ok(Some(length)),
        Ok(httparse::Status::Partial) if buffer.len() > limits.bytes => Err(HeadError::TooLarge),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooManyFields),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        Err(httparse::Error::HeaderName) => Err(HeadError::Malformed("header name")),
        Err(httparse::Error::HeaderValue) => Err(HeadError::Malformed("header value")),
        Err(httparse::Error::NewLine) => Err(HeadError::Malformed("line end")),
        Err(httparse::Error::Status) => Err(HeadError::Malformed("status line")),
        Err(httparse::Error::Token) => Err(HeadError::Malformed("request line")),
    }
}

/// Every line ends in CR LF: a LF alone ends a line for some readers only.
fn check_line_ends(head: &[u8]) -> Result<(), HeadError> {
    let mut before = 0;
    let mut alone = false;
    for &byte in head {
        alone |= (byte == b'\n') & (before != b'\r');
        before = byte;
    }
    if alone {
        return Err(HeadError::Malformed("line end"));
    }
    Ok(())
}

fn version(minor: Option<u8>) -> Result<Version, HeadError> {
    match minor {
        Some(0) => Ok(Version::HTTP_10),
        Some(1) => Ok(Version::HTTP_11),
        Some(_) | None => Err(HeadError::Version),
    }
}

/// The request target in one of its four forms (RFC 9112 §3.2).
fn parse_target(method: &Method, target: Bytes) -> Result<Uri, HeadError> {
    const BAD: HeadError = HeadError::Malformed("request target");
    // A fragment is never sent; what follows it would be routed by some and not by others.
    if target
        .iter()
        .any(|byte| !(0x21..=0x7e).contains(byte) || *byte == b'#')
    {
        return Err(BAD);
    }
    let origin = target[0] == b'/';
    let asterisk = target[..] == *b"*";
    let connect = *method == Method::CONNECT;
    let uri = Uri::from_maybe_shared(target).map_err(|_| BAD)?;
    if uri
        .authority()
        .is_some_and(|authority| authority.as_str().contains('@'))
    {
        return Err(BAD);
    }
    let scheme = uri.scheme_str();
    let absolute = matches!(scheme, Some("http" | "https")) && uri.authority().is_some();
    let authority = scheme.is_none() && uri.authority().is_some();
    let good = match (connect, asterisk) {
        (true, _) => authority && uri.path_and_query().is_none() && uri.port_u16().is_some(),
        (false, true) => *method == Method::OPTIONS,
        (false, false) => (origin && !authority) || absolute,
    };
    if good {
        rooted(uri).ok_or(BAD)
    } else {
        Err(BAD)
    }
}

/// With the path that an absolute form without one has, before a query too (RFC 9110 §4.2.3), so that
/// it is decided on what is sent.
fn rooted(uri: Uri) -> Option<Uri> {
    let target = uri.path_and_query().map_or("", PathAndQuery::as_str);
    if !target.starts_with('?') {
        return Some(uri);
    }
    let target = PathAndQuery::try_from(format!("/{target}")).ok()?;
    let mut parts = uri.into_parts();
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).ok()
}

// === impl Fields ===

impl Fields {
    fn parse(buffer: &Bytes, headers: &[httparse::Header<'_>]) -> Result<Self, HeadError> {
        let mut fields = Self {
            // Room for what the pipeline adds.
            map: HeaderMap::with_capacity(headers.len() + 6),
            ..Self::default()
        };
        for header in headers {
            let name = HeaderName::from_bytes(header.name.as_bytes())
                .map_err(|_| HeadError::Malformed("header name"))?;
            fields.field(name, header.value, buffer)?;
        }
        Ok(fields)
    }

    fn field(&mut self, name: HeaderName, value: &[u8], buffer: &Bytes) -> Result<(), HeadError> {
        match name {
            header::CONTENT_LENGTH => {
                let first = self.said.content_length.is_none();
                self.said.add_content_length(value)?;
                // An agreeing repeat is folded into one number.
                if first && let Some(length) = self.said.content_length {
                    self.map.insert(name, HeaderValue::from(length));
                }
                return Ok(());
            }
            header::TRANSFER_ENCODING => {
                self.said.add_transfer_encoding(value);
                return Ok(());
            }
            header::CONNECTION => return self.connection(value),
            header::TE => {
                self.te_trailers |= tokens(value).any(|one| one.eq_ignore_ascii_case(b"trailers"));
                return Ok(());
            }
            header::PROXY_AUTHENTICATE | header::PROXY_AUTHORIZATION => return Ok(()),
            header::HOST if self.map.contains_key(header::HOST) => {
                return Err(HeadError::Malformed("repeated host"));
            }
            _ if name == HTTP2_SETTINGS => {
                self.http2_settings = true;
                return Ok(());
            }
            _ if name == KEEP_ALIVE || name == PROXY_CONNECTION => return Ok(()),
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(buffer.slice_ref(value))
            .map_err(|_| HeadError::Malformed("header value"))?;
        let appended = self.map.try_append(name, value);
        appended.map_err(|_| HeadError::TooManyFields)?;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for token in tokens(value).filter(|token| !token.is_empty()) {
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep_alive = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.upgrade_nominated = true;
            } else {
                let nominee = HeaderName::from_bytes(token)
                    .map_err(|_| HeadError::Malformed("connection"))?;
                self.nominees.push(nominee);
            }
        }
        Ok(())
    }

    /// RFC 9112 §9.3.
    fn persistence(&self, version: Version) -> Persistence {
        if self.close || (version == Version::HTTP_10 && !self.keep_alive) {
            Persistence::Close
        } else {
            Persistence::Keep
        }
    }

    /// Removes what the sender meant for this connection only.
    fn strip(&mut self, keep_upgrade: bool) -> Result<(), HeadError> {
        if !keep_upgrade {
            self.map.remove(header::UPGRADE);
        }
        for nominee in &self.nominees {
            // Nobody may take away what decides about routing and admission.
            if matches!(
                *nominee,
                header::HOST
                    | header::CONTENT_LENGTH
                    | header::AUTHORIZATION
                    | header::COOKIE
                    | header::FORWARDED
            ) || nominee.as_str().starts_with("x-forwarded-")
            {
                return Err(HeadError::Malformed("connection names an end-to-end field"));
            }
            self.map.remove(nominee);
        }
        if self.te_trailers {
            let trailers = HeaderValue::from_static("trailers");
            self.map.insert(header::TE, trailers);
        }
        Ok(())
    }

    /// RFC 9112 §3.2: exactly one `host`, and the target's authority instead of it.
    fn check_host(&mut self, uri: &Uri, version: Version) -> Result<(), HeadError> {
        const BAD: HeadError = HeadError::Malformed("host");
        let is_good = |host: &[u8]| host.iter().all(|byte| is_authority(*byte));
        match self.map.get(header::HOST) {
            Some(host) if !is_good(host.as_bytes()) => return Err(BAD),
            Some(host) if host.is_empty() && uri.authority().is_none() => return Err(BAD),
            None if version == Version::HTTP_11 => return Err(HeadError::Malformed("no host")),
            Some(_) | None => {}
        }
        if let Some(authority) = uri.authority() {
            if !is_good(authority.as_str().as_bytes()) {
                return Err(BAD);
            }
            let host = HeaderValue::from_str(authority.as_str()).map_err(|_| BAD)?;
            self.map.insert(header::HOST, host);
        }
        Ok(())
    }
}

/// What a `host` is made of; a comma, which a list of two would have, is not.
fn is_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&byte)
}

/// The elements of a comma-separated list.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

#[cfg(test)]
mod tests;
