//! How far this process's clock is from the control plane's, as the dates of its answers tell.
//!
//! Certificates begin and end by the control plane's clock: one that is far from it takes good
//! ones for expired, or for not valid yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::header::DATE;
use http::{HeaderMap, HeaderValue};
use runtime::metrics::{Exposition, Kind};
use tokio::time::Instant;

/// Seconds by which clocks may differ without harm: half of what certificates begin early.
pub const HARMLESS_SKEW: u32 = 300;
/// A date is of whole seconds, and servers look at their clock once a second.
const COARSE: f64 = 2.0;

/// What is known of the difference; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<Mutex<Option<Reading>>>);

/// By how many seconds this clock was ahead of the other one, when that last gave its time. An
/// answer may have been on its way for as long as it was waited for, so that there is a least and a
/// most.
#[derive(Clone, Copy, Debug)]
struct Reading {
    least: f64,
    most: f64,
    taken: Moment,
}

/// A point in time, as two clocks of this process have it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    wall: SystemTime,
    monotonic: Instant,
}

// === impl Clock ===

impl Clock {
    /// Seconds by which this clock is certainly ahead of the control plane's (negative: behind);
    /// none before its first answer. It is told between answers too: a jump shows at once.
    pub fn ahead(&self) -> Option<f64> {
        let reading = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reading.map(|reading| reading.ahead(Moment::now()))
    }

    /// Adds `weft_clock_skew_seconds` to the metrics.
    pub fn expose(&self, exposition: &mut Exposition) {
        let Some(ahead) = self.ahead() else {
            return;
        };
        let help = "Seconds by which this clock is ahead of the control plane's";
        exposition
            .family("weft_clock_skew_seconds", Kind::Gauge, help)
            .sample(&[], ahead.round());
    }

    /// Takes the date of an answer to what was asked then. Control planes that send none tell nothing.
    pub(super) fn read(&self, headers: &HeaderMap<HeaderValue>, asked: Moment) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
            return;
        };
        let now = Moment::now();
        let reading = Reading::of(date, asked, now);
        let before = self.ahead();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reading);
        let ahead = reading.ahead(now);
        if is_beyond(ahead) && !before.is_some_and(is_beyond) {
            tracing::warn!(
                seconds_ahead = ahead.round(),
                "this clock is far from the control plane's: certificates seem expired, or not \
                 valid yet"
            );
        }
    }
}

fn is_beyond(ahead: f64) -> bool {
    ahead.abs() > f64::from(HARMLESS_SKEW)
}

// === impl Reading ===

impl Reading {
    fn of(date: SystemTime, asked: Moment, received: Moment) -> Self {
        // Of the monotonic clock: this one may have jumped meanwhile.
        let waited = received.monotonic - asked.monotonic;
        let most = seconds_between(date, received.wall);
        Self {
            least: most - waited.as_secs_f64() - COARSE,
            most,
            taken: received,
        }
    }

    /// The least of what is possible.
    fn ahead(&self, now: Moment) -> f64 {
        let passed = (now.monotonic - self.taken.monotonic).as_secs_f64();
        let jumped = seconds_between(self.taken.wall, now.wall) - passed;
        0.0_f64.max(self.least + jumped).min(self.most + jumped)
    }
}

// === impl Moment ===

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }
}

fn seconds_between(from: SystemTime, to: SystemTime) -> f64 {
    match to.duration_since(from) {
        Ok(later) => later.as_secs_f64(),
        Err(earlier) => -earlier.duration().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Asked at zero by both clocks, answered three seconds later with a date.
    fn reading(date: i64) -> (Reading, Moment) {
        let start = Moment::now();
        let date = at(start.wall, date);
        let received = later(start, 3, 3);
        (Reading::of(date, start, received), received)
    }

    fn at(from: SystemTime, seconds: i64) -> SystemTime {
        let distance = Duration::from_secs(seconds.unsigned_abs());
        match seconds < 0 {
            true => from - distance,
            false => from + distance,
        }
    }

    fn later(from: Moment, wall: i64, monotonic: u64) -> Moment {
        Moment {
            wall: at(from.wall, wall),
            monotonic: from.monotonic + Duration::from_secs(monotonic),
        }
    }

    #[test]
    fn what_the_way_of_an_answer_explains_is_no_difference() {
        for (date, ahead) in [
            (-400, 398.0),
            (-2, 0.0),
            (0, 0.0),
            (3, 0.0),
            (4, -1.0),
            (403, -400.0),
        ] {
            let (reading, received) = reading(date);
            let told = reading.ahead(received);
            assert!((told - ahead).abs() < 0.01, "{date}: {told}");
        }
    }

    #[test]
    fn a_jump_after_the_last_answer_shows_and_time_that_passes_does_not() {
        let (reading, received) = reading(0);
        for (wall, monotonic, ahead) in [
            (3600, 3600, 0.0),
            (3600, 0, 3598.0),
            (-3600, 0, -3597.0),
            (0, 3600, -3597.0),
        ] {
            let told = reading.ahead(later(received, wall, monotonic));
            assert!((told - ahead).abs() < 0.01, "{wall} {monotonic}: {told}");
        }
    }

    #[test]
    fn an_answer_that_tells_no_time_leaves_what_is_known() {
        let clock = Clock::default();
        let asked = Moment::now();
        clock.read(&HeaderMap::new(), asked);
        let wrong = HeaderMap::from_iter([(DATE, HeaderValue::from_static("yesterday"))]);
        clock.read(&wrong, asked);
        assert_eq!(clock.ahead(), None);
        let now = httpdate::fmt_http_date(SystemTime::now());
        let date = HeaderValue::try_from(now).expect("a value");
        clock.read(&HeaderMap::from_iter([(DATE, date)]), asked);
        assert_eq!(clock.ahead(), Some(0.0));
        clock.read(&wrong, asked);
        assert_eq!(clock.ahead(), Some(0.0));
    }
}
