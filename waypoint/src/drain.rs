//! What a worker's connections know of the drain: a flag that costs nothing to look at, and a
//! wake for those that idle.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use runtime::drain::Watch;
use tokio::task::spawn_local;
use tokio::time;

/// Handed to every connection of a worker; the drain waits while one is held.
#[derive(Clone)]
pub(crate) struct Drain(Rc<State>);

struct State {
    phase: Cell<Phase>,
    waiting: RefCell<Waiting>,
    _watch: Watch,
}

#[derive(Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// How far the drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Serving,
    /// Responses announce the end; who idles may still send.
    Draining,
    /// Who idles is closed.
    Closing,
}

/// One connection's place among those that are woken.
pub(crate) struct Member {
    drain: Drain,
    place: Cell<Option<usize>>,
}

// === impl Drain ===

impl Drain {
    /// Follows `watch`; idle connections are closed `grace` after its signal. Must be called on
    /// the worker's `LocalSet`.
    pub(crate) fn follow(watch: Watch, grace: Duration) -> Self {
        let drain = Self(Rc::new(State {
            phase: Cell::new(Phase::Serving),
            waiting: RefCell::default(),
            _watch: watch.clone(),
        }));
        let state = Rc::downgrade(&drain.0);
        let mut watch = watch;
        spawn_local(async move {
            watch.signaled().await;
            // From here on only connections hold the drain.
            drop(watch);
            if let Some(state) = state.upgrade() {
                state.enter(Phase::Draining);
            }
            time::sleep(grace).await;
            if let Some(state) = state.upgrade() {
                state.enter(Phase::Closing);
            }
        });
        drain
    }

    pub(crate) fn phase(&self) -> Phase {
        self.0.phase.get()
    }

    pub(crate) fn member(&self) -> Member {
        Member {
            drain: self.clone(),
            place: Cell::new(None),
        }
    }
}

// === impl State ===

impl State {
    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        let wakers: Vec<Waker> = {
            let waiting = self.waiting.borrow();
            waiting.wakers.iter().flatten().cloned().collect()
        };
        for waker in wakers {
            waker.wake();
        }
    }
}

// === impl Member ===

impl Member {
    pub(crate) fn phase(&self) -> Phase {
        self.drain.phase()
    }

    /// Ready once the drain has come to `phase`. To be polled by one task.
    pub(crate) fn poll_reached(&self, cx: &mut Context<'_>, phase: Phase) -> Poll<()> {
        if self.phase() >= phase {
            return Poll::Ready(());
        }
        let mut waiting = self.drain.0.waiting.borrow_mut();
        let place = match self.place.get() {
            Some(place) => place,
            None => {
                let place = waiting.free.pop().unwrap_or_else(|| {
                    waiting.wakers.push(None);
                    waiting.wakers.len() - 1
                });
                self.place.set(Some(place));
                place
            }
        };
        match &mut waiting.wakers[place] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty @ None => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(place) = self.place.get() {
            let mut waiting = self.drain.0.waiting.borrow_mut();
            waiting.wakers[place] = None;
            waiting.free.push(place);
        }
    }
}
