//! Connections kept waiting, or refused, for want of something: descriptors, memory, a place in
//! connection tracking.

use metrics::counter;

use super::Reporter;

/// What a refused connection would have needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Memory,
    /// A place in connection tracking.
    Conntrack,
}

pub(crate) fn count_refusal(reporter: Reporter, wanted: Wanted) {
    let (reporter, reason) = (reporter.as_str(), wanted.as_str());
    counter!("weft_connections_refused_total", "reporter" => reporter, "reason" => reason)
        .increment(1);
}

/// Counts a pause for want of descriptors.
pub(crate) fn count_pause(reporter: Reporter) {
    counter!("weft_accept_pauses_total", "reporter" => reporter.as_str()).increment(1);
}

// === impl Wanted ===

impl Wanted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Conntrack => "conntrack",
        }
    }
}
