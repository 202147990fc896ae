//! What asks the process to stop: SIGTERM, SIGINT, or somebody inside it (`/quitquitquit`).

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks for and waits for shutdown. Clones share one request.
#[derive(Clone, Debug)]
pub struct Shutdown {
    reason: Arc<watch::Sender<Option<&'static str>>>,
}

// === impl Shutdown ===

impl Shutdown {
    pub fn new() -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Asks for shutdown. The first reason is the one kept.
    pub fn request(&self, reason: &'static str) {
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(reason);
            first
        });
    }

    /// Waits until shutdown is asked for, and says why.
    pub async fn requested(&self) -> &'static str {
        let mut changes = self.reason.subscribe();
        loop {
            if let Some(reason) = *changes.borrow_and_update() {
                return reason;
            }
            if changes.changed().await.is_err() {
                // The sender is `self`, so this cannot end while we wait.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Turns SIGTERM and SIGINT into a request. A second signal ends the process at once.
    pub async fn listen(self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut asked = false;
        loop {
            let (reason, code) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", 143),
                _ = interrupt.recv() => ("SIGINT", 130),
            };
            if asked {
                tracing::warn!(signal = reason, "second signal, exiting at once");
                crate::logs::flush();
                std::process::exit(code);
            }
            asked = true;
            self.request(reason);
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_wins_and_wakes_every_clone() {
        let shutdown = Shutdown::new();
        let waiter = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.requested().await }
        });
        shutdown.request("quitquitquit");
        shutdown.request("SIGTERM");
        assert_eq!(waiter.await.expect("no panic"), "quitquitquit");
        assert_eq!(shutdown.requested().await, "quitquitquit");
    }
}
