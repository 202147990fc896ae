//! Responses and connections that outlive a change of policy: asked about again, and cut where it
//! now says no.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

/// Those that are open on one worker.
#[derive(Default)]
pub(crate) struct Streams {
    live: RefCell<Vec<Weak<Watched>>>,
}

/// One that is open.
pub(crate) struct Watched {
    /// Whether the policies of now would let it in.
    is_allowed: Box<dyn Fn() -> bool>,
    denied: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

// === impl Streams ===

impl Streams {
    pub(crate) fn watch(&self, is_allowed: impl Fn() -> bool + 'static) -> Rc<Watched> {
        let watched = Rc::new(Watched {
            is_allowed: Box::new(is_allowed),
            denied: Cell::new(false),
            waker: RefCell::default(),
        });
        let mut live = self.live.borrow_mut();
        // The list is swept when it would grow, so that it is at most twice what is open.
        if live.len() == live.capacity() {
            live.retain(|one| one.strong_count() > 0);
        }
        live.push(Rc::downgrade(&watched));
        watched
    }

    /// Policies may have changed.
    pub(crate) fn check(&self) {
        let live: Vec<Rc<Watched>> = {
            let mut live = self.live.borrow_mut();
            live.retain(|one| one.strong_count() > 0);
            live.iter().filter_map(Weak::upgrade).collect()
        };
        for watched in live {
            watched.check();
        }
    }
}

// === impl Watched ===

impl Watched {
    pub(crate) fn is_denied(&self, cx: &mut Context<'_>) -> bool {
        if self.denied.get() {
            return true;
        }
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|known| known.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        false
    }

    pub(crate) fn has_denied(&self) -> bool {
        self.denied.get()
    }

    /// Asks again.
    pub(crate) fn check(&self) {
        if !self.denied.get() && !(self.is_allowed)() {
            metrics::counter!("waypoint_streams_denied_total").increment(1);
            self.denied.set(true);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }
}
