//! Addresses of endpoints that have only a hostname, kept for a short while: one question at a
//! time for each name, whoever asks.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Mutex;
use tokio::time::{self, Instant};

/// Names kept; they come of the configuration alone.
const ENTRIES: usize = 4096;
/// How long an answer is used. The system's resolver does not tell its TTL, so it is short
/// enough for names whose addresses move.
const LIFETIME: Duration = Duration::from_secs(5);
/// How long a failure is, so that a name that is not there costs one question a second.
const FAILURE_LIFETIME: Duration = Duration::from_secs(1);

/// What one worker has resolved.
#[derive(Default)]
pub(crate) struct Names {
    known: RefCell<HashMap<Arc<str>, Known>>,
    asking: RefCell<HashMap<Arc<str>, Rc<Mutex<()>>>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// Or why there are none.
    pub(crate) addresses: Result<Arc<[IpAddr]>, Arc<str>>,
    pub(crate) until: Instant,
}

// === impl Names ===

impl Names {
    /// Asks, unless it is known.
    pub(crate) async fn resolve(&self, hostname: &Arc<str>, timeout: Duration) {
        let lock = {
            let mut asking = self.asking.borrow_mut();
            asking.entry(hostname.clone()).or_default().clone()
        };
        let _alone = lock.lock().await;
        if self.known(hostname, Instant::now()).is_none() {
            // The port is only for the function's sake.
            let found = time::timeout(timeout, lookup_host((&**hostname, 0))).await;
            let found = match found {
                Ok(Ok(found)) => Ok(found.map(|one| one.ip().to_canonical()).collect()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer in time".to_owned()),
            };
            self.keep(hostname, found, Instant::now());
        }
        self.asking.borrow_mut().remove(hostname);
    }

    pub(crate) fn known(&self, hostname: &str, now: Instant) -> Option<Known> {
        let known = self.known.borrow();
        known
            .get(hostname)
            .filter(|known| known.until > now)
            .cloned()
    }

    fn keep(&self, hostname: &Arc<str>, found: Result<Vec<IpAddr>, String>, now: Instant) {
        let addresses = found.and_then(|mut addresses| {
            addresses.sort_unstable();
            addresses.dedup();
            match addresses.is_empty() {
                true => Err("it has no address".to_owned()),
                false => Ok(addresses),
            }
        });
        let known = match addresses {
            Ok(addresses) => Known {
                addresses: Ok(addresses.into()),
                until: now + LIFETIME,
            },
            Err(why) => {
                let why = format!("the host {hostname} can't be resolved: {why}");
                tracing::info!("{why}");
                Known {
                    addresses: Err(why.into()),
                    until: now + FAILURE_LIFETIME,
                }
            }
        };
        let mut all = self.known.borrow_mut();
        if all.len() >= ENTRIES {
            all.retain(|_, known| known.until > now);
        }
        all.insert(hostname.clone(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_used_until_its_time_is_over() {
        let (names, now) = (Names::default(), Instant::now());
        let host: Arc<str> = "db.example".into();
        let addresses = |names: &Names, now| names.known("db.example", now).map(|it| it.addresses);
        assert_eq!(addresses(&names, now), None);
        let one: IpAddr = [192, 0, 2, 1].into();
        names.keep(&host, Ok(vec![one, one]), now);
        let expected: Arc<[IpAddr]> = [one].into();
        assert_eq!(addresses(&names, now + LIFETIME / 2), Some(Ok(expected)));
        assert_eq!(addresses(&names, now + LIFETIME), None);
    }

    #[test]
    fn a_failure_is_kept_for_a_moment_and_says_why() {
        let (names, now) = (Names::default(), Instant::now());
        let host: Arc<str> = "none.example".into();
        for found in [Ok(Vec::new()), Err("no such host".to_owned())] {
            names.keep(&host, found, now);
            let known = names.known(&host, now).expect("kept");
            let why = known.addresses.expect_err("none");
            assert!(why.contains("none.example"), "{why}");
            assert_eq!(names.known(&host, now + FAILURE_LIFETIME), None);
        }
    }
}
