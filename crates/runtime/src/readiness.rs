//! Readiness as values: every startup task holds a [`Task`]; the process is ready when none is open.
//!
//! Served at `/healthz/ready`: 200 `ready`, else 500 with the open tasks, one per line.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

/// Knows the open tasks. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    open: Arc<Mutex<BTreeMap<String, usize>>>,
    done: Arc<watch::Sender<()>>,
}

/// Holds readiness back until dropped.
#[must_use = "dropping the task declares it done"]
pub struct Task {
    readiness: Readiness,
    name: String,
}

// === impl Readiness ===

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens a task. Several of one name count as one until the last is dropped.
    pub fn task(&self, name: impl Into<String>) -> Task {
        let name = name.into();
        *self.lock().entry(name.clone()).or_default() += 1;
        Task {
            readiness: self.clone(),
            name,
        }
    }

    /// The open tasks by name; none means ready.
    pub fn open(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Waits until nothing is open but what is named here.
    pub async fn only(&self, names: &[&str]) {
        let mut done = self.done.subscribe();
        while self.open().iter().any(|open| !names.contains(&&**open)) {
            // The sender is `self`'s, so that this waits for a task's end.
            let _ = done.changed().await;
        }
    }

    /// `/healthz/ready`.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/healthz/ready", get(answer))
            .with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let open = readiness.open();
    if open.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let text = format!("not ready, pending:\n- {}\n", open.join("\n- "));
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

// === impl Task ===

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.name).finish()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let mut open = self.readiness.lock();
        if let Some(count) = open.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.name);
                tracing::debug!(task = self.name, pending = open.len(), "task done");
                self.readiness.done.send_replace(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_no_open_task() {
        let readiness = Readiness::new();
        assert_eq!(answer(State(readiness.clone())).await.0, StatusCode::OK);

        let state = readiness.task("state manager");
        let first = readiness.task("proxy");
        let second = readiness.task("proxy");
        drop(first);
        let (status, body) = answer(State(readiness.clone())).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body, "not ready, pending:\n- proxy\n- state manager\n");

        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.only(&["state manager"]).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        waiting.await.expect("no panic");

        drop(state);
        assert_eq!(
            answer(State(readiness)).await,
            (StatusCode::OK, "ready\n".to_owned())
        );
    }
}
