//! What must hold of any HTTP/1.1 message: nothing panics, and what is forwarded of it reads as that
//! one message again. One that would read differently could smuggle another (RFC 9112 §11.2).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header;
use http::{HeaderMap, Method, Response, StatusCode, Uri, Version, request};
use http_body::{Frame, SizeHint};

use super::encode::{self, Encoder, Trailers};
use super::framing::Length;
use super::head::{self, Persistence};
use super::wire::{Decoder, Output, Step};
use crate::limits::HeadLimits;
use crate::message::{Body, BodyError};

/// Bytes of a body that are forwarded at a time; few enough to be written next to each other.
const PIECE: usize = 1000;

/// Reads `input` as requests with their bodies until it ends or breaks.
pub fn request(input: &[u8]) {
    let limits = HeadLimits::default();
    let mut input = Bytes::copy_from_slice(input);
    while let Ok(Some(head)) = head::parse_request(&mut input, &limits) {
        let (parts, ()) = head.request.into_parts();
        let content = Content::read(head.length, &mut input, &limits);
        check_request(&parts, &content);
        if !content.is_whole {
            return;
        }
    }
}

/// Reads `input` as responses with their bodies until it ends or breaks.
pub fn response(input: &[u8]) {
    let limits = HeadLimits::default();
    let mut input = Bytes::copy_from_slice(input);
    while let Ok(Some(head)) = head::parse_response(&mut input, &Method::GET, &limits) {
        let content = Content::read(head.length, &mut input, &limits);
        check_response(head.response, &content);
        if !content.is_whole {
            return;
        }
    }
}

/// Reads `input` as a chunked body.
pub fn chunked(input: &[u8]) {
    let mut input = Bytes::copy_from_slice(input);
    let content = Content::read(Length::Chunked, &mut input, &HeadLimits::default());
    let mut output = Output::default();
    content.write(Encoder::Chunked, &mut output);
    let mut written = output.buffer(0).split().freeze();
    content.check(Length::Chunked, &mut written);
}

fn check_request(parts: &request::Parts, content: &Content) {
    let is_addressed = parts.headers.contains_key(header::HOST) || parts.uri.authority().is_some();
    if parts.method == Method::CONNECT || !is_addressed {
        return;
    }
    let mut output = Output::default();
    let encoder = encode::request(&mut output, parts, &content.body());
    content.write(encoder, &mut output);
    let mut written = output.buffer(0).split().freeze();
    let read = head::parse_request(&mut written, &forwarded_limits());
    let Ok(Some(read)) = read else {
        panic!("{parts:?} is forwarded as what is none: {read:?}");
    };
    assert_eq!(read.request.method(), parts.method);
    let target = |uri: &Uri| {
        uri.path_and_query()
            .map(|target| target.as_str().to_owned())
    };
    assert_eq!(target(read.request.uri()), target(&parts.uri));
    assert_eq!(
        without_length(read.request.headers()),
        without_length(&parts.headers)
    );
    content.check(read.length, &mut written);
}

fn check_response(response: Response<()>, content: &Content) {
    let (parts, ()) = response.into_parts();
    let is_final =
        !parts.status.is_informational() || parts.status == StatusCode::SWITCHING_PROTOCOLS;
    let mut output = Output::default();
    if is_final {
        let (body, method) = (content.body(), Method::GET);
        let (version, keep) = (Version::HTTP_11, Persistence::Keep);
        let (encoder, _) = encode::response(&mut output, &parts, &body, &method, version, keep);
        content.write(encoder, &mut output);
    } else {
        encode::interim(&mut output, &Response::from_parts(parts.clone(), ()));
    }
    let mut written = output.buffer(0).split().freeze();
    let read = head::parse_response(&mut written, &Method::GET, &forwarded_limits());
    let Ok(Some(read)) = read else {
        panic!("{parts:?} is forwarded as what is none: {read:?}");
    };
    assert_eq!(read.response.status(), parts.status);
    let headers = read.response.headers();
    assert_eq!(without_length(headers), without_length(&parts.headers));
    // RFC 9110 §8.6.
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    let may_have = !parts.status.is_informational() && parts.status != StatusCode::NO_CONTENT;
    assert!(
        may_have || !has_length,
        "{parts:?} is forwarded with a length"
    );
    content.check(read.length, &mut written);
}

/// What is added for the hop may make a head longer than a client's may be.
fn forwarded_limits() -> HeadLimits {
    HeadLimits {
        bytes: 1 << 20,
        fields: HeadLimits::MOST_FIELDS,
        ..HeadLimits::default()
    }
}

/// A length is what the hop says of the body it writes.
fn without_length(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    headers.remove(header::CONTENT_LENGTH);
    headers
}

/// A body, or as much of it as came.
#[derive(Debug, Default)]
struct Content {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    /// Of all of it, where the head said so.
    size: Option<u64>,
    is_whole: bool,
}

/// A body of a size, for the head that goes before it.
struct OfSize(Option<u64>);

// === impl Content ===

impl Content {
    fn read(length: Length, input: &mut Bytes, limits: &HeadLimits) -> Self {
        let mut decoder = Decoder::new(length);
        let mut content = Self {
            size: decoder.exact(),
            ..Self::default()
        };
        loop {
            match decoder.decode(input, limits) {
                Ok(Step::Frame(frame)) => match frame.into_data() {
                    Ok(data) => content.data.extend_from_slice(&data),
                    Err(frame) => content.trailers = frame.into_trailers().ok(),
                },
                Ok(Step::End) => {
                    content.is_whole = true;
                    return content;
                }
                Ok(Step::More) | Err(_) => {
                    // Such a body is whole whenever the sender has closed.
                    content.is_whole = length == Length::UntilClose;
                    return content;
                }
            }
        }
    }

    fn body(&self) -> Body {
        match self.size {
            Some(0) => Body::Empty,
            size => Body::Stream(Box::pin(OfSize(size))),
        }
    }

    /// Forwards it behind its head.
    fn write(&self, mut encoder: Encoder, output: &mut Output) {
        let data = self.data.chunks(PIECE).map(Bytes::copy_from_slice);
        let trailers = self.trailers.clone().map(Frame::trailers);
        for frame in data.map(Frame::data).chain(trailers) {
            let written = encoder.frame(output, frame, Trailers::Send);
            written.expect("as much as was said");
        }
        if self.is_whole {
            encoder.end(output, None).expect("all that was said");
        }
    }

    /// What was written is this and nothing more.
    fn check(&self, length: Length, written: &mut Bytes) {
        let again = Self::read(length, written, &forwarded_limits());
        assert_eq!(
            (&again.data, &again.trailers, again.is_whole),
            (&self.data, &self.trailers, self.is_whole)
        );
        assert!(written.is_empty(), "{written:?} is forwarded behind it");
    }
}

// === impl OfSize ===

impl http_body::Body for OfSize {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
