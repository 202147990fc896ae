//! Keys of issuers: where they come from, how long they are good for, and when they are asked for
//! again. Shared by all workers; a worker that misses keys fetches them for all.
//!
//! - [`schedule`]: when to fetch; pure.
//! - [`fetch`]: getting a document, without going where no document can be.

pub(crate) mod schedule;

pub(crate) mod fetch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use mesh::request_authentication::{JwtKeys, JwtRule};
use tokio::sync::watch;
use tokio::time::Instant;

use self::fetch::FetchError;
use self::schedule::{Schedule, Step};
use crate::jwt::KeySet;

/// Sources kept at most; policies name no more in practice.
const SOURCES: usize = 4096;

/// Every source that a policy has named.
pub(crate) struct Jwks {
    refresh: Duration,
    sources: ArcSwap<HashMap<Origin, Arc<Source>>>,
    adding: Mutex<()>,
}

/// What names a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Inline(Arc<str>),
    Uri(Arc<str>),
    /// An issuer.
    Discovery(Arc<str>),
}

/// One document, as it was last read.
pub(crate) struct Source {
    pub(crate) origin: Origin,
    keys: ArcSwapOption<KeySet>,
    schedule: Mutex<Schedule>,
    fetched: watch::Sender<u64>,
}

/// Why there are no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    #[error("keys are not there: {0}")]
    Failed(String),
    #[error("keys did not come in time")]
    Timeout,
}

// === impl Jwks ===

impl Jwks {
    pub(crate) fn new(refresh: Duration) -> Self {
        Self {
            refresh,
            sources: ArcSwap::default(),
            adding: Mutex::new(()),
        }
    }

    pub(crate) fn source(&self, rule: &JwtRule) -> Arc<Source> {
        let origin = Origin::of(rule);
        if let Some(known) = self.sources.load().get(&origin) {
            return known.clone();
        }
        let _adding = lock(&self.adding);
        let sources = self.sources.load();
        if let Some(known) = sources.get(&origin) {
            return known.clone();
        }
        let mut more = if sources.len() < SOURCES {
            HashMap::clone(&sources)
        } else {
            HashMap::new()
        };
        let source = Arc::new(Source::new(origin.clone(), self.refresh));
        more.insert(origin, source.clone());
        self.sources.store(Arc::new(more));
        source
    }

    /// For people: every source, and how it stands.
    pub(crate) fn dump(&self) -> Vec<serde_json::Value> {
        self.sources
            .load()
            .values()
            .map(|source| source.dump())
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Origin ===

impl Origin {
    fn of(rule: &JwtRule) -> Self {
        match &rule.keys {
            JwtKeys::Inline(document) => Self::Inline(document.clone()),
            JwtKeys::Uri(uri) => Self::Uri(uri.clone()),
            JwtKeys::Discovery => Self::Discovery(rule.issuer.clone()),
        }
    }
}

// === impl Source ===

impl Source {
    fn new(origin: Origin, refresh: Duration) -> Self {
        let source = Self {
            schedule: Mutex::new(Schedule::new(refresh)),
            keys: ArcSwapOption::empty(),
            fetched: watch::Sender::new(0),
            origin,
        };
        if let Origin::Inline(document) = &source.origin {
            source.finish(
                KeySet::parse(document.as_bytes()).map_err(|error| error.to_string()),
                Instant::now(),
            );
        }
        source
    }

    /// The keys at hand.
    pub(crate) fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Asked before keys are used, and when no key fits a token.
    pub(crate) fn step(&self, now: Instant, unknown_key: bool) -> Step {
        match self.origin {
            Origin::Inline(_) => Step::UseWhatIsThere,
            Origin::Uri(_) | Origin::Discovery(_) => lock(&self.schedule).step(now, unknown_key),
        }
    }

    /// Takes in what a fetch came to.
    pub(crate) fn finish(&self, result: Result<KeySet, String>, now: Instant) {
        let mut schedule = lock(&self.schedule);
        match result {
            Ok(keys) => {
                self.keys.store(Some(Arc::new(keys)));
                schedule.succeeded(now);
            }
            Err(reason) => {
                metrics::counter!("waypoint_jwks_fetch_failures_total").increment(1);
                tracing::warn!(source = ?self.origin, reason, "cannot get keys for tokens");
                schedule.failed(now, reason);
            }
        }
        drop(schedule);
        self.fetched.send_modify(|times| *times += 1);
    }

    /// Waits for the fetch under way.
    pub(crate) async fn wait(&self, limit: Duration) -> Result<(), Unavailable> {
        let mut fetched = self.fetched.subscribe();
        // Between the caller's look and the subscription it may have ended.
        if !lock(&self.schedule).is_fetching() {
            return Ok(());
        }
        let changed = tokio::time::timeout(limit, fetched.changed()).await;
        changed.map(|_| ()).map_err(|_| Unavailable::Timeout)
    }

    /// Why there are no keys.
    pub(crate) fn failure(&self) -> Unavailable {
        let reason = lock(&self.schedule).failure();
        Unavailable::Failed(reason.unwrap_or_else(|| "not fetched yet".to_owned()))
    }

    fn dump(&self) -> serde_json::Value {
        let schedule = lock(&self.schedule);
        let origin = match &self.origin {
            Origin::Inline(_) => "inline".to_owned(),
            Origin::Uri(uri) => uri.to_string(),
            Origin::Discovery(issuer) => format!("discovery of {issuer}"),
        };
        serde_json::json!({
            "source": origin,
            "available": self.keys.load().is_some(),
            "failure": schedule.failure(),
        })
    }
}

impl From<FetchError> for String {
    fn from(error: FetchError) -> Self {
        error.to_string()
    }
}

#[cfg(test)]
mod tests;
