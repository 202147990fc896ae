//! How many tunnels each peer has into each pod, and how many handshakes for some, so that none makes
//! this node buffer without end.
//!
//! A peer is an identity at an address: many come from the address of a network's gateway, which passes
//! on one tunnel for each connection, or of a router that has sources share its own. The first tunnels
//! have windows for bulk, 80 MiB each; some others Istio's 16 MiB, and all the rest 1 MiB. That is 3 GiB
//! for one peer at the very most, filled only by thousands of connections whose applications do not
//! read; what is beyond is refused.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hbone::settings::Settings;
use mesh::identity::Identity;

/// Tunnels with windows for bulk.
const ROOMY: usize = 8;
/// Tunnels up to which they have windows of [`USUAL_WINDOW`].
const USUAL: usize = 32;
const USUAL_WINDOW: u32 = 16 << 20;
/// Of all others. A connection has a quarter of it: 5 MB/s where the other network is 50 ms away.
const SMALL_WINDOW: u32 = 1 << 20;
/// Tunnels of one peer into one pod.
const MOST: usize = 2048;
/// Handshakes from one address with one pod at a time: nobody has proved yet who they are.
const MOST_HANDSHAKES: usize = 512;

/// The open tunnels of every peer.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    handshakes: Arc<Counts<(Arc<str>, IpAddr)>>,
    open: Arc<Counts<Peer>>,
}

/// Who has tunnels into a pod.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Peer {
    pod: Arc<str>,
    address: IpAddr,
    /// None where a certificate names no workload.
    identity: Option<Identity>,
}

/// One handshake's place, until dropped.
#[derive(Debug)]
pub(crate) struct Handshake {
    _counted: Counted<(Arc<str>, IpAddr)>,
}

/// One tunnel's place, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _counted: Counted<Peer>,
    /// The most that the tunnel may buffer; none where that is what its settings say.
    window: Option<u32>,
}

/// How many there are of each.
#[derive(Debug)]
struct Counts<K: Eq + Hash>(Mutex<HashMap<Arc<K>, usize>>);

/// Counts until dropped.
#[derive(Debug)]
struct Counted<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: Arc<K>,
}

// === impl Tunnels ===

impl Tunnels {
    /// A place for a handshake from `address` with `pod`; none where as many are under way as may.
    pub(crate) fn shake(&self, pod: &Arc<str>, address: IpAddr) -> Option<Handshake> {
        let (counted, _) = self
            .handshakes
            .enter((pod.clone(), address), MOST_HANDSHAKES)?;
        Some(Handshake { _counted: counted })
    }

    /// A place for a tunnel of `identity` at `address` into `pod`; none where it has as many as it
    /// may.
    pub(crate) fn enter(
        &self,
        pod: &Arc<str>,
        address: IpAddr,
        identity: Option<&Identity>,
    ) -> Option<Place> {
        let peer = Peer {
            pod: pod.clone(),
            address,
            identity: identity.cloned(),
        };
        let (counted, count) = self.open.enter(peer, MOST)?;
        Some(Place {
            _counted: counted,
            window: if count <= ROOMY {
                None
            } else if count <= USUAL {
                Some(USUAL_WINDOW)
            } else {
                Some(SMALL_WINDOW)
            },
        })
    }
}

// === impl Place ===

impl Place {
    /// The settings of the tunnel that is to take it.
    pub(crate) fn settings(&self, usual: &Settings) -> Settings {
        match self.window {
            Some(window) => usual.within(window),
            None => usual.clone(),
        }
    }
}

// === impl Counts ===

impl<K: Eq + Hash> Counts<K> {
    /// One more, and how many there are with it; none where there are as many as may be.
    fn enter(self: &Arc<Self>, key: K, most: usize) -> Option<(Counted<K>, usize)> {
        let key = Arc::new(key);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        let counted = Counted {
            counts: self.clone(),
            key,
        };
        Some((counted, *count))
    }
}

impl<K: Eq + Hash> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

// === impl Counted ===

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let counts = self.counts.0.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_peer_has_a_bounded_number_of_tunnels_into_a_pod() {
        let tunnels = Tunnels::default();
        let (pod, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let [web, api] = ["web", "api"].map(|account| Identity::new("test", "shop", account));
        let enter = || tunnels.enter(&pod, address(1), Some(&web));
        let mut places: Vec<_> = (0..MOST + 5).filter_map(|_| enter()).collect();
        assert_eq!(places.len(), MOST);
        for elsewhere in [
            tunnels.enter(&pod, address(2), Some(&web)),
            tunnels.enter(&pod, address(1), Some(&api)),
            tunnels.enter(&pod, address(1), None),
            tunnels.enter(&other, address(1), Some(&web)),
        ] {
            assert_eq!(elsewhere.expect("another's").window, None);
        }
        places.pop();
        places.push(enter().expect("room again"));
        places.clear();
        assert!(tunnels.open.0.lock().expect("not poisoned").is_empty());
    }

    #[test]
    fn all_windows_of_a_peer_are_bounded_together() {
        let tunnels = Tunnels::default();
        let pod: Arc<str> = "a".into();
        let places: Vec<_> = (0..MOST)
            .filter_map(|_| tunnels.enter(&pod, address(1), None))
            .collect();
        let settings = places
            .iter()
            .map(|place| place.settings(&Settings::default()));
        let windows: Vec<_> = settings
            .inspect(|settings| assert!(settings.stream_window <= settings.connection_window / 4))
            .map(|settings| u64::from(settings.connection_window))
            .collect();
        assert!(windows.is_sorted_by(|one, next| one >= next));
        assert_eq!(windows.iter().sum::<u64>(), 3040 << 20);
    }

    #[test]
    fn an_address_has_a_bounded_number_of_handshakes_with_a_pod() {
        let tunnels = Tunnels::default();
        let pod: Arc<str> = "a".into();
        let shake = |from| tunnels.shake(&pod, address(from));
        let mut handshakes: Vec<_> = (0..MOST_HANDSHAKES + 5).filter_map(|_| shake(1)).collect();
        assert_eq!(handshakes.len(), MOST_HANDSHAKES);
        assert!(shake(2).is_some());
        handshakes.pop();
        assert!(shake(1).is_some());
    }
}
