//! Probes a silent connection; one that carries data is its own proof of life.

use std::future::{self, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use h2::{Ping, PingPong};
use runtime::memory::{self, Pressure};
use tokio::sync::Notify;
use tokio::time;

use crate::tls::{Activity, Signs};

/// How many times signs of life are looked for while a probe may be unanswered.
const LOOKS: u32 = 4;

/// Has a connection probed at once, whoever doubts it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Rc<Notify>);

/// A probe that has no answer yet.
///
/// It waits behind what was written before it, for minutes where the line is slow. As long as that
/// arrives, its time has not begun. What is written after it proves nothing: the kernel takes and
/// acknowledges that for a process that stands still as well.
#[derive(Debug)]
struct Probe {
    latest: Signs,
    /// Once as many bytes are acknowledged, the probe is among them. Not known before the first
    /// look, when it has at least been written to HTTP/2's buffers.
    end: u64,
    /// Looks in a row that have found no sign of life.
    quiet: u32,
}

/// Returns when the peer has answered nothing for too long.
pub(crate) async fn peer_lost(
    mut pings: PingPong,
    activity: Activity,
    doubt: Doubt,
    interval: Duration,
    timeout: Duration,
) {
    loop {
        let before = activity.reads();
        let doubted = time::timeout(interval, doubt.0.notified()).await.is_ok();
        if !doubted && activity.reads() != before {
            continue;
        }
        let mut probe = Probe::new(activity.signs());
        if pings.send_ping(Ping::opaque()).is_err() {
            // The connection is ending by itself, and says why to whoever drives it.
            return future::pending().await;
        }
        let mut answer = pin!(poll_fn(|cx| pings.poll_pong(cx)));
        loop {
            match time::timeout(timeout / LOOKS, &mut answer).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return future::pending().await,
                // Where memory is too short to read, its answer may have come.
                Err(_) if memory::pressure() == Pressure::Shed => {}
                Err(_) if probe.is_lost(activity.signs()) => return,
                Err(_) => {}
            }
        }
    }
}

// === impl Doubt ===

impl Doubt {
    pub(crate) fn raise(&self) {
        self.0.notify_one();
    }
}

// === impl Probe ===

impl Probe {
    /// One that is about to be written.
    fn new(now: Signs) -> Self {
        Self {
            latest: now,
            end: u64::MAX,
            quiet: 0,
        }
    }

    /// Looks at the signs of life, at regular times.
    fn is_lost(&mut self, now: Signs) -> bool {
        self.end = self.end.min(now.written + now.unwritten_at_most);
        let before = self.latest.acknowledged;
        let arrives = now.acknowledged > before && before < self.end;
        if arrives || now.reads != self.latest.reads {
            self.quiet = 0;
        } else {
            self.quiet += 1;
        }
        self.latest = now;
        self.quiet == LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_REST: Signs = Signs {
        reads: 7,
        written: 1000,
        unwritten_at_most: 0,
        acknowledged: 1000,
    };

    /// After how many looks the probe is lost, the signs being what each look finds.
    fn looks(start: Signs, signs: impl Fn(u32) -> Signs) -> Option<u32> {
        let mut probe = Probe::new(start);
        (1..100).find(|look| probe.is_lost(signs(*look)))
    }

    #[test]
    fn without_a_sign_of_life_its_time_is_as_it_was_set() {
        assert_eq!(looks(AT_REST, |_| AT_REST), Some(LOOKS));
    }

    #[test]
    fn what_the_peer_sends_is_a_sign_of_life() {
        let heard = |look| Signs {
            reads: 7 + u64::from(look),
            ..AT_REST
        };
        assert_eq!(looks(AT_REST, heard), None);
        let heard_once = |look| heard(u32::min(look, 3));
        assert_eq!(looks(AT_REST, heard_once), Some(3 + LOOKS));
    }

    #[test]
    fn its_time_begins_when_what_was_written_before_it_has_arrived() {
        let queued = Signs {
            written: 20_000,
            unwritten_at_most: 512,
            ..AT_REST
        };
        let draining = |look| Signs {
            unwritten_at_most: 0,
            acknowledged: u64::min(20_017, 1000 + 1000 * u64::from(look)),
            written: 20_017,
            ..queued
        };
        assert_eq!(looks(queued, draining), Some(20 + LOOKS));
    }

    #[test]
    fn a_queue_that_does_not_move_is_no_sign() {
        let stuck = Signs {
            written: 20_000,
            unwritten_at_most: 512,
            ..AT_REST
        };
        assert_eq!(looks(stuck, |_| stuck), Some(LOOKS));
    }

    /// A kernel acknowledges for a process that stands still until its buffer is full.
    #[test]
    fn what_is_written_after_it_is_no_sign() {
        for unwritten_at_most in [0, 512] {
            let trickle = |look| Signs {
                written: 1000 + 100 * u64::from(look),
                acknowledged: 950 + 100 * u64::from(look),
                unwritten_at_most,
                ..AT_REST
            };
            let lost = looks(AT_REST, trickle).expect("lost");
            let behind = 3 + unwritten_at_most as u32 / 100;
            assert!(lost <= LOOKS + behind, "{lost}");
        }
    }
}
