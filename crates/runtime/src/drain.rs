//! Draining by ownership: a [`Trigger`] starts it, and it is over when every [`Watch`] is gone.
//!
//! Whoever accepts work holds a watch, stops accepting when it signals, and drops it once
//! the work it accepted has ended.

use tokio::sync::watch;

/// How work in progress is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Take nothing new; what runs may finish.
    Graceful,
    /// Cut what runs.
    Immediate,
}

/// The side that starts the drain. Dropping it without a word drains immediately.
#[derive(Debug)]
pub struct Trigger {
    sender: watch::Sender<Option<Mode>>,
}

/// The side that is drained. Clones count separately.
#[derive(Clone, Debug)]
pub struct Watch {
    receiver: watch::Receiver<Option<Mode>>,
}

/// A drain that nobody has started yet.
pub fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(None);
    (Trigger { sender }, Watch { receiver })
}

// === impl Trigger ===

impl Trigger {
    /// Another watch of this drain.
    pub fn watch(&self) -> Watch {
        Watch {
            receiver: self.sender.subscribe(),
        }
    }

    /// Tells every watch how to end, without waiting.
    pub fn signal(&self, mode: Mode) {
        self.sender.send_replace(Some(mode));
    }

    /// Waits until no watch is left.
    pub async fn drained(&self) {
        self.sender.closed().await;
    }
}

// === impl Watch ===

impl Watch {
    /// Waits for the drain and returns how to end. After a graceful signal it can be
    /// awaited again for the immediate one with [`Watch::immediate`].
    pub async fn signaled(&mut self) -> Mode {
        match self.receiver.wait_for(Option::is_some).await {
            Ok(mode) => mode.unwrap_or(Mode::Immediate),
            Err(_) => Mode::Immediate,
        }
    }

    /// Waits until what still runs must be cut.
    pub async fn immediate(&mut self) {
        // An error means the trigger is gone, which is the same order.
        let _ = self
            .receiver
            .wait_for(|mode| *mode == Some(Mode::Immediate))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_when_the_last_watch_is_dropped() {
        let (trigger, watch) = channel();
        let mut other = watch.clone();
        trigger.signal(Mode::Graceful);
        assert_eq!(other.signaled().await, Mode::Graceful);
        drop(watch);
        let waiting = tokio::spawn(async move { trigger.drained().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(other);
        waiting.await.expect("no panic");
    }

    #[tokio::test]
    async fn a_dropped_trigger_cuts() {
        let (trigger, mut watch) = channel();
        drop(trigger);
        assert_eq!(watch.signaled().await, Mode::Immediate);
        watch.immediate().await;
    }

    #[tokio::test]
    async fn immediate_waits_past_the_graceful_signal() {
        let (trigger, mut watch) = channel();
        trigger.signal(Mode::Graceful);
        let cut = tokio::spawn(async move { watch.immediate().await });
        tokio::task::yield_now().await;
        assert!(!cut.is_finished());
        trigger.signal(Mode::Immediate);
        cut.await.expect("no panic");
    }
}
