//! Tunnels shared by connections from one source to one peer, on one worker.
//!
//! A tunnel serves exactly one key: identities never mix. One connection attempt per key
//! runs at a time; when every tunnel is full another is made, and full ones take streams
//! again when theirs end. A tunnel made with a certificate that has since been renewed
//! takes no new streams.
//!
//! A tunnel may be gone, or its peer leaving, without our having heard of it. What fails on one
//! that was there before is tried on one made since: such a connection fails only if a new
//! tunnel fails too.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use identity::certificate::is_same_certificate;
use mesh::identity::Identity;
use mesh::workload::WorkloadUid;
use runtime::tasks::spawn_local;
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{self, Instant};

use crate::client::{ConnectError, ConnectRequest, OpenError, StreamSlot, Tunnel};
use crate::stream::Stream;

/// What a tunnel is for. Connections share it only when all of this is equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub source: Identity,
    /// The source's pod, so that a reused address never inherits a tunnel.
    pub pod: Arc<str>,
    pub expected: Arc<[Identity]>,
    /// Who is reached, so that whoever has the address next never inherits one either; none where
    /// only the address is known.
    pub workload: Option<WorkloadUid>,
    pub destination: SocketAddr,
}

/// The tunnels of one worker. Clones share them.
#[derive(Clone, Debug)]
pub struct Pool {
    entries: Rc<Entries>,
    _sweeper: Rc<Sweeper>,
}

#[derive(Debug)]
struct Sweeper(JoinHandle<()>);

#[derive(Debug, Default)]
struct Entries {
    by_key: RefCell<HashMap<Key, Entry>>,
    /// How many entries are into each workload, so that few are looked at when few change.
    into: RefCell<HashMap<WorkloadUid, usize>>,
}

#[derive(Debug)]
struct Entry {
    tunnels: Vec<Pooled>,
    connecting: Option<watch::Receiver<Option<Attempt>>>,
}

#[derive(Debug)]
struct Pooled {
    tunnel: Rc<Tunnel>,
    config: Arc<ClientConfig>,
    made: Instant,
    idle_since: Option<Instant>,
}

/// How many times a stream that a tunnel failed to open is tried on a new one. The peer may be
/// leaving, and be told of the new one before it is gone.
const RETRIES: usize = 2;

type Attempt = Result<(), ConnectError>;

/// The one attempt for a key. However it ends, those who wait for it are told.
struct Attempting {
    entries: Weak<Entries>,
    key: Key,
    outcome: watch::Sender<Option<Attempt>>,
}

/// What a checkout found.
enum Checkout {
    Tunnel(Place),
    Wait(watch::Receiver<Option<Attempt>>),
}

/// Room for a stream in a tunnel.
struct Place {
    tunnel: Rc<Tunnel>,
    made: Instant,
    slot: StreamSlot,
}

/// Which tunnels will do.
#[derive(Clone, Copy)]
enum Wanted {
    Any,
    /// Those made from then on: what failed then was older.
    Since(Instant),
}

/// Why a stream did not open on one tunnel.
enum Failed {
    /// Another tunnel may open it.
    Broken(OpenError),
    /// So may it here, in what is left of the time for an answer.
    Silent {
        deadline: Instant,
    },
    Final(OpenError),
}

/// Since when a stream is wanted, and for how long a sign of the peer is waited for.
#[derive(Clone, Copy)]
struct Waiting {
    begun: Instant,
    patience: Option<Duration>,
}

/// A stream and what it runs on.
#[derive(Debug)]
pub struct Opened {
    pub stream: Stream,
    pub key_exchange: &'static str,
}

// === impl Pool ===

impl Pool {
    /// An empty pool whose tunnels close after `idle` without a stream. Must be called
    /// on the worker's `LocalSet`.
    pub fn new(idle: Duration) -> Self {
        let entries = Rc::new(Entries::default());
        let sweeper = spawn_local(sweep(Rc::downgrade(&entries), idle));
        Self {
            entries,
            _sweeper: Rc::new(Sweeper(sweeper)),
        }
    }

