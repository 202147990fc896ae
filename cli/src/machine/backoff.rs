//! How long to wait before something that failed is started again.
use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    /// What has run this long counts as well again.
    steady: Duration,
    next: Duration,
}

impl Backoff {
    /// For the mesh's own pieces: traffic waits for them, so that one which had got as far as
    /// serving is back at once, and only one that does not get there waits longer and longer.
    pub(crate) fn piece() -> Self {
        Self::new(
            Duration::from_millis(100),
            Duration::from_secs(10),
            Duration::from_secs(2),
        )
    }

    /// For containers.
    pub(crate) fn container() -> Self {
        Self::new(
            Duration::from_secs(1),
            Duration::from_secs(60),
            Duration::from_secs(120),
        )
    }

    fn new(first: Duration, most: Duration, steady: Duration) -> Self {
        Self {
            first,
            most,
            steady,
            next: first,
        }
    }

    /// The pause after a run of the given length.
    pub(crate) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= self.steady {
            self.next = self.first;
        }
        let pause = self.next;
        self.next = (pause * 2).min(self.most);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_the_cap_and_forgets_after_a_steady_run() {
        let mut backoff = Backoff::container();
        let pauses: Vec<_> = (0..8)
            .map(|_| backoff.after(Duration::ZERO).as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.after(Duration::from_secs(120)).as_secs(), 1);
    }
}
