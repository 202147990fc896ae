//! When keys are fetched: before they are needed, not too often, and again when a token names one
//! that is not there.

use std::time::Duration;

use tokio::time::Instant;

/// After a failure, doubled with each one that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An unknown key is worth a fetch, but anybody can make one up.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);

/// How one source stands.
#[derive(Debug)]
pub(crate) struct Schedule {
    refresh: Duration,
    fetching: bool,
    succeeded: Option<Instant>,
    last: Option<Instant>,
    failures: u32,
    failure: Option<String>,
}

/// What the one who needs keys does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    UseWhatIsThere,
    /// Fetch, but don't wait for it: what is there is good for now.
    FetchInBackground,
    FetchAndWait,
    /// Somebody else fetches.
    Wait,
}

// === impl Schedule ===

impl Schedule {
    pub(crate) fn new(refresh: Duration) -> Self {
        Self {
            refresh,
            fetching: false,
            succeeded: None,
            last: None,
            failures: 0,
            failure: None,
        }
    }

    /// Says who fetches: whoever is told to must report the end.
    pub(crate) fn step(&mut self, now: Instant, unknown_key: bool) -> Step {
        let since_last = self.last.map(|last| now.saturating_duration_since(last));
        let rested = since_last.is_none_or(|since| since >= self.pause());
        let step = match self.succeeded {
            None if self.fetching => return Step::Wait,
            None if rested => Step::FetchAndWait,
            None => return Step::UseWhatIsThere,
            Some(_) if unknown_key && self.fetching => return Step::Wait,
            Some(_) if unknown_key && since_last.is_none_or(|since| since >= UNKNOWN_KEY_PAUSE) => {
                Step::FetchAndWait
            }
            Some(at)
                if !self.fetching
                    && rested
                    && now.saturating_duration_since(at) >= self.refresh =>
            {
                Step::FetchInBackground
            }
            Some(_) => return Step::UseWhatIsThere,
        };
        self.fetching = true;
        self.last = Some(now);
        step
    }

    pub(crate) fn succeeded(&mut self, now: Instant) {
        self.fetching = false;
        self.succeeded = Some(now);
        self.failures = 0;
        self.failure = None;
    }

    pub(crate) fn failed(&mut self, now: Instant, reason: String) {
        self.fetching = false;
        self.last = Some(now);
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(reason);
    }

    pub(crate) fn is_fetching(&self) -> bool {
        self.fetching
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.clone()
    }

    fn pause(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(earlier) => FIRST_PAUSE
                .saturating_mul(2u32.saturating_pow(earlier.min(16)))
                .min(LONGEST_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(1200);

    #[test]
    fn one_fetches_and_the_others_wait() {
        let mut schedule = Schedule::new(REFRESH);
        let now = Instant::now();
        assert_eq!(schedule.step(now, false), Step::FetchAndWait);
        assert_eq!(schedule.step(now, false), Step::Wait);
        schedule.succeeded(now);
        assert_eq!(schedule.step(now, false), Step::UseWhatIsThere);
    }

    #[test]
    fn good_keys_are_refreshed_while_they_are_used() {
        let mut schedule = Schedule::new(REFRESH);
        let now = Instant::now();
        schedule.step(now, false);
        schedule.succeeded(now);
        let later = now + REFRESH;
        assert_eq!(schedule.step(later, false), Step::FetchInBackground);
        assert_eq!(schedule.step(later, false), Step::UseWhatIsThere);
        schedule.failed(later, "gone".to_owned());
        assert_eq!(schedule.step(later, false), Step::UseWhatIsThere);
        let rested = later + FIRST_PAUSE;
        assert_eq!(schedule.step(rested, false), Step::FetchInBackground);
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_pauses() {
        let mut schedule = Schedule::new(REFRESH);
        let mut now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(schedule.step(now, false), Step::FetchAndWait);
            schedule.failed(now, "no".to_owned());
            let pause = Duration::from_secs(seconds);
            let early = now + pause - Duration::from_millis(1);
            assert_eq!(schedule.step(early, false), Step::UseWhatIsThere);
            now += pause;
        }
    }

    #[test]
    fn made_up_keys_cost_no_more_than_a_fetch_in_a_while() {
        let mut schedule = Schedule::new(REFRESH);
        let now = Instant::now();
        schedule.step(now, false);
        schedule.succeeded(now);
        let soon = now + Duration::from_secs(1);
        assert_eq!(schedule.step(soon, true), Step::UseWhatIsThere);
        let later = now + UNKNOWN_KEY_PAUSE;
        assert_eq!(schedule.step(later, true), Step::FetchAndWait);
        schedule.succeeded(later);
        assert_eq!(schedule.step(later, true), Step::UseWhatIsThere);
    }
}
