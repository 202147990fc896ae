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
//! - `room`: what may be taken in, and who waits for more.
//! - [`shedding`]: what is given up first.

pub mod cgroup;
mod room;
pub mod shedding;

use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{self, Instant};

use self::cgroup::Group;
use self::room::Room;
use self::shedding::WAITING;

/// How often it is looked at while half of it is free. Free pages are given back no more often.
const CALM: Duration = Duration::from_millis(200);
/// While a quarter of it is.
const BUSY: Duration = Duration::from_millis(50);
/// And otherwise.
const CLOSE: Duration = Duration::from_millis(5);
/// Bytes: of no more than these, none are allowed until the next look once they are used up.
const LITTLE: i64 = 64 << 10;
/// A part of the limit: what may be taken in until the next close look while others wait to be given
/// up. Of the twentieth that is left then, a fifth within a second: what closes and what answers a
/// probe is still read, and what is given up meanwhile is more.
const TRICKLE: u64 = 20_000;

/// Of the whole process.
static PRESSURE: LazyLock<watch::Sender<Pressure>> =
    LazyLock::new(|| watch::channel(Pressure::None).0);
static ROOM: Room = Room::new();

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
    ROOM.take(bytes);
}

/// Ready while more may be taken in; else the task is woken when that may have changed.
pub fn poll_room(cx: &Context<'_>) -> Poll<()> {
    ROOM.poll(cx)
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
    let (mut pause, mut allowed) = (CALM, i64::MAX);
    let mut given_back = Instant::now();
    loop {
        tokio::select! {
            () = time::sleep(pause) => {}
            // Of little there is no more until the next look, however soon it is used up.
            () = ROOM.used_up(), if allowed > LITTLE => {}
        }
        let Some(usage) = group.usage() else {
            // Nobody waits for what can't be known.
            ROOM.set(i64::MAX);
            continue;
        };
        pause = match usage.group {
            used if used > usage.limit / 4 * 3 => CLOSE,
            used if used > usage.limit / 2 => BUSY,
            _ => CALM,
        };
        let now = Pressure::of(usage);
        allowed = match now {
            Pressure::None | Pressure::Release | Pressure::Refuse => usage.allowance(),
            Pressure::Shed if WAITING.is_empty() => LITTLE.min(usage.allowance()),
            Pressure::Shed => usage.trickle(),
        };
        match now {
            Pressure::Shed => ROOM.trickle(allowed),
            Pressure::None | Pressure::Release | Pressure::Refuse => ROOM.set(allowed),
        }
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

    /// The same where what is given up must be more.
    fn trickle(self) -> i64 {
        i64::try_from(self.limit / TRICKLE)
            .unwrap_or(i64::MAX)
            .max(1)
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
