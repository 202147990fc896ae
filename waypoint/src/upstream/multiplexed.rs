//! HTTP/2 connections of one worker, each shared by many requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{self, Instant};

use super::pool::Key;
use crate::http2::client::{Client, Slot};
use crate::limits::Limits;
use crate::message::UpstreamError;

pub(super) struct Multiplexed {
    entries: RefCell<HashMap<Key, Entry>>,
    /// Streams on one connection.
    most: usize,
    /// How long a request may look for a connection with room.
    timeout: Duration,
    sweeper: AbortHandle,
}

#[derive(Default)]
struct Entry {
    clients: Vec<Rc<Client>>,
    connecting: Option<watch::Receiver<Option<Attempt>>>,
}

type Attempt = Result<(), UpstreamError>;

/// What was found for a request.
enum Found {
    Client(Rc<Client>, Slot),
    Wait(watch::Receiver<Option<Attempt>>),
}

// === impl Multiplexed ===

impl Multiplexed {
    pub(super) fn new(limits: &Limits) -> Rc<Self> {
        let idle = limits.pool_idle_timeout;
        Rc::new_cyclic(|pool: &Weak<Self>| Self {
            entries: RefCell::default(),
            most: limits.http2.concurrent_streams as usize,
            timeout: limits.connect_timeout,
            sweeper: spawn_local(sweep(pool.clone(), idle)).abort_handle(),
        })
    }

    /// A connection with room, made by `connect` where there is none. One attempt for a key runs
    /// at a time, and goes on when whoever asked first gives up.
    pub(super) async fn take<C, F>(
        self: &Rc<Self>,
        key: &Key,
        connect: C,
    ) -> Result<(Rc<Client>, Slot), UpstreamError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Client, UpstreamError>> + 'static,
    {
        if let Some(Found::Client(client, slot)) = self.find(key) {
            return Ok((client, slot));
        }
        // An endpoint may take back on each connection what it has just admitted.
        match Box::pin(time::timeout(self.timeout, self.wait(key, connect))).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamError::Connect(
                "no connection had room in time".to_owned(),
            )),
        }
    }

    async fn wait<C, F>(
        self: &Rc<Self>,
        key: &Key,
        connect: C,
    ) -> Result<(Rc<Client>, Slot), UpstreamError>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Client, UpstreamError>> + 'static,
    {
        loop {
            let mut attempt = match self.find(key) {
                Some(Found::Client(client, slot)) => return Ok((client, slot)),
                Some(Found::Wait(attempt)) => attempt,
                None => self.start(key, connect()),
            };
            let answered = attempt.wait_for(Option::is_some).await;
            match answered.as_deref() {
                Ok(Some(Err(error))) => return Err(error.clone()),
                // Look again.
                Ok(_) => {}
                Err(_) => return Err(UpstreamError::Connect("given up".to_owned())),
            }
        }
    }

    fn find(&self, key: &Key) -> Option<Found> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(key)?;
        entry
            .clients
            .retain(|client| client.is_usable() && !client.is_barren());
        let least = entry.clients.iter().min_by_key(|client| client.streams());
        if let Some(client) = least
            && let Some(slot) = client.reserve(self.most)
        {
            return Some(Found::Client(client.clone(), slot));
        }
        entry.connecting.clone().map(Found::Wait)
    }

    fn start<F>(self: &Rc<Self>, key: &Key, connect: F) -> watch::Receiver<Option<Attempt>>
    where
        F: Future<Output = Result<Client, UpstreamError>> + 'static,
    {
        let (sender, receiver) = watch::channel(None);
        let mut entries = self.entries.borrow_mut();
        entries.entry(key.clone()).or_default().connecting = Some(receiver.clone());
        drop(entries);
        let (pool, key) = (Rc::downgrade(self), key.clone());
        spawn_local(async move {
            let connected = connect.await;
            if let Some(pool) = pool.upgrade() {
                let mut entries = pool.entries.borrow_mut();
                let entry = entries.entry(key).or_default();
                entry.connecting = None;
                let attempt = connected.map(|client| entry.clients.push(Rc::new(client)));
                sender.send_replace(Some(attempt));
            }
        });
        receiver
    }

    fn sweep(&self, now: Instant, timeout: Duration) {
        self.entries.borrow_mut().retain(|_, entry| {
            entry.clients.retain(|client| {
                let idle = client.idle_since();
                client.is_usable() && idle.is_none_or(|since| now - since < timeout)
            });
            !entry.clients.is_empty() || entry.connecting.is_some()
        });
    }
}

impl Drop for Multiplexed {
    fn drop(&mut self) {
        self.sweeper.abort();
    }
}

async fn sweep(pool: Weak<Multiplexed>, timeout: Duration) {
    let mut ticks = time::interval((timeout / 8).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        match pool.upgrade() {
            Some(pool) => pool.sweep(Instant::now(), timeout),
            None => return,
        }
    }
}
