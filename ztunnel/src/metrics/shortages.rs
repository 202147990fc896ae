//! Connections kept waiting, or refused, for want of something: descriptors, memory, a place in
//! connection tracking.

use metrics::{Counter, counter};

use super::Reporter;

/// What a refused connection would have needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Memory,
    /// A place in connection tracking.
    Conntrack,
}

pub(crate) fn count_refusal(reporter: Reporter, wanted: Wanted) {
    refusals(reporter, wanted).increment(1);
}

/// Counts a pause for want of descriptors.
pub(crate) fn count_pause(reporter: Reporter) {
    pauses(reporter).increment(1);
}

/// Has all of these there before there is anything to count, and keeps them: to Prometheus, a counter
/// that begins at one has not increased. To be called more often than the recorder forgets.
pub(super) fn touch() {
    for reporter in [Reporter::Source, Reporter::Destination] {
        pauses(reporter).increment(0);
        for wanted in Wanted::ALL {
            refusals(reporter, wanted).increment(0);
        }
    }
}

fn refusals(reporter: Reporter, wanted: Wanted) -> Counter {
    let (reporter, reason) = (reporter.as_str(), wanted.as_str());
    counter!("weft_connections_refused_total", "reporter" => reporter, "reason" => reason)
}

fn pauses(reporter: Reporter) -> Counter {
    counter!("weft_accept_pauses_total", "reporter" => reporter.as_str())
}

// === impl Wanted ===

impl Wanted {
    const ALL: [Self; 2] = [Self::Memory, Self::Conntrack];

    fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Conntrack => "conntrack",
        }
    }
}
