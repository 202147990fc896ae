//! How long to wait before the next stream.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(15);
/// Part of a wait that chance may add or take away.
const JITTER: f64 = 0.2;

/// Doubles from 10 ms up to 15 s.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    pub(super) fn wait(&mut self, random: &mut impl Rng) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(random.random_range(1.0 - JITTER..=1.0 + JITTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_15_s_and_start_over() {
        let mut random = rand::rng();
        let mut backoff = Backoff::default();
        for expected in [
            10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000,
        ] {
            let wait = backoff.wait(&mut random).as_secs_f64() * 1000.0;
            let expected = f64::from(expected);
            assert!((expected * 0.79..expected * 1.21).contains(&wait), "{wait}");
        }
        backoff.reset();
        assert!(backoff.wait(&mut random) <= Duration::from_millis(12));
    }
}
