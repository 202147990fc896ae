//! How near the process is to its memory limit, so that it gives work up in stages before the
//! kernel ends all of it at once.
//!
//! The limit is the control group's; a process without one is never short. What others in the
//! group use is not this process's to give up: while it holds less than half, it gives up nothing.
//!
//! - [`cgroup`]: limit and use, from the kernel's files.

pub mod cgroup;

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time;

use self::cgroup::Group;

/// How often it is looked at while half of it is free.
const CALM: Duration = Duration::from_millis(200);
/// And otherwise: a fast peer fills ten mebibytes in between.
const BUSY: Duration = Duration::from_millis(50);

/// Of the whole process.
static PRESSURE: LazyLock<watch::Sender<Pressure>> =
    LazyLock::new(|| watch::channel(Pressure::None).0);
/// The same, for those who ask all the time.
static SHEDDING: AtomicBool = AtomicBool::new(false);

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

/// Whether it must give up what holds the most. Costs next to nothing.
pub fn is_shedding() -> bool {
    SHEDDING.load(Ordering::Relaxed)
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

/// Returns when it is less than that.
pub async fn falls_below(pressure: Pressure) {
    let mut changes = changes();
    let _ = changes.wait_for(|now| *now < pressure).await;
}

/// Watches over the limit; returns at once where there is none.
pub async fn watch_over() {
    let Some(group) = Group::own() else {
        return;
    };
    tracing::info!(limit = group.limit(), "memory limit");
    let mut pause = CALM;
    loop {
        time::sleep(pause).await;
        let Some(usage) = group.usage() else {
            continue;
        };
        pause = if usage.group > usage.limit / 2 {
            BUSY
        } else {
            CALM
        };
        let now = Pressure::of(usage);
        SHEDDING.store(now >= Pressure::Shed, Ordering::Relaxed);
        if now >= Pressure::Release {
            crate::allocator::give_back();
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
}
