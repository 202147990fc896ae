//! Which connections are given up when memory is short: those that hold the most, first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time;

use super::Pressure;

/// Within which everything that waits has been given up, where all of it is alike.
const LONGEST_MOMENT: Duration = Duration::from_secs(1);
/// The same where it only keeps others out: then what has moved within half of it stays, for a line
/// that is slow is no fault of whoever uses it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Of the whole process: memory is short for all of its threads.
pub static WAITING: Waiting = Waiting::new();

/// Connections whose bytes nobody takes, while memory is short.
#[derive(Debug)]
pub struct Waiting {
    /// By how much they hold.
    places: Mutex<BTreeSet<Key>>,
    next: AtomicU64,
}

/// Bytes held, and a number to tell those apart that hold the same.
type Key = (usize, u64);

/// One of them, for as long as it waits.
struct Place<'a> {
    waiting: &'a Waiting,
    key: Key,
}

// === impl Waiting ===

impl Waiting {
    const fn new() -> Self {
        Self {
            places: Mutex::new(BTreeSet::new()),
            next: AtomicU64::new(0),
        }
    }

    /// Returns when the process must give a connection up that holds so many bytes, for want of
    /// memory or to have room for others again. Not all are given up at once: each waits a moment of
    /// its own, and whether that has been enough; and for as long as others hold more.
    ///
    /// `moved` grows with every byte that was taken after all.
    pub async fn shed(&self, mut held: impl FnMut() -> usize, moved: impl Fn() -> u64) {
        loop {
            super::reaches(Pressure::Refuse).await;
            let place = self.place(held());
            let before = moved();
            let given_up = match super::pressure() {
                Pressure::Shed => {
                    time::sleep(LONGEST_MOMENT.mul_f64(rand::random())).await;
                    super::pressure() >= Pressure::Refuse
                }
                Pressure::None | Pressure::Release | Pressure::Refuse => {
                    let wait = LONGEST_WAIT.mul_f64(f64::midpoint(1.0, rand::random()));
                    let short = super::reaches(Pressure::Shed);
                    // Shorter still, it waits for less.
                    time::timeout(wait, short).await.is_err()
                        && super::pressure() >= Pressure::Refuse
                        && moved() == before
                }
            };
            if given_up && place.is_among_the_largest() {
                return;
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn place(&self, held: usize) -> Place<'_> {
        let key = (held, self.next.fetch_add(1, Ordering::Relaxed));
        self.lock().insert(key);
        Place { waiting: self, key }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Place<'_> {
    /// Nobody holds more than a third more.
    fn is_among_the_largest(&self) -> bool {
        let (held, _) = self.key;
        let largest = self.waiting.lock().last().copied();
        largest.is_none_or(|(most, _)| most / 4 * 3 <= held)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_hold_the_most_are_first_and_the_others_when_they_are_gone() {
        let waiting = Waiting::new();
        let sizes = [4 << 20, 3 << 20, 1 << 20, 900 << 10, 0];
        let mut places: Vec<_> = sizes.iter().map(|held| waiting.place(*held)).collect();
        let mut order = Vec::new();
        while !places.is_empty() {
            let (first, rest) = places
                .into_iter()
                .partition::<Vec<_>, _>(Place::is_among_the_largest);
            order.push(first.iter().map(|place| place.key.0).collect::<Vec<_>>());
            drop(first);
            places = rest;
        }
        assert_eq!(
            order,
            [vec![4 << 20, 3 << 20], vec![1 << 20, 900 << 10], vec![0]]
        );
        assert!(waiting.lock().is_empty());
    }
}
