//! Which certificate to fetch next, and when: decided from times and outcomes alone.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use mesh::identity::Identity;
use tokio::time::Instant;

/// Fetches that may run at once.
const PARALLEL: usize = 8;
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Once the CA is back, everything that waited is here within half a minute.
const MAX_BACKOFF: Duration = Duration::from_secs(20);
/// Between the beginnings of two fetches that were asked for before: a CA that comes back would have
/// all that is due to answer at once. What is asked for the first time is a pod that can't talk yet,
/// and of those a ztunnel that was restarted has all at once.
const PACE: Duration = Duration::from_millis(25);
/// A fetch somebody waits for need not sit out a long backoff, but the CA keeps this much rest.
const REAL_TIME_REST: Duration = Duration::from_secs(5);
/// An answer that is almost expired must not make us ask in a tight loop.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// How urgently a certificate is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A renewal: the old one still works.
    Background,
    /// A workload has shown up and will probably talk.
    WarmUp,
    /// A connection is waiting.
    RealTime,
}

/// What is to be fetched.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    entries: HashMap<Identity, Entry>,
    running: usize,
    /// Before which nothing that keeps to the pace may begin.
    held_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    priority: Priority,
    due: Instant,
    finished: Option<Instant>,
    running: bool,
    /// What the running fetch brings is outdated already.
    again: bool,
    failures: u32,
}

/// How long from `now` until a certificate that came in now is renewed: half of the life it has left, or up to
/// a tenth of it sooner, by `jitter` in 0..1, so that what was issued together is not renewed together. Counting from `not_before`, which lies in the past, would renew the shortest-lived ones at once and forever.
pub(super) fn renew_after(now: SystemTime, not_after: SystemTime, jitter: f64) -> Duration {
    let left = not_after.duration_since(now).unwrap_or_default();
    left.mul_f64(0.5 - 0.1 * jitter).max(MIN_RENEWAL)
}

/// How long to wait after so many failures in a row; `jitter` in 0..1 spreads it by a fifth to either side.
pub(super) fn backoff(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(MAX_BACKOFF).mul_f64(0.8 + 0.4 * jitter)
}

// === impl Schedule ===

impl Schedule {
    /// Somebody wants `identity`: new ones are due at once, known ones become more urgent.
    pub(super) fn request(&mut self, identity: &Identity, priority: Priority, now: Instant) {
        let entry = self
            .entries
            .entry(identity.clone())
            .or_insert_with(|| Entry {
                priority,
                due: now,
                finished: None,
                running: false,
                again: false,
                failures: 0,
            });
        entry.priority = entry.priority.max(priority);
        if priority == Priority::RealTime && entry.failures > 0 {
            let rested = entry.finished.map_or(now, |last| last + REAL_TIME_REST);
            entry.due = entry.due.min(rested.max(now));
        }
    }

    /// What is here is to be fetched anew after `wait`, which is told for each.
    pub(super) fn renew_all(&mut self, now: Instant, mut wait: impl FnMut() -> Duration) {
        for entry in self.entries.values_mut() {
            match entry.running {
                true => entry.again = true,
                false => entry.due = entry.due.min(now + wait()),
            }
        }
    }

    /// Of those whose time is up already, by whatever clock: one that was asked for in vain waits for
    /// its next try.
    pub(super) fn overdue(&mut self, identity: &Identity, now: Instant) {
        if let Some(entry) = self.entries.get_mut(identity)
            && entry.failures == 0
        {
            entry.due = entry.due.min(now);
        }
    }

    pub(super) fn forget(&mut self, identity: &Identity) {
        self.entries.remove(identity);
    }

    /// The most urgent one that is due, the longest waiting among equals; it counts as running from here.
    pub(super) fn start_next(&mut self, now: Instant) -> Option<Identity> {
        if self.running >= PARALLEL {
            return None;
        }
        let held_until = self.held_until;
        let (identity, entry) = self
            .entries
            .iter_mut()
            .filter(|(_, entry)| !entry.running && entry.may_begin(held_until) <= now)
            .max_by_key(|(_, entry)| (entry.priority, std::cmp::Reverse(entry.due)))?;
        entry.running = true;
        self.running += 1;
        if entry.keeps_to_pace() {
            self.held_until = Some(now + PACE);
        }
        Some(identity.clone())
    }

