//! Peers whose certificates are taken back, counted as ztunnels count them.

use identity::revocation::Untracked;
use metrics::counter;

/// Which end of a tunnel the waypoint is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reporter {
    /// It has made the tunnel.
    Source,
    /// The tunnel was made to it.
    Destination,
}

// === impl Reporter ===

impl Reporter {
    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    /// Counts a peer turned away, or a tunnel cut.
    pub(crate) fn count_revocation(self) {
        counter!("istio_crl_policy_rejections_total", "reporter" => self.as_str()).increment(1);
    }

    /// What is known of a peer's revocation; a peer that no list can speak of is served, and counted.
    pub(crate) fn tracked<F>(self, revocation: Result<Option<F>, Untracked>) -> Option<F> {
        revocation.unwrap_or_else(|untracked| {
            let reporter = self.as_str();
            tracing::warn!(reporter, "{untracked}");
            counter!("istio_crl_untracked_connections_total", "reporter" => reporter).increment(1);
            None
        })
    }
}
