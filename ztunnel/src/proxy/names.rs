//! Addresses of endpoints that have only a hostname, kept for a short while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, Shared};
use rand::seq::SliceRandom;
use tokio::net::lookup_host;
use tokio::time::{self, Instant};

use super::sockets;

/// Names kept.
const ENTRIES: usize = 4096;
/// How long an answer is used. The system's resolver does not tell its TTL, so it is short
/// enough for names whose addresses move.
const LIFETIME: Duration = Duration::from_secs(5);
/// How long it is not asked again where it had no answer.
const PAUSE: Duration = Duration::from_secs(1);

/// What one worker has resolved, and resolves.
#[derive(Debug, Default)]
pub(crate) struct Names(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Arc<str>, Known>,
    /// A lookup holds a thread until the system's resolver gives up, long after a connection has: a
    /// crowd that asks for one name waits for one of them.
    asked: HashMap<Arc<str>, Shared<LocalBoxFuture<'static, Answer>>>,
}

#[derive(Debug)]
struct Known {
    answer: Answer,
    until: Instant,
}

/// The addresses, or why there are none.
type Answer = Result<Arc<[IpAddr]>, Failure>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    kind: io::ErrorKind,
    text: Arc<str>,
}

// === impl Names ===

impl Names {
    /// The addresses of a host in random order, those of the wanted family first.
    pub(crate) async fn resolve(
        &self,
        hostname: &Arc<str>,
        prefer_ipv4: bool,
        timeout: Duration,
    ) -> io::Result<Vec<IpAddr>> {
        let known = self.known(hostname, Instant::now());
        let answer = match known {
            Some(answer) => answer,
            None => {
                let asked = time::timeout(timeout, self.ask(hostname)).await;
                asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            }
        };
        let found = answer.map_err(|failure| io::Error::new(failure.kind, &*failure.text))?;
        let mut addresses = found.to_vec();
        addresses.shuffle(&mut rand::rng());
        addresses.sort_by_key(|address| address.is_ipv4() != prefer_ipv4);
        Ok(addresses)
    }

    fn known(&self, hostname: &str, now: Instant) -> Option<Answer> {
        let inner = self.0.borrow();
        let found = inner.known.get(hostname)?;
        (found.until > now).then(|| found.answer.clone())
    }

    /// One lookup for all who ask meanwhile.
    fn ask(&self, hostname: &Arc<str>) -> Shared<LocalBoxFuture<'static, Answer>> {
        // The port is only for the function's sake.
        let hostname = hostname.clone();
        self.ask_with(&hostname.clone(), async move {
            let found = lookup_host((&*hostname, 0)).await;
            found.map(Iterator::collect)
        })
    }

    fn ask_with(
        &self,
        hostname: &Arc<str>,
        lookup: impl Future<Output = io::Result<Vec<SocketAddr>>> + 'static,
    ) -> Shared<LocalBoxFuture<'static, Answer>> {
        if let Some(asked) = self.0.borrow().asked.get(hostname) {
            return asked.clone();
        }
        let (inner, name) = (self.0.clone(), hostname.clone());
        // Of its own: whoever asked may give up before, and others would ask a second time.
        let task = tokio::task::spawn_local(async move {
            let answer = answer(lookup.await);
            let mut inner = inner.borrow_mut();
            inner.asked.remove(&name);
            inner.keep(&name, &answer, Instant::now());
            answer
        });
        let asked = task
            .map(|joined| joined.unwrap_or_else(|error| Err(io::Error::other(error).into())))
            .boxed_local()
            .shared();
        let mut inner = self.0.borrow_mut();
        inner.asked.insert(hostname.clone(), asked.clone());
        asked
    }
}

// === impl Inner ===

impl Inner {
    fn keep(&mut self, hostname: &Arc<str>, answer: &Answer, now: Instant) {
        if self.known.len() >= ENTRIES {
            self.known.retain(|_, known| known.until > now);
        }
        if self.known.len() < ENTRIES {
            let has_some = answer.as_ref().is_ok_and(|found| !found.is_empty());
            let entry = Known {
                answer: answer.clone(),
                until: now + if has_some { LIFETIME } else { PAUSE },
            };
            self.known.insert(hostname.clone(), entry);
        }
    }
}

// === impl Failure ===

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self {
            kind: error.kind(),
            text: error.to_string().into(),
        }
    }
}

fn answer(found: io::Result<Vec<SocketAddr>>) -> Answer {
    let mut addresses: Vec<_> = found?
        .into_iter()
        .map(|address| sockets::canonical(address).ip())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses.into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::Notify;
    use tokio::task::LocalSet;

    use super::*;

    fn found(address: &str) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(
            address.parse().expect("an address"),
            0,
        )])
    }

    fn keep(names: &Names, host: &str, found: io::Result<Vec<SocketAddr>>, now: Instant) -> Answer {
        let answer = answer(found);
        names.0.borrow_mut().keep(&host.into(), &answer, now);
        answer
    }

    #[test]
    fn an_answer_is_used_until_its_time_is_over() {
        let (names, now, host) = (Names::default(), Instant::now(), "db.example");
        assert_eq!(names.known(host, now), None);
        let kept = keep(&names, host, found("192.0.2.1"), now);
        let later = now + LIFETIME / 2;
        assert_eq!(names.known(host, later), Some(kept));
        assert_eq!(names.known(host, now + LIFETIME), None);
        let moved = keep(&names, host, found("192.0.2.2"), now + LIFETIME);
        assert_eq!(moved.clone().expect("found")[0].to_string(), "192.0.2.2");
        assert_eq!(names.known(host, now + LIFETIME), Some(moved));
    }

    #[test]
    fn no_answer_is_kept_for_a_moment_and_no_more_than_fit() {
        let (names, now) = (Names::default(), Instant::now());
        let failure = || Err(io::ErrorKind::NotFound.into());
        for (host, nothing) in [
            ("none.example", Ok(Vec::new())),
            ("dead.example", failure()),
        ] {
            let answer = keep(&names, host, nothing, now);
            assert_eq!(names.known(host, now + PAUSE / 2), Some(answer));
            assert_eq!(names.known(host, now + PAUSE), None);
        }
        for index in 0..2 * ENTRIES {
            let _ = keep(&names, &format!("{index}.example"), found("192.0.2.1"), now);
        }
        assert_eq!(names.0.borrow().known.len(), ENTRIES);
        let _ = keep(&names, "late.example", found("192.0.2.1"), now + LIFETIME);
        assert_eq!(names.0.borrow().known.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_waits_for_one_lookup_that_outlasts_its_patience() {
        let (names, host, asked) = (Names::default(), "db.example".into(), Rc::new(Cell::new(0)));
        let answered = Rc::new(Notify::new());
        let lookup = || {
            let (asked, answered) = (asked.clone(), answered.clone());
            async move {
                asked.set(asked.get() + 1);
                answered.notified().await;
                found("192.0.2.1")
            }
        };
        let crowd = async {
            for _ in 0..3 {
                let patience = Duration::from_secs(1);
                let result = time::timeout(patience, names.ask_with(&host, lookup())).await;
                assert!(result.is_err(), "{result:?}");
            }
            let last = names.ask_with(&host, lookup());
            answered.notify_one();
            assert_eq!(last.await, answer(found("192.0.2.1")));
            assert_eq!(asked.get(), 1);
            assert!(names.0.borrow().asked.is_empty());
        };
        LocalSet::new().run_until(crowd).await;
    }
}
