//! Idle HTTP/1.1 connections of one worker, the last used first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use mesh::destination::{Hop, Transport};
use mesh::identity::Identity;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{self, Instant};

use super::link::Link;
use crate::http1::call::{self, Recycle};
use crate::http1::wire::Wire;
use crate::limits::Limits;

/// What a connection is for: requests share it only where all of this is equal.
#[derive(Clone, Debug)]
pub(super) struct Key {
    target: SocketAddr,
    /// The tunnel's address, and who may answer there; none for plain TCP.
    tunnel: Option<(SocketAddr, Arc<[Identity]>)>,
}

pub(super) struct Pool {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
    most: usize,
    sweeper: AbortHandle,
}

struct Idle {
    wire: Wire<Link>,
    since: Instant,
}

/// Where a connection goes back to.
pub(super) struct Returned {
    pool: Weak<Pool>,
    key: Key,
}

// === impl Key ===

impl Key {
    pub(super) fn new(hop: &Hop) -> Self {
        Self {
            target: hop.target,
            tunnel: match &hop.transport {
                Transport::Tcp | Transport::Resolve { .. } => None,
                Transport::Hbone { address, expected } => Some((*address, expected.clone())),
                Transport::DoubleHbone(crossing) => {
                    Some((crossing.address, crossing.expected.clone()))
                }
            },
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.target == other.target
            && match (&self.tunnel, &other.tunnel) {
                (None, None) => true,
                (Some((address, expected)), Some((other_address, other_expected))) => {
                    // The snapshot's lists are shared: most often they are the same one.
                    let same = Arc::ptr_eq(expected, other_expected) || expected == other_expected;
                    address == other_address && same
                }
                (None, Some(_)) | (Some(_), None) => false,
            }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The rest seldom differs for one target.
        self.target.hash(state);
    }
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(limits: &Limits) -> Rc<Self> {
        let (most, idle) = (limits.pool_idle_connections, limits.pool_idle_timeout);
        Rc::new_cyclic(|pool: &Weak<Self>| Self {
            idle: RefCell::default(),
            most,
            sweeper: spawn_local(sweep(pool.clone(), idle)).abort_handle(),
        })
    }

    /// A connection that is still good.
    pub(super) fn take(&self, key: &Key) -> Option<Wire<Link>> {
        let mut pool = self.idle.borrow_mut();
        let idle = pool.get_mut(key)?;
        while let Some(mut one) = idle.pop() {
            if call::is_usable(&mut one.wire) {
                return Some(one.wire);
            }
        }
        None
    }

    fn put(&self, key: &Key, wire: Wire<Link>) {
        let mut pool = self.idle.borrow_mut();
        let since = Instant::now();
        let one = Idle { wire, since };
        match pool.get_mut(key) {
            Some(idle) if idle.len() < self.most => idle.push(one),
            Some(_) => {}
            None => {
                pool.insert(key.clone(), vec![one]);
            }
        }
    }

    /// Closes what has idled for too long, and what its endpoint has closed.
    fn sweep(&self, now: Instant, timeout: Duration) {
        self.idle.borrow_mut().retain(|_, idle| {
            idle.retain_mut(|one| now - one.since < timeout && call::is_usable(&mut one.wire));
            idle.shrink_to_fit();
            !idle.is_empty()
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

async fn sweep(pool: Weak<Pool>, timeout: Duration) {
    let mut ticks = time::interval((timeout / 8).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(Instant::now(), timeout),
            None => return,
        }
    }
}

// === impl Returned ===

impl Returned {
    pub(super) fn new(pool: &Rc<Pool>, key: Key) -> Self {
        Self {
            pool: Rc::downgrade(pool),
            key,
        }
    }
}

impl Recycle<Link> for Returned {
    fn recycle(&self, wire: Wire<Link>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.put(&self.key, wire);
        }
    }
}
