//! HTTP/1.1 (RFC 9112), of our own on `httparse`: strict about what can be understood in two
//! ways, and without a copy or a buffer that a message does not need.
//!
//! - [`head`], [`framing`], [`chunked`]: reading, without I/O.
//! - `encode`: writing, without I/O.
//! - `wire`: a transport with what was read ahead and what waits to be written.
//! - `connection`: a client's connection.
//! - `call`: one request to an endpoint.

pub mod head;

pub mod framing;

pub mod chunked;

pub(crate) mod encode;

pub(crate) mod wire;

pub(crate) mod connection;

pub(crate) mod call;

use bytes::Bytes;
use http::Method;

use crate::limits::HeadLimits;

/// Reads `input` as requests with their bodies until it ends or breaks, for fuzzing: nothing may
/// panic.
pub fn fuzz_request(input: &[u8]) {
    let limits = HeadLimits::default();
    let mut input = Bytes::copy_from_slice(input);
    while let Ok(Some(head)) = head::parse_request(&mut input, &limits) {
        if !fuzz_body(head.length, &mut input, &limits) {
            return;
        }
    }
}

/// Reads `input` as responses with their bodies, for fuzzing.
pub fn fuzz_response(input: &[u8]) {
    let limits = HeadLimits::default();
    let mut input = Bytes::copy_from_slice(input);
    while let Ok(Some(head)) = head::parse_response(&mut input, &Method::GET, &limits) {
        if !fuzz_body(head.length, &mut input, &limits) {
            return;
        }
    }
}

/// Reads `input` as a chunked body, for fuzzing.
pub fn fuzz_chunked(input: &[u8]) {
    let mut input = Bytes::copy_from_slice(input);
    fuzz_body(framing::Length::Chunked, &mut input, &HeadLimits::default());
}

fn fuzz_body(length: framing::Length, input: &mut Bytes, limits: &HeadLimits) -> bool {
    let mut decoder = wire::Decoder::new(length);
    loop {
        match decoder.decode(input, limits) {
            Ok(wire::Step::Frame(_)) => {}
            Ok(wire::Step::End) => return true,
            Ok(wire::Step::More) | Err(_) => return false,
        }
    }
}