    /// Opens a stream on a tunnel for `key`, which `connect` makes where none has room. No byte
    /// of the application has been sent before the 200, so that a further attempt repeats nothing.
    ///
    /// Who can go elsewhere says after how long it would: without a sign of the peer for that long, that
    /// is [`OpenError::NoSign`]. What was begun to make a tunnel goes on for whoever comes next.
    pub async fn open<C, F>(
        &self,
        key: &Key,
        config: &Arc<ClientConfig>,
        connect: C,
        request: ConnectRequest,
        patience: Option<Duration>,
    ) -> Result<Opened, OpenError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Tunnel, ConnectError>> + 'static,
    {
        let begun = Instant::now();
        let waiting = Waiting { begun, patience };
        let (mut wanted, mut until, mut retries) = (Wanted::Any, None, RETRIES);
        loop {
            let attempt = self.attempt(key, config, &connect, request.clone(), wanted, waiting);
            let attempted = match until {
                Some(until) => time::timeout_at(until, attempt).await,
                None => Ok(attempt.await),
            };
            match attempted {
                Ok(Ok(opened)) => return Ok(opened),
                Ok(Err(Failed::Final(error))) => return Err(error),
                Ok(Err(Failed::Broken(error))) if retries == 0 => return Err(error),
                Ok(Err(Failed::Broken(error))) => {
                    tracing::debug!(%error, destination = %key.destination, "pooled tunnel failed");
                }
                Ok(Err(Failed::Silent { deadline })) => {
                    tracing::debug!(destination = %key.destination, "pooled tunnel is silent");
                    until = Some(deadline);
                }
                Err(_) => return Err(OpenError::ResponseTimeout),
            }
            wanted = Wanted::Since(Instant::now());
            retries -= 1;
        }
    }

