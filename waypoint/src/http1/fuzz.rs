//! What must hold of any HTTP/1.1 message: nothing panics, and what is forwarded of it reads as that
//! one message again.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};

use super::{encode, framing, head, wire};
use crate::limits::HeadLimits;
use crate::message::Body;

/// Reads `input` as requests with their bodies until it ends or breaks.
pub fn request(input: &[u8]) {
    let limits = HeadLimits::default();
    let mut input = Bytes::copy_from_slice(input);
    while let Ok(Some(head)) = head::parse_request(&mut input, &limits) {
        check_forwarded(&head.request);
        if !read_body(head.length, &mut input, &limits) {
            return;
        }
    }
}

/// Reads `input` as responses with their bodies.
pub fn response(input: &[u8]) {
    let limits = HeadLimits::default();
    let mut input = Bytes::copy_from_slice(input);
    while let Ok(Some(head)) = head::parse_response(&mut input, &Method::GET, &limits) {
        if !read_body(head.length, &mut input, &limits) {
            return;
        }
    }
}

/// Reads `input` as a chunked body.
pub fn chunked(input: &[u8]) {
    let mut input = Bytes::copy_from_slice(input);
    read_body(framing::Length::Chunked, &mut input, &HeadLimits::default());
}

/// A head that would read differently at the endpoint could smuggle a request (RFC 9112 §11.2).
fn check_forwarded(request: &Request<()>) {
    let is_addressed =
        request.headers().contains_key(header::HOST) || request.uri().authority().is_some();
    if *request.method() == Method::CONNECT || !is_addressed {
        return;
    }
    let (parts, ()) = request.clone().into_parts();
    let mut output = wire::Output::default();
    encode::request(&mut output, &parts, &Body::Empty);
    let mut written = output.buffer(0).split().freeze();
    // What is added for the hop may make a head longer than a client's may be.
    let limits = HeadLimits {
        bytes: 1 << 20,
        fields: HeadLimits::MOST_FIELDS,
        ..HeadLimits::default()
    };
    let read = head::parse_request(&mut written, &limits);
    let Ok(Some(read)) = read else {
        panic!("{request:?} is forwarded as what is none: {read:?}");
    };
    assert!(written.is_empty(), "{request:?} is forwarded with more");
    assert!(
        matches!(
            read.length,
            framing::Length::None | framing::Length::Exact(0)
        ),
        "{request:?} is forwarded with a body"
    );
    assert_eq!(read.request.method(), request.method());
    let target = |uri: &Uri| {
        uri.path_and_query()
            .map(|target| target.as_str().to_owned())
    };
    assert_eq!(target(read.request.uri()), target(request.uri()));
    let end_to_end = |headers: &HeaderMap| {
        let mut headers = headers.clone();
        for hop in [
            header::HOST,
            header::CONTENT_LENGTH,
            header::TE,
            header::UPGRADE,
        ] {
            headers.remove(hop);
        }
        headers
    };
    assert_eq!(
        end_to_end(read.request.headers()),
        end_to_end(request.headers())
    );
}

fn read_body(length: framing::Length, input: &mut Bytes, limits: &HeadLimits) -> bool {
    let mut decoder = wire::Decoder::new(length);
    loop {
        match decoder.decode(input, limits) {
            Ok(wire::Step::Frame(_)) => {}
            Ok(wire::Step::End) => return true,
            Ok(wire::Step::More) | Err(_) => return false,
        }
    }
}
