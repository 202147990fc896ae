//! Addresses of endpoints that have only a hostname: asked for when first needed, and from then
//! on kept fresh in the background for as long as somebody needs them.
//!
//! - `schedule`: what is served, and when to ask again; no I/O.
//! - `question`: asking the system's nameservers.

mod question;

mod schedule;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{self, Instant};

use self::question::Nameservers;
pub(crate) use self::schedule::Served;
use self::schedule::{Answer, Entry, Next};

type Ask = Box<dyn Fn(Arc<str>) -> LocalBoxFuture<'static, Answer>>;

/// The names of one worker. Each has a task of its own that asks.
pub(crate) struct Names(Rc<Shared>);

struct Shared {
    known: RefCell<HashMap<Arc<str>, Rc<Name>>>,
    ask: Ask,
}

/// One name.
struct Name {
    hostname: Arc<str>,
    entry: RefCell<Entry>,
    /// Grows when what is served is another.
    revision: Cell<u64>,
    answered: Notify,
}

/// What a name came to when it was looked at.
pub(crate) struct Seen {
    name: Rc<Name>,
    revision: u64,
    pub(crate) served: Served,
}

// === impl Names ===

impl Default for Names {
    fn default() -> Self {
        let nameservers = Rc::new(Nameservers::default());
        Self::asking(Box::new(move |hostname| {
            let nameservers = nameservers.clone();
            Box::pin(async move { nameservers.ask(&hostname).await })
        }))
    }
}

impl Names {
    fn asking(ask: Ask) -> Self {
        Self(Rc::new(Shared {
            known: RefCell::default(),
            ask,
        }))
    }

    /// Every name has these addresses, and it takes so long to hear of them.
    #[cfg(test)]
    pub(crate) fn answering(takes: Duration, addresses: Vec<std::net::IpAddr>) -> Self {
        Self::asking(Box::new(move |_| {
            let addresses = addresses.clone();
            Box::pin(async move {
                time::sleep(takes).await;
                Answer::Addresses(addresses, Duration::from_secs(60))
            })
        }))
    }

    /// What a name comes to now; none as long as that has to be asked for.
    pub(crate) fn look_at(&self, hostname: &str) -> Option<Seen> {
        let name = self.0.known.borrow().get(hostname)?.clone();
        let served = name.entry.borrow_mut().served(Instant::now())?;
        Some(Seen {
            revision: name.revision.get(),
            served,
            name,
        })
    }

    /// Waits until there is something to serve, or for `timeout`. Must be called on the worker's
    /// `LocalSet`.
    pub(crate) async fn resolve(&self, hostname: &Arc<str>, timeout: Duration) {
        let name = self.0.name(hostname);
        let served = async {
            loop {
                // Before the look, so that no answer is missed.
                let answered = name.answered.notified();
                if name.entry.borrow_mut().served(Instant::now()).is_some() {
                    return;
                }
                answered.await;
            }
        };
        // Where there is nothing in time, whoever asks finds nothing.
        let _ = time::timeout(timeout, served).await;
    }
}

// === impl Shared ===

impl Shared {
    fn name(self: &Rc<Self>, hostname: &Arc<str>) -> Rc<Name> {
        let mut known = self.known.borrow_mut();
        if let Some(name) = known.get(hostname) {
            return name.clone();
        }
        let name = Rc::new(Name {
            hostname: hostname.clone(),
            entry: RefCell::new(Entry::new(Instant::now())),
            revision: Cell::new(0),
            answered: Notify::new(),
        });
        known.insert(hostname.clone(), name.clone());
        spawn_local(keep(Rc::downgrade(self), name.clone()));
        name
    }
}

/// Asks for a name until nobody needs it any more.
async fn keep(shared: Weak<Shared>, name: Rc<Name>) {
    loop {
        let next = name.entry.borrow().next(Instant::now());
        match next {
            Next::Wait(until) => {
                time::sleep_until(until).await;
                continue;
            }
            Next::Ask => {}
            Next::Forget => {
                if let Some(shared) = shared.upgrade() {
                    shared.known.borrow_mut().remove(&name.hostname);
                }
                return name.end();
            }
        }
        let Some(answer) = shared
            .upgrade()
            .map(|shared| (shared.ask)(name.hostname.clone()))
        else {
            return;
        };
        let answer = answer.await;
        name.take(answer);
    }
}

// === impl Name ===

impl Name {
    fn take(&self, answer: Answer) {
        let mut entry = self.entry.borrow_mut();
        if entry.answered(&self.hostname, answer, Instant::now()) {
            self.revision.set(self.revision.get() + 1);
        }
        self.answered.notify_waiters();
    }

    /// Who still looks at it has to look anew.
    fn end(&self) {
        *self.entry.borrow_mut() = Entry::new(Instant::now());
        self.revision.set(self.revision.get() + 1);
        self.answered.notify_waiters();
    }
}

// === impl Seen ===

impl Seen {
    /// Whether the name still comes to the same. Whoever asks needs it.
    pub(crate) fn is_current(&self, now: Instant) -> bool {
        let mut entry = self.name.entry.borrow_mut();
        entry.touch(now) && self.name.revision.get() == self.revision
    }
}

#[cfg(test)]
mod tests;
