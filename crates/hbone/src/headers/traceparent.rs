//! `traceparent` (W3C Trace Context): one trace per tunnelled connection.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use rand::Rng;

use super::TRACEPARENT;

/// Trace and span of a connection, version 00, not sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    span: u64,
}

/// What all parts of one trace share. Bytes, so that it may stand anywhere among other fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

// === impl TraceParent ===

impl TraceParent {
    pub fn random(random: &mut impl Rng) -> Self {
        Self {
            // All zeros mean "no trace" in the specification.
            trace: TraceId::new(random.random::<u128>().max(1)),
            span: random.random::<u64>().max(1),
        }
    }

    /// The caller's trace; none unless it is exactly of version 00's shape.
    pub fn parse(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(TRACEPARENT)?.to_str().ok()?;
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len());
        let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if parts.next().is_some()
            || lengths != (2, 32, 16, 2)
            || ![version, trace, span, flags].into_iter().all(hex)
        {
            return None;
        }
        Some(Self {
            trace: TraceId::new(u128::from_str_radix(trace, 16).ok()?),
            span: u64::from_str_radix(span, 16).ok()?,
        })
    }

    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.to_string()).ok()
    }

    pub fn trace_id(&self) -> TraceId {
        self.trace
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{:016x}-00", self.trace, self.span)
    }
}

// === impl TraceId ===

impl TraceId {
    fn new(number: u128) -> Self {
        Self(number.to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<TraceParent> {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(text).ok()?);
        TraceParent::parse(&headers)
    }

    #[test]
    fn a_trace_reads_back_as_written() {
        let trace = TraceParent::random(&mut rand::rng());
        assert_eq!(parse(&trace.to_string()), Some(trace));
    }

    #[test]
    fn fifty_five_zeros_are_no_trace() {
        assert_eq!(parse(&"0".repeat(55)), None);
        assert_eq!(
            parse("00-00000000000000000000000000000000000-0000000000-00"),
            None
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[-0-9a-fé+ ]{0,60}") {
            let _ = parse(&text);
        }
    }
}
