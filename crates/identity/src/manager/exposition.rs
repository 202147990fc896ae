//! All certificates as metrics tell of them: so few numbers that an alert needs to know no identity.

use std::time::Duration;

use runtime::metrics::{Exposition, Kind};

use super::{EXPIRED, State};

/// What is left of the one that ends first, and of the one that is oldest for its life.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Summary {
    initializing: usize,
    available: usize,
    unavailable: usize,
    expiry: Option<Duration>,
    life_left: Option<f64>,
}

// === impl Summary ===

impl Summary {
    pub(super) fn of(states: impl Iterator<Item = State>) -> Self {
        let mut summary = Self::default();
        for state in states {
            match state {
                State::Initializing => summary.initializing += 1,
                State::Available(certificate) => {
                    summary.available += 1;
                    summary.lasts(certificate.remaining(), certificate.life_left());
                }
                State::Unavailable(failure) => {
                    summary.unavailable += 1;
                    // What has ended must not seem to be well again.
                    if failure.reason.starts_with(EXPIRED) {
                        summary.lasts(Duration::ZERO, 0.0);
                    }
                }
            }
        }
        summary
    }

    fn lasts(&mut self, remaining: Duration, life_left: f64) {
        let expiry = self.expiry.map_or(remaining, |least| least.min(remaining));
        self.expiry = Some(expiry);
        let least = self
            .life_left
            .map_or(life_left, |least| least.min(life_left));
        self.life_left = Some(least);
    }

    pub(super) fn render(&self, exposition: &mut Exposition) {
        exposition
            .family("weft_certificates", Kind::Gauge, "Identities in use here")
            .sample(&[("state", "initializing")], self.initializing)
            .sample(&[("state", "available")], self.available)
            .sample(&[("state", "unavailable")], self.unavailable);
        if let Some(expiry) = self.expiry {
            let help = "Seconds until the first certificate ends, 0 where one has";
            exposition
                .family("weft_certificate_expiry_seconds", Kind::Gauge, help)
                .sample(&[], expiry.as_secs());
        }
        if let Some(life_left) = self.life_left {
            let help = "The least share of its life that a certificate has left";
            exposition
                .family("weft_certificate_life_left_ratio", Kind::Gauge, help)
                .sample(&[], format_args!("{life_left:.3}"));
        }
    }
}
