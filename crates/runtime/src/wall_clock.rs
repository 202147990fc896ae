//! Waiting for a time of day. It passes while a machine sleeps; the clock that timers go by does not.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use tokio::time;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Returns when the time is none of these any more, or soon after where the machine slept or its clock
/// was set, forward or back.
pub async fn leaves(times: &Range<SystemTime>) {
    while let Some(rest) = rest(times, SystemTime::now()) {
        time::sleep(rest).await;
    }
}

/// How long until the next look at the clock; none where it is not one of the times.
fn rest(times: &Range<SystemTime>, now: SystemTime) -> Option<Duration> {
    let left = times.end.duration_since(now).unwrap_or_default();
    times.contains(&now).then(|| left.min(LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn what_is_hours_away_is_looked_for_often() {
        let now = SystemTime::now();
        for (times, expected) in [
            (now..now + HOUR * 6, Some(LOOK)),
            (now..now + LOOK / 4, Some(LOOK / 4)),
            (now - HOUR..now, None),
            // As after a night, and after a clock that was ahead.
            (now - HOUR * 14..now - HOUR * 8, None),
            (now + LOOK..now + HOUR * 6, None),
        ] {
            assert_eq!(rest(&times, now), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_is_over_is_not_waited_for() {
        let now = SystemTime::now();
        leaves(&(now - HOUR..now - LOOK)).await;
        let later = now..now + HOUR;
        assert!(time::timeout(LOOK * 10, leaves(&later)).await.is_err());
    }
}
