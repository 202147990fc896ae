//! Envoy's buckets, which Istio's dashboards expect of durations and sizes alike.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Values in milli-units are summed as integers: their sum is exact.
const SCALE: f64 = 1000.0;

/// One worker's share of a histogram.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One more than bounds: above all of them.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// Several shares together.
#[derive(Debug, Default)]
pub(super) struct Totals {
    buckets: [u64; BOUNDS.len() + 1],
    sum: u64,
}

// === impl Histogram ===

impl Histogram {
    pub(crate) fn record(&self, value: f64) {
        let at = BOUNDS.partition_point(|bound| *bound < value);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        // Negative and huge values saturate.
        self.sum
            .fetch_add((value * SCALE) as u64, Ordering::Relaxed);
    }
}

// === impl Totals ===

impl Totals {
    pub(super) fn add(&mut self, share: &Histogram) {
        for (total, bucket) in self.buckets.iter_mut().zip(&share.buckets) {
            *total += bucket.load(Ordering::Relaxed);
        }
        self.sum += share.sum.load(Ordering::Relaxed);
    }

    pub(super) fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut cumulative = 0;
        for (bound, amount) in BOUNDS.iter().zip(&self.buckets) {
            cumulative += amount;
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {cumulative}");
        }
        let count: u64 = self.buckets.iter().sum();
        let sum = self.sum as f64 / SCALE;
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels},le=\"+Inf\"}} {count}\n{name}_sum{{{labels}}} {sum}\n\
             {name}_count{{{labels}}} {count}"
        );
    }
}
