//! Addresses of endpoints that have only a hostname, kept for a short while.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::net::lookup_host;
use tokio::time::{self, Instant};

use super::sockets;

/// Names kept.
const ENTRIES: usize = 4096;
/// How long an answer is used. The system's resolver does not tell its TTL, so it is short
/// enough for names whose addresses move.
const LIFETIME: Duration = Duration::from_secs(5);

/// What one worker has resolved.
#[derive(Debug, Default)]
pub(crate) struct Names {
    known: RefCell<HashMap<Arc<str>, Known>>,
}

#[derive(Debug)]
struct Known {
    addresses: Arc<[IpAddr]>,
    until: Instant,
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
        let known = match self.known(hostname, Instant::now()) {
            Some(known) => known,
            None => {
                // The port is only for the function's sake.
                let found = time::timeout(timeout, lookup_host((&**hostname, 0))).await;
                let found = found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
                self.keep(hostname, found, Instant::now())
            }
        };
        let mut addresses = known.to_vec();
        addresses.shuffle(&mut rand::rng());
        addresses.sort_by_key(|address| address.is_ipv4() != prefer_ipv4);
        Ok(addresses)
    }

    fn known(&self, hostname: &str, now: Instant) -> Option<Arc<[IpAddr]>> {
        let known = self.known.borrow();
        let found = known.get(hostname).filter(|known| known.until > now)?;
        Some(found.addresses.clone())
    }

    /// Keeps an answer; an empty one is asked for again.
    fn keep(
        &self,
        hostname: &Arc<str>,
        found: impl Iterator<Item = SocketAddr>,
        now: Instant,
    ) -> Arc<[IpAddr]> {
        let mut addresses: Vec<_> = found
            .map(|address| sockets::canonical(address).ip())
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let addresses: Arc<[IpAddr]> = addresses.into();
        let mut known = self.known.borrow_mut();
        if known.len() >= ENTRIES {
            known.retain(|_, known| known.until > now);
        }
        if !addresses.is_empty() && known.len() < ENTRIES {
            let entry = Known {
                addresses: addresses.clone(),
                until: now + LIFETIME,
            };
            known.insert(hostname.clone(), entry);
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(address: &str) -> impl Iterator<Item = SocketAddr> + use<> {
        [SocketAddr::new(address.parse().expect("an address"), 0)].into_iter()
    }

    #[test]
    fn an_answer_is_used_until_its_time_is_over() {
        let (names, now) = (Names::default(), Instant::now());
        let host: Arc<str> = "db.example".into();
        assert_eq!(names.known(&host, now), None);
        let kept = names.keep(&host, found("192.0.2.1"), now);
        let later = now + LIFETIME / 2;
        assert_eq!(names.known(&host, later), Some(kept));
        assert_eq!(names.known(&host, now + LIFETIME), None);
        names.keep(&host, found("192.0.2.2"), now + LIFETIME);
        let moved = names.known(&host, now + LIFETIME).expect("kept");
        assert_eq!(*moved, ["192.0.2.2".parse::<IpAddr>().expect("an address")]);
    }

    #[test]
    fn no_answer_is_not_kept_and_no_more_than_fit() {
        let (names, now) = (Names::default(), Instant::now());
        names.keep(&"none.example".into(), [].into_iter(), now);
        assert_eq!(names.known("none.example", now), None);
        for index in 0..2 * ENTRIES {
            names.keep(&format!("{index}.example").into(), found("192.0.2.1"), now);
        }
        assert_eq!(names.known.borrow().len(), ENTRIES);
        names.keep(&"late.example".into(), found("192.0.2.1"), now + LIFETIME);
        assert_eq!(names.known.borrow().len(), 1);
    }
}
