//! What may be taken in until the next look, and who waits for more.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// Who waits is woken so many at a time where there is not enough for all.
const FEW: usize = 16;

/// Of a whole process: memory is short for all of its threads.
#[derive(Debug)]
pub(super) struct Room {
    /// Bytes; less than none where more was taken at a time than was left.
    left: AtomicI64,
    used_up: Notify,
    waiting: Mutex<Queue>,
}

/// Tasks that wait, each once, in the order in which they came.
#[derive(Debug)]
struct Queue {
    wakers: VecDeque<Waker>,
    /// What tells their wakers apart.
    known: BTreeSet<usize>,
}

// === impl Room ===

impl Room {
    pub(super) const fn new() -> Self {
        Self {
            left: AtomicI64::new(i64::MAX),
            used_up: Notify::const_new(),
            waiting: Mutex::new(Queue::new()),
        }
    }

    pub(super) fn take(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ready while something is left; else the task is woken when that may have changed.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.is_left() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        // It may have been set anew just before.
        if self.is_left() {
            return Poll::Ready(());
        }
        waiting.push(cx.waker());
        self.used_up.notify_one();
        Poll::Pending
    }

    /// Returns when somebody waits.
    pub(super) async fn used_up(&self) {
        self.used_up.notified().await;
    }

    /// So many bytes may be taken in from here on.
    pub(super) fn set(&self, bytes: i64) {
        self.left.store(bytes, Ordering::Relaxed);
        let all = mem::replace(&mut *self.waiting(), Queue::new());
        all.wakers.into_iter().for_each(Waker::wake);
    }

    /// So many more may be, at most, once what was taken too much is made up for. That is not enough
    /// for all who wait, and each has its turn.
    pub(super) fn trickle(&self, bytes: i64) {
        let added = |left: i64| Some(left.min(0).saturating_add(bytes));
        let _ = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
        if self.is_left() {
            let few = self.waiting().first(FEW);
            few.into_iter().for_each(Waker::wake);
        }
    }

    fn is_left(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0
    }

    fn waiting(&self) -> MutexGuard<'_, Queue> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Queue ===

impl Queue {
    const fn new() -> Self {
        Self {
            wakers: VecDeque::new(),
            known: BTreeSet::new(),
        }
    }

    fn push(&mut self, waker: &Waker) {
        if self.known.insert(waker.data().addr()) {
            self.wakers.push_back(waker.clone());
        }
    }

    fn first(&mut self, count: usize) -> Vec<Waker> {
        let first: Vec<_> = self.wakers.drain(..count.min(self.wakers.len())).collect();
        for waker in &first {
            self.known.remove(&waker.data().addr());
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use futures::task::{ArcWake, waker};
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl ArcWake for Task {
        fn wake_by_ref(task: &Arc<Self>) {
            task.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn poll(room: &Room, task: &Arc<Task>) -> bool {
        let waker = waker(Arc::clone(task));
        room.poll(&Context::from_waker(&waker)).is_ready()
    }

    fn woken(tasks: &[Arc<Task>]) -> Vec<usize> {
        let each = tasks.iter().map(|task| task.0.load(Ordering::Relaxed));
        each.collect()
    }

    #[test]
    fn who_finds_nothing_left_is_woken_once_when_there_is_more() {
        let room = Room::new();
        let task = Arc::<Task>::default();
        assert!(poll(&room, &task));
        room.set(100);
        room.take(100);
        for _ in 0..3 {
            assert!(!poll(&room, &task));
        }
        let alone = std::slice::from_ref(&task);
        assert_eq!(woken(alone), [0]);
        room.set(1);
        assert_eq!(woken(alone), [1]);
        assert!(poll(&room, &task));
        assert!(room.waiting().wakers.is_empty());
    }

    #[test]
    fn where_there_is_little_each_has_its_turn_and_too_much_is_made_up_for() {
        let room = Room::new();
        room.set(0);
        let tasks: Vec<Arc<Task>> = (0..FEW + 4).map(|_| Arc::default()).collect();
        assert!(tasks.iter().all(|task| !poll(&room, task)));
        room.trickle(10);
        let turns = |first, others| [vec![first; FEW], vec![others; 4]].concat();
        assert_eq!(woken(&tasks), turns(1, 0));
        // The first reads far more than there is: for five turns nobody reads.
        room.take(60);
        assert!(tasks[..FEW].iter().all(|task| !poll(&room, task)));
        for _ in 0..5 {
            room.trickle(10);
            assert_eq!(woken(&tasks), turns(1, 0));
        }
        room.trickle(10);
        let next = [vec![2; FEW - 4], vec![1; 8]].concat();
        assert_eq!(woken(&tasks), next);
        // None is saved up.
        for _ in 0..3 {
            room.trickle(10);
        }
        room.take(10);
        assert!(!poll(&room, &tasks[0]));
    }
}
