//! A deadline of a connection that moves with every message: setting it costs no timer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Elapses at its moment, if it is still set then.
#[derive(Debug, Default)]
pub(crate) struct Deadline {
    at: Option<Instant>,
    /// Wakes at some moment not after [`Self::at`].
    sleep: Option<Pin<Box<Sleep>>>,
}

// === impl Deadline ===

impl Deadline {
    pub(crate) fn set(&mut self, after: Duration) {
        self.at = Some(Instant::now() + after);
    }

    pub(crate) fn clear(&mut self) {
        self.at = None;
    }

    pub(crate) fn is_set(&self) -> bool {
        self.at.is_some()
    }

    pub(crate) fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= at {
                self.at = None;
                self.sleep = None;
                return Poll::Ready(());
            }
            // It was moved since the timer was set.
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }
}
