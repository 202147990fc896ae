//! Writes heads and bodies of HTTP/1.1 messages.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Uri, Version, request, response};
use http_body::{Body as _, Frame};

use super::chunked;
use super::framing;
use super::head::{self, Persistence};
use super::wire::Output;
use crate::message::{Body, BodyError};

/// How a body is written.
#[derive(Debug)]
pub(crate) enum Encoder {
    /// Nothing is written, whatever comes.
    None,
    /// So many bytes are still to come.
    Exact(u64),
    Chunked,
    UntilClose,
}

/// Whether the receiver asked for trailers (`te: trailers`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trailers {
    Send,
    Drop,
}

/// Whether a head without a body may say how long it would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    State,
    /// An interim response and a 204 must not (RFC 9110 §8.6): some readers would wait for it.
    Omit,
}

/// Writes a request's head and returns how its body is to be written.
pub(crate) fn request(out: &mut Output, parts: &request::Parts, body: &Body) -> Encoder {
    let encoder = request_encoder(parts, body);
    let out = out.buffer(room(&parts.headers) + parts.uri.path().len());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    target(out, &parts.method, &parts.uri);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !parts.headers.contains_key(header::HOST) {
        let authority = parts.uri.authority().map_or("", |one| one.as_str());
        field(out, &header::HOST, authority.as_bytes());
    }
    let upgrade = parts.headers.contains_key(header::UPGRADE);
    let te = parts.headers.contains_key(header::TE);
    fields(out, &parts.headers, &encoder, Length::State);
    // RFC 9110 §7.6.1: both are nominated.
    match (upgrade, te) {
        (true, true) => out.extend_from_slice(b"connection: upgrade, te\r\n"),
        (true, false) => out.extend_from_slice(b"connection: upgrade\r\n"),
        (false, true) => out.extend_from_slice(b"connection: te\r\n"),
        (false, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// Writes a response's head and returns how its body is to be written. `version` is the
/// client's; the returned persistence is what the client has been told.
pub(crate) fn response(
    out: &mut Output,
    parts: &response::Parts,
    body: &Body,
    method: &Method,
    version: Version,
    persistence: Persistence,
) -> (Encoder, Persistence) {
    let encoder = response_encoder(parts, body, method, version);
    let persistence = match encoder {
        Encoder::UntilClose => Persistence::Close,
        Encoder::None | Encoder::Exact(_) | Encoder::Chunked => persistence,
    };
    let out = out.buffer(room(&parts.headers));
    status_line(out, parts.status);
    fields(out, &parts.headers, &encoder, Length::of(parts.status));
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        out.extend_from_slice(b"connection: upgrade\r\n");
    } else if persistence == Persistence::Close {
        out.extend_from_slice(b"connection: close\r\n");
    } else if version == Version::HTTP_10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    (encoder, persistence)
}

/// Writes an interim response.
pub(crate) fn interim(out: &mut Output, response: &http::Response<()>) {
    let out = out.buffer(room(response.headers()));
    status_line(out, response.status());
    fields(out, response.headers(), &Encoder::None, Length::Omit);
    out.extend_from_slice(b"\r\n");
}

fn request_encoder(parts: &request::Parts, body: &Body) -> Encoder {
    match (body.size_hint().exact(), stated_length(&parts.headers)) {
        // Methods that usually have content say so where it is empty (RFC 9110 §8.6).
        (Some(0), stated) => match parts.method {
            Method::POST | Method::PUT | Method::PATCH => Encoder::Exact(0),
            _ if stated.is_some() => Encoder::Exact(0),
            _ => Encoder::None,
        },
        (Some(length), _) | (None, Some(length)) => Encoder::Exact(length),
        (None, None) => Encoder::Chunked,
    }
}

fn response_encoder(
    parts: &response::Parts,
    body: &Body,
    method: &Method,
    version: Version,
) -> Encoder {
    if !framing::has_body(method, parts.status) {
        return Encoder::None;
    }
    let exact = body.size_hint().exact();
    match (exact, stated_length(&parts.headers)) {
        (Some(length), _) | (None, Some(length)) => Encoder::Exact(length),
        (None, None) if version == Version::HTTP_10 => Encoder::UntilClose,
        (None, None) => Encoder::Chunked,
    }
}

fn stated_length(headers: &HeaderMap) -> Option<u64> {
    let stated = headers.get(header::CONTENT_LENGTH)?;
    stated.to_str().ok()?.parse().ok()
}

fn room(headers: &HeaderMap) -> usize {
    let fields = headers.iter();
    let text: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    text + 128
}

fn target(out: &mut BytesMut, method: &Method, uri: &Uri) {
    if *method == Method::CONNECT {
        let authority = uri.authority().map_or("", |one| one.as_str());
        return out.extend_from_slice(authority.as_bytes());
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    if target.starts_with('?') {
        out.extend_from_slice(b"/");
    }
    let target = if target.is_empty() { "/" } else { target };
    out.extend_from_slice(target.as_bytes());
}

fn status_line(out: &mut BytesMut, status: StatusCode) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The end-to-end fields, and the framing as it is.
fn fields(out: &mut BytesMut, headers: &HeaderMap, encoder: &Encoder, length: Length) {
    for (name, value) in headers {
        match *name {
            header::CONTENT_LENGTH => match (encoder, length) {
                // A response to HEAD, or a 304, states the length that there would be.
                (Encoder::None, Length::State) => field(out, name, value.as_bytes()),
                (Encoder::None, Length::Omit)
                | (Encoder::Exact(_) | Encoder::Chunked | Encoder::UntilClose, _) => {}
            },
            header::UPGRADE | header::TE => field(out, name, value.as_bytes()),
            _ if head::is_hop_by_hop(name) => {}
            _ => field(out, name, value.as_bytes()),
        }
    }
    match encoder {
        Encoder::Exact(length) => {
            field(
                out,
                &header::CONTENT_LENGTH,
                HeaderValue::from(*length).as_bytes(),
            );
        }
        Encoder::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Encoder::None | Encoder::UntilClose => {}
    }
}

fn field(out: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

// === impl Length ===

impl Length {
    fn of(status: StatusCode) -> Self {
        match head::is_lengthless(status) {
            true => Self::Omit,
            false => Self::State,
        }
    }
}

// === impl Encoder ===

impl Encoder {
    /// Writes a frame of the body.
    pub(crate) fn frame(
        &mut self,
        out: &mut Output,
        frame: Frame<Bytes>,
        trailers: Trailers,
    ) -> Result<Written, BodyError> {
        match frame.into_data() {
            Ok(data) => self.data(out, data).map(|()| Written::Data),
            Err(frame) => {
                if let Ok(fields) = frame.into_trailers() {
                    self.end(out, Some(&fields).filter(|_| trailers == Trailers::Send))?;
                }
                Ok(Written::End)
            }
        }
    }

    /// Writes the body's end. A body that is short of its stated length is an error.
    pub(crate) fn end(
        &mut self,
        out: &mut Output,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), BodyError> {
        match self {
            Self::None | Self::UntilClose | Self::Exact(0) => Ok(()),
            Self::Exact(left) => Err(BodyError::Protocol(format!("{left} bytes are missing"))),
            Self::Chunked => {
                let out = out.buffer(8);
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if head::is_trailer(name) {
                        field(out, name, value.as_bytes());
                    }
                }
                out.extend_from_slice(b"\r\n");
                *self = Self::Exact(0);
                Ok(())
            }
        }
    }

    fn data(&mut self, out: &mut Output, data: Bytes) -> Result<(), BodyError> {
        match self {
            Self::None => {}
            Self::Exact(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or_else(|| {
                    BodyError::Protocol("more bytes than its content-length".to_owned())
                })?;
                out.push(data);
            }
            // An empty chunk would be the end.
            Self::Chunked if data.is_empty() => {}
            Self::Chunked => {
                chunked::encode_size(out.buffer(16), data.len());
                out.push(data);
                out.buffer(2).extend_from_slice(b"\r\n");
            }
            Self::UntilClose => out.push(data),
        }
        Ok(())
    }
}

/// What a frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Data,
    End,
}
