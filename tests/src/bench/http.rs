//! Loads of HTTP through a waypoint, ours and Envoy set up as one, on the same path.
//!
//! Client and server are as small as they can be, so that what is measured is the proxy.

pub mod client;

mod envoy;

mod objects;

pub mod report;

pub mod server;

/// HTTP/1.1.
pub const HTTP1_PORT: u16 = 8080;
/// HTTP/2 with prior knowledge, gRPC too.
pub const HTTP2_PORT: u16 = 8081;

/// Bytes of a response's content.
const CONTENT: usize = 64;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Speech {
    Http1,
    Http2,
    Grpc,
}

// === impl Speech ===

impl Speech {
    const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Grpc];

    fn port(self) -> u16 {
        match self {
            Self::Http1 => HTTP1_PORT,
            Self::Http2 | Self::Grpc => HTTP2_PORT,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
        }
    }
}
