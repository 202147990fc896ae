//! The one writer: takes batches from a source through the index and publishes what
//! changed. Everybody else reads.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use xds::server::ResourceSet;

use crate::index::Index;
use crate::source::{Batch, Report};

/// What the control plane knows. Clones share it.
#[derive(Clone)]
pub struct Knowledge(Arc<Shared>);

struct Shared {
    state: RwLock<State>,
    /// None once the control plane stops serving.
    resources: RwLock<Option<watch::Sender<ResourceSet>>>,
    synced: watch::Sender<bool>,
    /// Counts the batches applied.
    applied: watch::Sender<u64>,
}

/// One consistent view.
pub struct State {
    pub index: Index,
    pub report: Arc<Report>,
    /// What goes wrong besides the objects.
    pub problems: Vec<String>,
}

// === impl Knowledge ===

impl Knowledge {
    pub fn new(index: Index) -> Self {
        Self(Arc::new(Shared {
            state: RwLock::new(State {
                index,
                report: Arc::default(),
                problems: Vec::new(),
            }),
            resources: RwLock::new(Some(watch::Sender::default())),
            synced: watch::Sender::new(false),
            applied: watch::Sender::default(),
        }))
    }

    /// Readers keep the writer waiting: don't hold it over an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic in the middle of a change would have to be a bug of ours; serving what is
        // known is still better than serving nobody.
        let state = self.0.state.read();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The resources to serve, complete once [`Self::synced`]. The receiver's end comes
    /// with [`Self::close`].
    pub fn resources(&self) -> watch::Receiver<ResourceSet> {
        let sender = self.0.resources.read();
        match &*sender.unwrap_or_else(PoisonError::into_inner) {
            Some(sender) => sender.subscribe(),
            None => watch::Sender::default().subscribe(),
        }
    }

    /// Ends every stream of resources.
    pub fn close(&self) {
        let sender = self.0.resources.write();
        sender.unwrap_or_else(PoisonError::into_inner).take();
    }

    pub fn is_synced(&self) -> bool {
        *self.0.synced.borrow()
    }

    /// Waits until every source has told all it knew at its start.
    pub async fn synced(&self) {
        let mut synced = self.0.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Changes with every batch that was applied.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.0.applied.subscribe()
    }

    /// Applies what a source sends, until it ends.
    pub async fn follow(&self, mut batches: mpsc::Receiver<Batch>) {
        while let Some(batch) = batches.recv().await {
            let mut synced = batch.synced;
            let started = Instant::now();
            self.apply(batch);
            // What queued up meanwhile is published together.
            while let Ok(batch) = batches.try_recv() {
                synced |= batch.synced;
                self.apply(batch);
            }
            metrics::histogram!("pilot_debounce_time").record(started.elapsed().as_secs_f64());
            if synced {
                self.0.synced.send_replace(true);
            }
        }
    }

    /// Applies one batch.
    pub fn apply(&self, batch: Batch) {
        let started = Instant::now();
        let events = batch.events.len();
        let state = self.0.state.write();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        let changes = state.index.apply(batch.events, SystemTime::now());
        let saved = state.index.save_addresses();
        state.problems.clear();
        if let Err(error) = saved {
            let problem = format!("addresses of ServiceEntries can't be written down: {error}");
            tracing::warn!("{problem}");
            state.problems.push(problem);
        }
        if let Some(report) = batch.report {
            state.report = report;
        }
        drop(state);
        let sender = self.0.resources.read();
        if let Some(sender) = &*sender.unwrap_or_else(PoisonError::into_inner)
            && !changes.is_empty()
        {
            sender.send_if_modified(|resources| resources.apply(&changes));
        }
        self.0.applied.send_modify(|applied| *applied += 1);
        tracing::debug!(
            events,
            changes = changes.len(),
            "applied in {:?}",
            started.elapsed()
        );
        metrics::counter!("pilot_k8s_cfg_events").increment(events as u64);
        if !changes.is_empty() {
            metrics::counter!("pilot_push_triggers", "type" => "config").increment(1);
        }
    }
}