    /// Opens a stream on one tunnel, which is not used again where it fails.
    async fn attempt<C, F>(
        &self,
        key: &Key,
        config: &Arc<ClientConfig>,
        connect: &C,
        request: ConnectRequest,
        wanted: Wanted,
        waiting: Waiting,
    ) -> Result<Opened, Failed>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Tunnel, ConnectError>> + 'static,
    {
        let place = waiting.sign(self.checkout(key, config, connect, wanted));
        let place = place.await.map_err(Failed::Final)?;
        let Place { tunnel, made, slot } = place.map_err(|error| Failed::Final(error.into()))?;
        let heard = tunnel.reads();
        let opening = tunnel.open_in(slot, request);
        let falls_silent = async {
            match made < waiting.begun {
                true => tunnel.falls_silent(waiting.patience).await,
                // It has answered a handshake just now.
                false => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            biased;
            opened = opening => match opened {
                Ok(stream) => {
                    return Ok(Opened {
                        stream,
                        key_exchange: tunnel.key_exchange(),
                    });
                }
                Err(error) if error.is_tunnel_failure() => Failed::Broken(error),
                // Not a word, not even about others: whoever comes next need not wait too.
                Err(OpenError::ResponseTimeout) if tunnel.reads() == heard => {
                    self.entries.forget(key, &tunnel);
                    return Err(Failed::Final(OpenError::ResponseTimeout));
                }
                Err(error) => return Err(Failed::Final(error)),
            },
            () = falls_silent => match waiting.patience {
                Some(patience) => Failed::Final(OpenError::NoSign(patience)),
                None => Failed::Silent {
                    deadline: waiting.begun + tunnel.response_timeout(),
                },
            },
        };
        self.entries.forget(key, &tunnel);
        Err(failed)
    }

    /// Forgets the tunnels of a pod. Their streams run to their end.
    pub fn purge(&self, pod: &str) {
        self.entries.retain(|key, _| &*key.pod != pod);
    }

    /// Forgets tunnels that are for nobody any more. Their streams run to their end.
    pub fn retain(&self, still_wanted: impl Fn(&Key) -> bool) {
        self.entries.retain(|key, _| still_wanted(key));
    }

    /// The same of tunnels into some workloads.
    pub fn retain_into(&self, workloads: &[WorkloadUid], still_wanted: impl Fn(&Key) -> bool) {
        let into = self.entries.into.borrow();
        let concerned: HashSet<_> = workloads
            .iter()
            .filter(|one| into.contains_key(one))
            .collect();
        drop(into);
        if !concerned.is_empty() {
            let is_concerned = |key: &Key| {
                key.workload
                    .as_ref()
                    .is_some_and(|one| concerned.contains(one))
            };
            self.entries
                .retain(|key, _| !is_concerned(key) || still_wanted(key));
        }
    }

    /// Closes what no stream uses, however short a time that is.
    pub fn release_idle(&self) {
        self.entries.release_idle(Instant::now(), Duration::ZERO);
    }

    /// Tunnels kept now.
    pub fn tunnels(&self) -> usize {
        let entries = self.entries.by_key.borrow();
        entries.values().map(|entry| entry.tunnels.len()).sum()
    }

    async fn checkout<C, F>(
        &self,
        key: &Key,
        config: &Arc<ClientConfig>,
        connect: &C,
        wanted: Wanted,
    ) -> Result<Place, ConnectError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Tunnel, ConnectError>> + 'static,
    {
        loop {
            let mut attempt = match self.entries.find(key, config, wanted) {
                Some(Checkout::Tunnel(place)) => return Ok(place),
                Some(Checkout::Wait(attempt)) => attempt,
                None => self.entries.start(key, config, connect()),
            };
            let answered = attempt.wait_for(Option::is_some).await;
            // Otherwise it succeeded, or was purged meanwhile: look again.
            if let Ok(Some(Err(error))) = answered.as_deref() {
                return Err(error.clone());
            }
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// What there is once the peer has shown itself.
    async fn sign<T>(self, shown: impl Future<Output = T>) -> Result<T, OpenError> {
        let Some(patience) = self.patience else {
            return Ok(shown.await);
        };
        let shown = time::timeout(patience, shown).await;
        shown.map_err(|_| OpenError::NoSign(patience))
    }
}

// === impl Wanted ===

impl Wanted {
    fn admits(self, made: Instant) -> bool {
        match self {
            Self::Any => true,
            Self::Since(failed) => made >= failed,
        }
    }
}

// === impl Entries ===

impl Entries {
    /// The oldest tunnel with room, or the attempt to wait for. What streams have to say at the
    /// same time leaves in one write only where they share a tunnel; what a crowd has left behind
    /// can go once it is idle; and a peer gives its first tunnels the widest windows.
    fn find(&self, key: &Key, config: &Arc<ClientConfig>, wanted: Wanted) -> Option<Checkout> {
        let mut entries = self.by_key.borrow_mut();
        let entry = entries.get_mut(key)?;
        entry.tunnels.retain(|pooled| {
            is_same_certificate(&pooled.config, config) && pooled.tunnel.is_usable()
        });
        let free = entry
            .tunnels
            .iter_mut()
            .find(|pooled| wanted.admits(pooled.made) && pooled.tunnel.has_room());
        match free {
            Some(pooled) => {
                pooled.idle_since = None;
                Some(Checkout::Tunnel(Place {
                    tunnel: pooled.tunnel.clone(),
                    made: pooled.made,
                    slot: pooled.tunnel.reserve(),
                }))
            }
            None => entry.connecting.clone().map(Checkout::Wait),
        }
    }

    /// Starts the one attempt for a key. It runs on when whoever asked first gives up.
    fn start<F>(
        self: &Rc<Self>,
        key: &Key,
        config: &Arc<ClientConfig>,
        connect: F,
    ) -> watch::Receiver<Option<Attempt>>
    where
        F: Future<Output = Result<Tunnel, ConnectError>> + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        self.expect(key, receiver.clone());
        let config = config.clone();
        let attempting = Attempting {
            entries: Rc::downgrade(self),
            key: key.clone(),
            outcome: sender,
        };
        spawn_local(async move {
            let result = connect.await;
            attempting.end(result, config);
        });
        receiver
    }

    fn expect(&self, key: &Key, attempt: watch::Receiver<Option<Attempt>>) {
        let mut entries = self.by_key.borrow_mut();
        if let Some(entry) = entries.get_mut(key) {
            entry.connecting = Some(attempt);
            return;
        }
        let entry = Entry {
            tunnels: Vec::new(),
            connecting: Some(attempt),
        };
        entries.insert(key.clone(), entry);
        if let Some(workload) = &key.workload {
            *self.into.borrow_mut().entry(workload.clone()).or_default() += 1;
        }
    }

    fn retain(&self, mut keep: impl FnMut(&Key, &mut Entry) -> bool) {
        let mut into = self.into.borrow_mut();
        self.by_key.borrow_mut().retain(|key, entry| {
            let kept = keep(key, entry);
            if !kept
                && let Some(workload) = &key.workload
                && let Some(count) = into.get_mut(workload)
            {
                *count -= 1;
                if *count == 0 {
                    into.remove(workload);
                }
            }
            kept
        });
    }

    fn forget(&self, key: &Key, tunnel: &Rc<Tunnel>) {
        if let Some(entry) = self.by_key.borrow_mut().get_mut(key) {
            entry
                .tunnels
                .retain(|pooled| !Rc::ptr_eq(&pooled.tunnel, tunnel));
        }
    }

    fn release_idle(&self, now: Instant, idle: Duration) {
        self.retain(|_, entry| {
            entry.tunnels.retain_mut(|pooled| {
                if !pooled.tunnel.is_usable() {
                    return false;
                }
                if pooled.tunnel.streams() > 0 {
                    pooled.idle_since = None;
                    return true;
                }
                now - *pooled.idle_since.get_or_insert(now) < idle
            });
            !entry.tunnels.is_empty() || entry.connecting.is_some()
        });
    }
}

// === impl Attempting ===

impl Attempting {
    fn end(&self, result: Result<Tunnel, ConnectError>, config: Arc<ClientConfig>) {
        if let Some(entries) = self.entries.upgrade()
            && let Some(entry) = entries.by_key.borrow_mut().get_mut(&self.key)
        {
            entry.connecting = None;
            let outcome = result.map(|tunnel| {
                tracing::debug!(
                    destination = %self.key.destination, group = tunnel.key_exchange(), "tunnel made"
                );
                entry.tunnels.push(Pooled {
                    tunnel: Rc::new(tunnel),
                    config,
                    made: Instant::now(),
                    idle_since: None,
                });
            });
            self.outcome.send_replace(Some(outcome));
        }
    }
}

impl Drop for Attempting {
    fn drop(&mut self) {
        if self.outcome.borrow().is_some() {
            return;
        }
        // The attempt panicked, or the pod was purged meanwhile and its entry with it.
        if let Some(entries) = self.entries.upgrade()
            && let Some(entry) = entries.by_key.borrow_mut().get_mut(&self.key)
            && let Some(connecting) = &entry.connecting
            && connecting.same_channel(&self.outcome.subscribe())
        {
            entry.connecting = None;
            let abandoned = Err(ConnectError::Abandoned);
            self.outcome.send_replace(Some(abandoned));
        }
    }
}

async fn sweep(entries: Weak<Entries>, idle: Duration) {
    let mut ticks = time::interval((idle / 4).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        match entries.upgrade() {
            Some(entries) => entries.release_idle(Instant::now(), idle),
            None => return,
        }
    }
}

// === impl Sweeper ===

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}
