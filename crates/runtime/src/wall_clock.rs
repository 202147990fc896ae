//! Waiting for a time of day. It passes while a machine sleeps; the clock that timers go by does not.

use std::time::{Duration, SystemTime};

use tokio::time;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Returns when it is `time`, or soon after where the machine slept or its clock was set.
pub async fn reaches(time: SystemTime) {
    while let Some(rest) = rest(time, SystemTime::now()) {
        time::sleep(rest).await;
    }
}

/// How long until the next look at the clock; none where it is time.
fn rest(time: SystemTime, now: SystemTime) -> Option<Duration> {
    let left = time.duration_since(now).unwrap_or_default();
    (!left.is_zero()).then(|| left.min(LOOK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hours_away_is_looked_for_often() {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = SystemTime::now();
        for (time, expected) in [
            (now + HOUR * 6, Some(LOOK)),
            (now + LOOK / 4, Some(LOOK / 4)),
            (now, None),
            // As after a night.
            (now - HOUR * 8, None),
        ] {
            assert_eq!(rest(time, now), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_that_is_over_is_not_waited_for() {
        let now = SystemTime::now();
        reaches(now - LOOK).await;
        let later = reaches(now + LOOK * 100);
        assert!(time::timeout(LOOK * 10, later).await.is_err());
    }
}
