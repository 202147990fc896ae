//! When a client's exchanges are sent: as many as go (closed loop), or so many a second (open loop).
//!
//! In the open loop an exchange's latency counts from when it was due, not from when a late client
//! got to send it, so that a stall is seen by every exchange it delayed.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// How long a load runs before it is measured.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);

/// When a run begins, is measured from, and ends.
#[derive(Clone, Copy)]
pub(super) struct Window {
    begin: Instant,
    pub(super) start: Instant,
    pub(super) end: Instant,
}

/// One client's times among all.
pub(super) struct Pace {
    pub(super) window: Window,
    schedule: Option<Schedule>,
}

struct Schedule {
    next: Instant,
    between: Duration,
    timer: AsyncFd<Timer>,
}

/// The runtime's own timers have milliseconds; a millisecond is ten exchanges.
struct Timer(TimerFd);

// === impl Window ===

impl Window {
    pub(super) fn of(duration: Duration) -> Self {
        let begin = Instant::now();
        let start = begin + WARM_UP;
        Self {
            begin,
            start,
            end: start + duration,
        }
    }
}

// === impl Pace ===

impl Pace {
    /// For client `index` of `clients`, which send `rate` a second together, evenly spread.
    pub(super) fn new(
        window: Window,
        rate: Option<f64>,
        index: usize,
        clients: usize,
    ) -> Result<Self> {
        let schedule = match rate {
            None => None,
            Some(rate) => {
                let between = Duration::from_secs_f64(clients as f64 / rate);
                Some(Schedule {
                    next: window.begin + between.mul_f64(index as f64 / clients as f64),
                    between,
                    timer: Timer::registered()?,
                })
            }
        };
        Ok(Self { window, schedule })
    }

    /// Waits for the next exchange's time; none when the run is over.
    pub(super) async fn next(&mut self) -> Result<Option<Instant>> {
        let due = match &mut self.schedule {
            None => Instant::now(),
            Some(schedule) => schedule.next().await?,
        };
        Ok((due < self.window.end).then_some(due))
    }
}

// === impl Schedule ===

impl Schedule {
    async fn next(&mut self) -> Result<Instant> {
        let due = self.next;
        self.next += self.between;
        let early = due.saturating_duration_since(Instant::now());
        if !early.is_zero() {
            let once = Expiration::OneShot(TimeSpec::from_duration(early));
            self.timer
                .get_ref()
                .0
                .set(once, TimerSetTimeFlags::empty())?;
            let mut fired = self.timer.readable().await?;
            self.timer.get_ref().0.wait()?;
            fired.clear_ready();
        }
        Ok(due)
    }
}

// === impl Timer ===

impl Timer {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe, for descriptors that may close while registered; \
                  this one is owned"
    )]
    fn registered() -> Result<AsyncFd<Self>> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        Ok(AsyncFd::new(Self(timer))?)
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
