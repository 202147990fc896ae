//! How near the process is to its memory limit, so that it gives work up in stages before the
//! kernel ends all of it at once.
//!
//! The limit is the control group's; a process without one is never short. What others in the
//! group use is not this process's to give up: while it holds less than half, it gives up nothing.
//!
//! What a fast peer sends between two looks could be more than is left. So whoever takes in what
//! may stay says how much: see [`take`].
//!
//! - [`cgroup`]: limit and use, from the kernel's files.

pub mod cgroup;

use std::mem;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use self::cgroup::Group;

/// How often it is looked at while half of it is free. Free pages are given back no more often.
const CALM: Duration = Duration::from_millis(200);
/// While a quarter of it is.
const BUSY: Duration = Duration::from_millis(50);
/// And otherwise.
const CLOSE: Duration = Duration::from_millis(5);

/// Of the whole process.
static PRESSURE: LazyLock<watch::Sender<Pressure>> =
    LazyLock::new(|| watch::channel(Pressure::None).0);
/// Bytes that may be taken in before somebody has to look again.
static ALLOWANCE: AtomicI64 = AtomicI64::new(i64::MAX);
/// Somebody has used it up.
static USED_UP: Notify = Notify::const_new();
/// Who waits for it to be set anew.
static WAITING: Mutex<Vec<Waker>> = Mutex::new(Vec::new());

/// What the process must do about its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    None,
    /// From 85 % on: give back what is only kept.
    Release,
    /// From 92 % on: take on nothing new.
    Refuse,
    /// From 95 % on: give up what holds the most.
    Shed,
}

/// What a process has and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub limit: u64,
    /// By the whole group, without what the kernel could drop.
    pub group: u64,
    /// By this process.
    pub own: u64,
}

/// What it must do now.
pub fn pressure() -> Pressure {
    *PRESSURE.borrow()
}

/// Says that so many bytes were taken in that may stay. Costs next to nothing.
pub fn take(bytes: usize) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    ALLOWANCE.fetch_sub(bytes, Ordering::Relaxed);
}

fn has_room() -> bool {
    ALLOWANCE.load(Ordering::Relaxed) > 0
}

/// Ready while more may be taken in; else the task is woken when that may have changed.
pub fn poll_room(cx: &Context<'_>) -> Poll<()> {
    if has_room() {
        return Poll::Ready(());
    }
    let mut waiting = waiting();
    // It may have been set anew just before.
    if has_room() {
        return Poll::Ready(());
    }
    waiting.push(cx.waker().clone());
    USED_UP.notify_one();
    Poll::Pending
}

/// Sets how much may be taken in until the next look.
fn allow(bytes: i64) {
    ALLOWANCE.store(bytes, Ordering::Relaxed);
    let waiting = mem::take(&mut *waiting());
    waiting.into_iter().for_each(Waker::wake);
}

fn waiting() -> MutexGuard<'static, Vec<Waker>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of every change.
pub fn changes() -> watch::Receiver<Pressure> {
    PRESSURE.subscribe()
}

/// Returns when it is at least so.
pub async fn reaches(pressure: Pressure) {
    let mut changes = changes();
    // The sender is never dropped.
    let _ = changes.wait_for(|now| *now >= pressure).await;
}

/// Watches over the limit; returns at once where there is none.
pub async fn watch_over() {
    let Some(group) = Group::own() else {
        return;
    };
    tracing::info!(limit = group.limit(), "memory limit");
    let (mut pause, mut room) = (CALM, i64::MAX);
    let mut given_back = Instant::now();
    loop {
        tokio::select! {
            () = time::sleep(pause) => {}
            // Without room, nothing that is taken in changes anything.
            () = USED_UP.notified(), if room > 0 => {}
        }
        let Some(usage) = group.usage() else {
            // Nobody waits for what can't be known.
            allow(i64::MAX);
            continue;
        };
        pause = match usage.group {
            used if used > usage.limit / 4 * 3 => CLOSE,
            used if used > usage.limit / 2 => BUSY,
            _ => CALM,
        };
        let now = Pressure::of(usage);
        room = match now {
            Pressure::None | Pressure::Release | Pressure::Refuse => usage.allowance(),
            Pressure::Shed => 0,
        };
        allow(room);
        if now >= Pressure::Release && given_back.elapsed() >= CALM {
            crate::allocator::give_back();
            given_back = Instant::now();
        }
        let before = pressure();
        if now == before {
            continue;
        }
        PRESSURE.send_replace(now);
        if now > before {
            tracing::warn!(?now, ?usage, "memory is short");
        }
    }
}

// === impl Usage ===

impl Usage {
    /// Bytes that may be taken in until the next look: they take more memory than they are many.
    fn allowance(self) -> i64 {
        let left = self.limit.saturating_sub(self.group);
        i64::try_from(left / 4).unwrap_or(i64::MAX).max(1)
    }
}

// === impl Pressure ===

impl Pressure {
    pub fn of(usage: Usage) -> Self {
        let Usage { limit, group, own } = usage;
        if own < group / 2 {
            return Self::None;
        }
        let at = |percent: u64| group >= limit / 100 * percent;
        match () {
            () if at(95) => Self::Shed,
            () if at(92) => Self::Refuse,
            () if at(85) => Self::Release,
            () => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_comes_in_stages_and_only_from_what_is_the_processs_own() {
        for (group, own, pressure) in [
            (50, 50, Pressure::None),
            (84, 84, Pressure::None),
            (85, 80, Pressure::Release),
            (92, 80, Pressure::Refuse),
            (95, 80, Pressure::Shed),
            (120, 80, Pressure::Shed),
            (99, 30, Pressure::None),
        ] {
            let usage = Usage {
                limit: 100,
                group,
                own,
            };
            assert_eq!(Pressure::of(usage), pressure, "{usage:?}");
        }
    }

    #[test]
    fn a_part_of_what_is_left_is_taken_in_at_a_time() {
        for (group, allowance) in [(60, 10), (96, 1), (100, 1), (120, 1)] {
            let usage = Usage {
                limit: 100,
                group,
                own: group,
            };
            assert_eq!(usage.allowance(), allowance, "{usage:?}");
        }
    }
}