    /// When `start_next` will have something to start, should nothing else happen.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.running >= PARALLEL {
            return None;
        }
        let waiting = self.entries.values().filter(|entry| !entry.running);
        waiting.map(|entry| entry.may_begin(self.held_until)).min()
    }

    pub(super) fn succeeded(&mut self, identity: &Identity, now: Instant, renew_after: Duration) {
        self.running = self.running.saturating_sub(1);
        if let Some(entry) = self.entries.get_mut(identity) {
            let due = match entry.again {
                true => MIN_RENEWAL,
                false => renew_after,
            };
            *entry = Entry {
                priority: Priority::Background,
                due: now + due,
                finished: Some(now),
                running: false,
                again: false,
                failures: 0,
            };
        }
    }

    pub(super) fn failed(&mut self, identity: &Identity, now: Instant, jitter: f64) {
        self.running = self.running.saturating_sub(1);
        if let Some(entry) = self.entries.get_mut(identity) {
            entry.failures = entry.failures.saturating_add(1);
            entry.running = false;
            entry.finished = Some(now);
            entry.due = now + backoff(entry.failures, jitter);
        }
    }

    /// Whether `identity` is still wanted.
    pub(super) fn wants(&self, identity: &Identity) -> bool {
        self.entries.contains_key(identity)
    }

    /// How long until there can be news about `identity`; none if it isn't wanted.
    pub(super) fn wait(&self, identity: &Identity, now: Instant) -> Option<Duration> {
        let entry = self.entries.get(identity)?;
        Some(match entry.running {
            true => Duration::ZERO,
            false => entry.due.saturating_duration_since(now),
        })
    }
}

// === impl Entry ===

impl Entry {
    /// Whether it is one of those that a CA is asked for all at once when it comes back. Retries are,
    /// whoever waits for them: after an outage connections may wait for each.
    fn keeps_to_pace(&self) -> bool {
        self.failures > 0 || self.priority == Priority::Background
    }

    fn may_begin(&self, held_until: Option<Instant>) -> Instant {
        match held_until {
            Some(until) if self.keeps_to_pace() => self.due.max(until),
            Some(_) | None => self.due,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(account: &str) -> Identity {
        Identity::new("cluster.local", "shop", account)
    }

    #[test]
    fn what_has_expired_is_due_unless_it_was_asked_for_in_vain() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let [slept, failed] = ["slept", "failed"].map(identity);
        for one in [&slept, &failed] {
            schedule.request(one, Priority::RealTime, now);
            schedule.start_next(now).expect("one that is due");
        }
        schedule.succeeded(&slept, now, Duration::from_secs(3600));
        schedule.failed(&failed, now, 0.5);
        for one in [&slept, &failed] {
            schedule.overdue(one, now);
        }
        assert_eq!(schedule.wait(&slept, now), Some(Duration::ZERO));
        assert_eq!(schedule.wait(&failed, now), Some(backoff(1, 0.5)));
    }

    #[test]
    fn renewal_is_at_half_of_the_life_left() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (left, expected) in [(86_400, 43_200), (60, 30), (1, 1), (0, 1)] {
            let not_after = now + Duration::from_secs(left);
            let latest = renew_after(now, not_after, 0.0);
            assert_eq!(latest, Duration::from_secs(expected));
            let earliest = renew_after(now, not_after, 1.0);
            assert!(
                earliest <= latest && earliest >= latest.mul_f64(0.79),
                "{earliest:?}"
            );
        }
        let past = now - Duration::from_secs(10);
        assert_eq!(renew_after(now, past, 0.5), MIN_RENEWAL);
    }

    #[test]
    fn backoff_doubles_to_its_cap_with_a_fifth_of_jitter() {
        let middle: Vec<_> = [1, 2, 3, 9, 10, 1000, u32::MAX]
            .map(|failures| backoff(failures, 0.5).as_millis())
            .into();
        assert_eq!(middle, [500, 1000, 2000, 20_000, 20_000, 20_000, 20_000]);
        assert_eq!(backoff(1, 0.0), Duration::from_millis(400));
        assert_eq!(backoff(1, 1.0), Duration::from_millis(600));
    }

