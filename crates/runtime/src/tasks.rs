//! Tasks of threads that own their tasks, counted: tokio counts a runtime's, not a `LocalSet`'s.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use tokio::task::JoinHandle;

/// Of the whole process, as the metric that shows it.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts a task for as long as it lives, however it ends.
struct Alive;

/// [`tokio::task::spawn_local`], counted.
pub fn spawn_local<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let alive = Alive::new();
    // Not an async block, which would keep the future twice.
    tokio::task::spawn_local(task.inspect(move |_| drop(alive)))
}

/// Tasks alive now.
pub fn alive() -> usize {
    ALIVE.load(Ordering::Relaxed)
}

// === impl Alive ===

impl Alive {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn tasks_count_until_they_end_or_are_dropped() {
        let set = LocalSet::new();
        set.run_until(async {
            let ended = spawn_local(async { 7 });
            let endless = spawn_local(std::future::pending::<()>());
            assert_eq!(alive(), 2);
            assert_eq!(ended.await.expect("ends"), 7);
            assert_eq!(alive(), 1);
            endless.abort();
            assert!(endless.await.is_err());
            assert_eq!(alive(), 0);
            spawn_local(std::future::pending::<()>());
        })
        .await;
        drop(set);
        assert_eq!(alive(), 0);
    }
}
