//! Keeps a current certificate for every identity that was asked for: fetched once, shared, renewed, forgotten.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh::identity::Identity;
use runtime::metrics::Exposition;
use runtime::vital;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::WorkloadCertificate;
use crate::ca_client::{CaClient, Fault};

mod dump;
mod exposition;
mod schedule;
mod worker;

pub use schedule::Priority;

use worker::{Command, Worker};

/// How often the file of roots is looked at; a change counts once it was the same for two looks.
const LOOK: Duration = Duration::from_millis(500);
/// What a reason begins with where there was a certificate and no other followed.
const EXPIRED: &str = "CERT_EXPIRED";
/// Nodes see such a change together, and the CA should not.
const SPREAD: Duration = Duration::from_secs(2);

/// What is known about one identity.
///
/// ```text
/// Initializing ──▶ Available ◀──▶ Unavailable (expired, or never there, with the last failure)
///       └──────────────────────────▲
/// ```
#[derive(Debug, Clone)]
pub enum State {
    Initializing,
    Available(Arc<WorkloadCertificate>),
    Unavailable(Failure),
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Failure {
    pub reason: Arc<str>,
    pub fault: Fault,
}

/// There is no certificate to use now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no certificate for {identity}: {reason}")]
pub struct Unavailable {
    pub identity: Identity,
    pub reason: Arc<str>,
    pub fault: Fault,
}

/// A handle on the certificates of this process; clones share them. When the last one goes, fetching ends.
#[derive(Clone)]
pub struct CertificateManager {
    states: States,
    commands: mpsc::UnboundedSender<Command>,
    _worker: Arc<Owned>,
}

/// States as readers see them: replaced as a whole, so that reading takes no lock.
type States = Arc<ArcSwap<HashMap<Identity, State>>>;

struct Owned(AbortHandle);

// === impl CertificateManager ===

impl CertificateManager {
    /// Fetches run on the current tokio runtime; the handle may be used from any.
    pub fn new(ca: Arc<dyn CaClient>) -> Self {
        let states = States::default();
        let (commands, receiver) = mpsc::unbounded_channel();
        let worker = Worker::new(ca, states.clone()).run(receiver);
        let worker = tokio::spawn(vital::task("certificates", worker));
        Self {
            states,
            commands,
            _worker: Arc::new(Owned(worker.abort_handle())),
        }
    }

    /// The certificate for `identity` if there is one that hasn't expired. Cheap, and never waits.
    pub fn cached(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        match self.states.load().get(identity)? {
            State::Available(certificate) if !certificate.is_expired() => Some(certificate.clone()),
            State::Available(_) | State::Initializing | State::Unavailable(_) => None,
        }
    }

    /// The certificate for `identity`, fetched if need be, before anything less urgent.
    ///
    /// Waits for a fetch under way or about to be retried; after repeated failures the reason is answered at once.
    pub async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, Unavailable> {
        if let Some(certificate) = self.cached(identity) {
            return Ok(certificate);
        }
        let (reply, answer) = oneshot::channel();
        let want = Command::Want(identity.clone(), Priority::RealTime, Some(reply));
        let stopped = || Unavailable {
            identity: identity.clone(),
            reason: "certificates are no longer fetched".into(),
            fault: Fault::Unanswered,
        };
        self.commands.send(want).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Starts fetching a certificate that will probably be needed.
    pub fn prefetch(&self, identity: &Identity) {
        // Fails only when the runtime is going down, and nobody will need it then.
        let _ = self
            .commands
            .send(Command::Want(identity.clone(), Priority::WarmUp, None));
    }

    /// The last workload with this identity is gone: no more renewals.
    pub fn forget(&self, identity: &Identity) {
        let _ = self.commands.send(Command::Forget(identity.clone()));
    }

    /// Renews every certificate within `spread`, each at a time of its own.
    pub fn renew_all(&self, spread: Duration) {
        let _ = self.commands.send(Command::RenewAll(spread));
    }

    /// Renews everything whenever the file of the CA's roots has changed, for as long as it is
    /// polled: a root that was added is trusted, and one that was taken away no longer, with new
    /// certificates only.
    pub async fn follow_roots(self, path: PathBuf) {
        let mut known = tokio::fs::read(&path).await.ok();
        let mut seen = known.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let content = tokio::fs::read(&path).await.ok();
            let settled = content == seen;
            seen = content;
            if settled && seen.is_some() && seen != known {
                tracing::info!(path = %path.display(), "the CA's roots have changed; renewing certificates");
                known.clone_from(&seen);
                self.renew_all(SPREAD);
            }
        }
    }

    /// Every identity with its state, sorted.
    pub fn snapshot(&self) -> Vec<(Identity, State)> {
        let mut all: Vec<_> = self
            .states
            .load()
            .iter()
            .map(|(identity, state)| (identity.clone(), state.clone().at_present()))
            .collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Adds how many certificates there are, and how long they last, to the metrics.
    pub fn expose(&self, exposition: &mut Exposition) {
        let states = self.states.load();
        let states = states.values().map(|state| state.clone().at_present());
        exposition::Summary::of(states).render(exposition);
    }

    /// The `certificates` of `/config_dump`.
    pub fn dump(&self) -> Vec<serde_json::Value> {
        self.snapshot()
            .iter()
            .map(|(identity, state)| dump::entry(identity, state))
            .collect()
    }
}

// === impl State ===

impl State {
    /// An expired certificate is as good as none.
    fn at_present(self) -> Self {
        match self {
            Self::Available(certificate) if certificate.is_expired() => {
                Self::Unavailable(Failure::expired(&certificate, "not renewed in time"))
            }
            Self::Initializing | Self::Available(_) | Self::Unavailable(_) => self,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// Told by a word of its own: what helps is not what helps somebody who never had one.
    fn expired(certificate: &WorkloadCertificate, renewal: &str) -> Self {
        let until = humantime::format_rfc3339_seconds(certificate.not_after());
        Self {
            reason: format!("{EXPIRED}: it was valid until {until}; {renewal}").into(),
            fault: Fault::Unanswered,
        }
    }
}

// === impl Owned ===

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
