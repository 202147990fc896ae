//! What a run of a load counted, and the figures it comes to.

use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// What one run of a load measured. Latencies are in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Exchanges, or bytes, each second.
    pub rate: f64,
    pub median: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    /// Exchanges, or bytes, of the whole run with its warm-up: what processor time is divided by.
    pub total: u64,
    /// Exchanges that failed, which count as none.
    pub failed: u64,
}

/// Exchanges or bytes of one client, or of all together.
pub(super) struct Tally {
    amount: u64,
    total: u64,
    failed: u64,
    /// Nanoseconds, to three digits.
    latencies: Histogram<u64>,
}

/// A minute, in nanoseconds; what takes longer counts as that.
const LONGEST: u64 = 60_000_000_000;

// === impl Tally ===

impl Default for Tally {
    fn default() -> Self {
        Self {
            amount: 0,
            total: 0,
            failed: 0,
            latencies: Histogram::new_with_max(LONGEST, 3).expect("the bounds are possible"),
        }
    }
}

impl Tally {
    pub(super) fn merge(&mut self, other: &Self) -> Result<()> {
        self.amount += other.amount;
        self.total += other.total;
        self.failed += other.failed;
        Ok(self.latencies.add(&other.latencies)?)
    }

    /// An exchange that was due then and has ended now.
    pub(super) fn exchange(&mut self, due: Instant, start: Instant) {
        self.total += 1;
        if due >= start {
            self.amount += 1;
            let nanoseconds = due.elapsed().as_nanos();
            self.latencies
                .saturating_record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn failure(&mut self) {
        self.failed += 1;
    }

    pub(super) fn bytes(&mut self, count: usize, now: Instant, start: Instant) {
        self.total += count as u64;
        if now >= start {
            self.amount += count as u64;
        }
    }

    pub(super) fn measured(&self, duration: Duration) -> Measured {
        let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
        let at = |share| microseconds(self.latencies.value_at_quantile(share));
        Measured {
            rate: self.amount as f64 / duration.as_secs_f64(),
            median: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: microseconds(self.latencies.max()),
            total: self.total,
            failed: self.failed,
        }
    }
}
