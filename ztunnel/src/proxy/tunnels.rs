//! How many tunnels each peer has into each pod, so that none makes this node buffer without end.
//!
//! A peer's first tunnels have windows for bulk, 80 MiB each; the others Istio's 16 MiB. With eight and
//! 128 of them that is 2.5 GiB for one peer at the very most, filled only by 12 800 connections whose
//! applications do not read; what is beyond is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Tunnels with windows for bulk.
const ROOMY: usize = 8;
/// Tunnels of one peer into one pod: each carries a hundred connections.
const MOST: usize = 128;

/// The open tunnels of every peer.
#[derive(Debug, Default)]
pub(crate) struct Tunnels(Mutex<HashMap<(Arc<str>, IpAddr), usize>>);

/// One tunnel's place, until dropped.
#[derive(Debug)]
pub(crate) struct Place {
    tunnels: Arc<Tunnels>,
    key: (Arc<str>, IpAddr),
    /// Whether the peer has enough tunnels with windows for bulk.
    pub(crate) crowded: bool,
}

// === impl Tunnels ===

impl Tunnels {
    /// A place for a tunnel from `peer` into `pod`; none where it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, pod: &Arc<str>, peer: IpAddr) -> Option<Place> {
        let key = (pod.clone(), peer);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key.clone()).or_default();
        (*count < MOST).then(|| {
            *count += 1;
            Place {
                tunnels: self.clone(),
                key,
                crowded: *count > ROOMY,
            }
        })
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.tunnels.0.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_bounded_number_of_tunnels_into_a_pod() {
        let tunnels = Arc::<Tunnels>::default();
        let (pod, other): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let peer = |last| IpAddr::from([10, 0, 0, last]);
        let mut places: Vec<_> = (0..MOST + 5)
            .filter_map(|_| tunnels.enter(&pod, peer(1)))
            .collect();
        assert_eq!(places.len(), MOST);
        let roomy = places.iter().filter(|place| !place.crowded);
        assert_eq!(roomy.count(), ROOMY);
        for elsewhere in [tunnels.enter(&pod, peer(2)), tunnels.enter(&other, peer(1))] {
            assert!(!elsewhere.expect("another's").crowded);
        }
        places.pop();
        assert!(tunnels.enter(&pod, peer(1)).is_some());
        places.clear();
        assert!(tunnels.0.lock().expect("not poisoned").is_empty());
    }
}