    #[test]
    fn the_urgent_come_first_and_no_more_than_eight_run() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for index in 0..10 {
            schedule.request(&identity(&format!("warm-{index}")), Priority::WarmUp, now);
        }
        schedule.request(&identity("warm-7"), Priority::RealTime, now);
        schedule.request(&identity("urgent"), Priority::RealTime, now);
        let mut first_two = [0, 1].map(|_| {
            let next = schedule.start_next(now);
            next.expect("due").service_account.to_string()
        });
        first_two.sort();
        assert_eq!(first_two, ["urgent", "warm-7"]);
        let more = (2..20).filter_map(|_| schedule.start_next(now));
        assert_eq!(more.count(), 6);
        assert_eq!(schedule.next_due(), None);
        schedule.succeeded(&identity("urgent"), now, Duration::from_secs(60));
        assert_eq!(schedule.next_due(), Some(now));
        assert!(schedule.start_next(now).is_some());
        assert!(schedule.start_next(now + PACE).is_none());
    }

    /// What has become of an identity before it is asked for.
    type Past = fn(&mut Schedule, &Identity, Instant);

    /// How many of 110 begin within the first second, and within the next, each answered as it begins.
    fn begun(past: Past, priority: Priority) -> [usize; 2] {
        let mut now = Instant::now();
        let mut schedule = Schedule::default();
        let all: Vec<_> = (0..110)
            .map(|index| identity(&format!("a-{index}")))
            .collect();
        for one in &all {
            past(&mut schedule, one, now);
        }
        now += MAX_BACKOFF;
        for one in &all {
            schedule.request(one, priority, now);
        }
        [now + Duration::from_secs(1), now + Duration::from_secs(2)].map(|end| {
            let mut count = 0;
            while let Some(due) = schedule.next_due().filter(|due| *due < end) {
                now = now.max(due);
                let one = schedule.start_next(now).expect("due");
                schedule.succeeded(&one, now, Duration::from_secs(3600));
                count += 1;
            }
            count
        })
    }

    #[test]
    fn what_was_asked_for_before_keeps_to_a_pace_and_the_first_of_a_pod_do_not() {
        let unknown: Past = |_, _, _| {};
        let renewed: Past = |schedule, one, now| {
            schedule.request(one, Priority::WarmUp, now);
            schedule.succeeded(one, now, MAX_BACKOFF);
        };
        let failed: Past = |schedule, one, now| {
            schedule.request(one, Priority::WarmUp, now);
            schedule.failed(one, now, 0.5);
        };
        // No rest is made up for: the second second has as many as the first.
        for (past, priority, expected) in [
            (unknown, Priority::WarmUp, [110, 0]),
            (unknown, Priority::RealTime, [110, 0]),
            (renewed, Priority::Background, [40, 40]),
            (renewed, Priority::RealTime, [110, 0]),
            (failed, Priority::Background, [40, 40]),
            (failed, Priority::RealTime, [40, 40]),
        ] {
            assert_eq!(begun(past, priority), expected, "{priority:?}");
        }
    }

    #[test]
    fn a_first_one_does_not_wait_for_what_keeps_to_the_pace() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        for account in ["old", "older"] {
            schedule.request(&identity(account), Priority::WarmUp, now);
            schedule.succeeded(&identity(account), now, Duration::ZERO);
        }
        assert!(schedule.start_next(now).is_some());
        assert_eq!(schedule.next_due(), Some(now + PACE));
        schedule.request(&identity("new"), Priority::WarmUp, now);
        assert_eq!(schedule.next_due(), Some(now));
        assert_eq!(schedule.start_next(now), Some(identity("new")));
        assert_eq!(schedule.start_next(now), None);
        assert!(schedule.start_next(now + PACE).is_some());
    }

    #[test]
    fn somebody_waiting_shortens_a_long_backoff_but_not_the_rest() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let web = identity("web");
        schedule.request(&web, Priority::WarmUp, now);
        for _ in 0..12 {
            schedule.failed(&web, now, 0.5);
        }
        assert_eq!(schedule.wait(&web, now), Some(MAX_BACKOFF));
        schedule.request(&web, Priority::RealTime, now);
        assert_eq!(schedule.wait(&web, now), Some(REAL_TIME_REST));
    }

    #[test]
    fn all_is_renewed_and_what_is_on_its_way_once_more() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let (web, api) = (identity("web"), identity("api"));
        let hour = Duration::from_secs(3600);
        schedule.request(&web, Priority::WarmUp, now);
        schedule.start_next(now);
        schedule.succeeded(&web, now, hour);
        schedule.request(&api, Priority::WarmUp, now);
        schedule.start_next(now + PACE);
        assert_eq!(schedule.wait(&web, now), Some(hour));
        schedule.renew_all(now, || Duration::from_millis(700));
        assert_eq!(schedule.wait(&web, now), Some(Duration::from_millis(700)));
        schedule.succeeded(&api, now, hour);
        assert_eq!(schedule.wait(&api, now), Some(MIN_RENEWAL));
        schedule.start_next(now + MIN_RENEWAL);
        schedule.start_next(now + MIN_RENEWAL + PACE);
        schedule.succeeded(&api, now, hour);
        assert_eq!(schedule.wait(&api, now), Some(hour));
    }

    #[test]
    fn what_is_forgotten_while_running_leaves_no_trace() {
        let now = Instant::now();
        let mut schedule = Schedule::default();
        let web = identity("web");
        schedule.request(&web, Priority::WarmUp, now);
        assert_eq!(schedule.start_next(now), Some(web.clone()));
        schedule.forget(&web);
        schedule.succeeded(&web, now, Duration::from_secs(60));
        assert!(!schedule.wants(&web));
        assert_eq!(schedule.next_due(), None);
        assert_eq!(schedule.running, 0);
    }
}
