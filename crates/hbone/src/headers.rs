//! The headers of a CONNECT request: who calls, on whose behalf, in which trace.
//!
//! They serve telemetry only. Nothing read here decides whether a connection may pass.

mod baggage;
mod forwarded;
mod traceparent;

pub use baggage::Baggage;
pub use forwarded::{forwarded, forwarded_host};
pub use traceparent::{TraceId, TraceParent};

pub const BAGGAGE: http::HeaderName = http::HeaderName::from_static("baggage");
pub const FORWARDED: http::HeaderName = http::header::FORWARDED;
/// The network a request comes from, where it came through a gateway between networks.
pub const FORWARDED_NETWORK: http::HeaderName =
    http::HeaderName::from_static("x-forwarded-network");
pub const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");
