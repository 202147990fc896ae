//! Peak EWMA: of two endpoints drawn by weight, the one expected to answer sooner.
//!
//! A worse latency counts at once, a better one gradually, so that an endpoint that turns slow
//! is left at the first sign of it.

use std::time::{Duration, Instant};

use rand::Rng;

use super::weights::Weights;

/// Time in which the past loses most of its weight.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts as, however soon it came.
const FAILURE: Duration = Duration::from_secs(1);

/// The latency observed of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latency {
    seconds: f64,
    at: Instant,
}

// === impl Latency ===

impl Latency {
    /// What was observed is forgotten again, so that an endpoint that was left is tried again.
    pub(super) fn expected(self, now: Instant) -> f64 {
        self.seconds * self.remaining(now)
    }

    /// With one more observation.
    pub(super) fn observe(known: Option<Self>, latency: Duration, now: Instant) -> Self {
        let observed = latency.as_secs_f64();
        let seconds = match known {
            Some(known) if observed < known.seconds => {
                let remaining = known.remaining(now);
                known.seconds * remaining + observed * (1.0 - remaining)
            }
            Some(_) | None => observed,
        };
        Self { seconds, at: now }
    }

    pub(super) fn observe_failure(known: Option<Self>, now: Instant) -> Self {
        Self::observe(known, FAILURE, now)
    }

    fn remaining(self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at);
        (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

/// Compares the latency expected, times the requests under way with this one. Of an endpoint
/// that never answered the same is expected as of the other: its first requests show.
pub(super) fn choose(
    weights: &Weights,
    load: impl Fn(usize) -> (Option<f64>, u32),
    qualifies: impl Fn(usize) -> bool,
    random: &mut impl Rng,
) -> Option<usize> {
    let (first, second) = weights.draw_two(qualifies, random)?;
    let Some(second) = second else {
        return Some(first);
    };
    let of = [first, second].map(|at| (load(at), weights.share(at)));
    let [((one, _), _), ((other, _), _)] = of;
    let latencies = [one.or(other).unwrap_or(1.0), other.or(one).unwrap_or(1.0)];
    let cost = |nth: usize| {
        let ((_, active), share) = of[nth];
        latencies[nth] * (f64::from(active) / share + 1.0)
    };
    Some(if cost(1) < cost(0) { second } else { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-9, "{actual} of {expected}");
    }

    fn observe(known: Option<Latency>, seconds: f64, now: Instant) -> Latency {
        Latency::observe(known, Duration::from_secs_f64(seconds), now)
    }

    #[test]
    fn worse_counts_at_once_and_better_gradually() {
        let start = Instant::now();
        let first = observe(None, 1.0, start);
        near(first.expected(start), 1.0);
        let worse = observe(Some(first), 3.0, start);
        near(worse.expected(start), 3.0);
        let same_moment = observe(Some(worse), 1.0, start);
        near(same_moment.expected(start), 3.0);
        let later = start + DECAY;
        let better = observe(Some(worse), 1.0, later);
        let rest = (-1.0f64).exp();
        near(better.expected(later), 3.0 * rest + 1.0 - rest);
    }

    #[test]
    fn the_past_is_forgotten() {
        let start = Instant::now();
        let latency = observe(None, 5.0, start);
        assert!(latency.expected(start + 10 * DECAY) < 0.001);
        // A clock that seems to go back changes nothing.
        let earlier = start.checked_sub(Duration::from_secs(1)).unwrap();
        near(latency.expected(earlier), 5.0);
    }

    #[test]
    fn a_quick_failure_is_no_quick_answer() {
        let start = Instant::now();
        let quick = observe(None, 0.001, start);
        near(
            Latency::observe_failure(Some(quick), start).expected(start),
            1.0,
        );
        near(Latency::observe_failure(None, start).expected(start), 1.0);
    }
}
