//! Frames on their way, by when they are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::fate::Fate;
use super::{Counts, Direction, Faults};

/// What waits longer for its turn on a slow cable is dropped.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Both directions of a cable.
#[derive(Debug)]
pub struct Queue {
    faults: Faults,
    counts: Counts,
    lanes: [Lane; 2],
    /// Entered so far: what is due at the same time leaves in the order it came.
    entered: u64,
    frames: BinaryHeap<Reverse<Waiting>>,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    frames: u64,
    /// When a slow cable has sent what is on it.
    free: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    due: Instant,
    order: u64,
    direction: Direction,
    frame: Vec<u8>,
}

impl Queue {
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            counts: Counts::default(),
            lanes: Default::default(),
            entered: 0,
            frames: BinaryHeap::new(),
        }
    }

    /// What is on its way already arrives as it would have.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Puts a frame on the cable.
    pub fn enter(&mut self, direction: Direction, frame: &[u8], now: Instant) {
        let lane = &mut self.lanes[direction as usize];
        let mut fate = Fate::of(&self.faults, direction, lane.frames, frame.len());
        lane.frames += 1;
        let start = lane.free.map_or(now, |free| free.max(now));
        if start - now > LONGEST_WAIT {
            fate = Fate::Lost;
        }
        self.counts.received += 1;
        fate.count(&mut self.counts);
        let Fate::Carried {
            late,
            copies,
            damage,
        } = fate
        else {
            return;
        };
        let sent = start + self.faults.time_on_cable(frame.len());
        lane.free = Some(sent);
        for _ in 0..copies {
            let mut frame = frame.to_vec();
            damage.apply(&mut frame);
            self.frames.push(Reverse(Waiting {
                due: sent + self.faults.delay + late,
                order: self.entered,
                direction,
                frame,
            }));
            self.entered += 1;
        }
    }

    /// When the next frame leaves.
    pub fn next_due(&self) -> Option<Instant> {
        self.frames.peek().map(|Reverse(waiting)| waiting.due)
    }

    /// The next frame that is due.
    pub fn leave(&mut self, now: Instant) -> Option<(Direction, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(waiting) = self.frames.pop()?;
        self.counts.sent += 1;
        Some((waiting.direction, waiting.frame))
    }
}

impl Faults {
    fn time_on_cable(&self, bytes: usize) -> Duration {
        match self.rate {
            Some(rate) => Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64),
            None => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What leaves until `until`, as each frame's first byte.
    fn left(queue: &mut Queue, until: Instant) -> Vec<u8> {
        std::iter::from_fn(|| queue.leave(until))
            .map(|(_, frame)| frame[0])
            .collect()
    }

    fn numbered(queue: &mut Queue, count: u8, now: Instant) {
        for number in 0..count {
            queue.enter(Direction::There, &[number; 100], now);
        }
    }

    #[test]
    fn frames_leave_in_order_when_the_delay_is_over() {
        let delay = Duration::from_millis(50);
        let mut queue = Queue::new(Faults {
            delay,
            ..Faults::default()
        });
        let now = Instant::now();
        numbered(&mut queue, 100, now);
        assert_eq!(queue.next_due(), Some(now + delay));
        assert!(left(&mut queue, now + delay / 2).is_empty());
        let all: Vec<u8> = (0..100).collect();
        assert_eq!(left(&mut queue, now + delay), all);
        assert_eq!(queue.next_due(), None);
    }

    #[test]
    fn late_frames_are_overtaken() {
        let mut queue = Queue::new(Faults {
            reorder: 0.1,
            late: Duration::from_millis(5),
            ..Faults::default()
        });
        let now = Instant::now();
        numbered(&mut queue, 100, now);
        let left = left(&mut queue, now + Duration::from_millis(5));
        assert_eq!(left.len(), 100);
        assert!(!left.is_sorted());
    }

    #[test]
    fn a_slow_cable_sends_one_frame_after_the_other_and_drops_what_would_wait_too_long() {
        // A hundred bytes take a millisecond.
        let mut queue = Queue::new(Faults {
            rate: Some(800_000),
            ..Faults::default()
        });
        let now = Instant::now();
        numbered(&mut queue, 250, now);
        assert_eq!(queue.next_due(), Some(now + Duration::from_millis(1)));
        let sent = left(&mut queue, now + Duration::from_secs(1)).len();
        assert!((100..103).contains(&sent), "{sent}");
        assert_eq!(queue.counts().lost, 250 - sent as u64);
    }
}
