//! Which pods to serve: the client of the CNI agent's ZDS socket.
//!
//! - [`roster`]: which pods are served, and what a request changes; pure.
//! - [`request`]: what the agent asks for, from packets.
//! - `netns`: which network namespace a descriptor names.

pub mod roster;

pub mod request;

pub(crate) mod netns;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::zds::workload_response::Payload;
use proto::zds::{Ack, Version, WorkloadResponse, ZdsHello};
use runtime::readiness::{self, Readiness};
use tokio::time::{self, Instant};

pub use self::netns::NetnsId;
pub use self::request::{Pod, Request};
use self::roster::{ProtocolError, Roster, Step};
use crate::packet::{self, Socket};

/// Pods that could not be served are tried again this often.
const RETRY: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LAST_BACKOFF: Duration = Duration::from_secs(15);

/// What readiness waits for.
const TASK: &str = "workload proxy manager";

/// Whoever serves pods.
pub trait Proxies {
    /// Serves a pod; returns when its sockets listen.
    fn add(&self, pod: &Pod) -> impl Future<Output = Result<(), NotServed>>;

    /// Stops serving a pod.
    fn remove(&self, uid: &Arc<str>) -> impl Future<Output = ()>;

    /// Hears which pods can't be served for now.
    fn pending(&self, pods: Vec<Pod>);

    /// Whether another process serves pods until this one is ready.
    fn takes_over(&self) -> impl Future<Output = bool>;
}

/// Why a pod is not served, and whether this process is not ready without it: where another one
/// serves until then and can't serve it either, nobody gains by waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotServed {
    pub reason: String,
    pub holds_up: bool,
}

/// Follows the agent for as long as the process runs.
pub struct Client<P> {
    path: PathBuf,
    proxies: P,
    roster: Roster,
    readiness: Readiness,
    /// Held while not ready.
    open: Option<readiness::Task>,
    retry: Duration,
    retry_at: Option<Instant>,
}

/// Why a connection to the agent ended.
enum Ended {
    /// Another connection may do better.
    Connection(String),
    /// The agent and this process don't agree on the protocol.
    Protocol(ProtocolError),
}

// === impl Client ===

impl<P: Proxies> Client<P> {
    pub fn new(path: PathBuf, proxies: P, readiness: &Readiness) -> Self {
        Self {
            path,
            // Asked before anything depends on it.
            roster: Roster::new(true),
            proxies,
            open: Some(readiness.task(TASK)),
            readiness: readiness.clone(),
            retry: RETRY,
            retry_at: None,
        }
    }

    /// Connects, and again after each end. Returns only when going on would be wrong.
    pub async fn run(&mut self) -> ProtocolError {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let reason = match Socket::connect(&self.path) {
                Ok(socket) => {
                    let started = Instant::now();
                    match self.follow(&socket).await {
                        Ended::Protocol(error) => return error,
                        Ended::Connection(reason) => {
                            if started.elapsed() > LAST_BACKOFF {
                                backoff = FIRST_BACKOFF;
                            }
                            reason
                        }
                    }
                }
                Err(error) => format!("cannot connect: {error}"),
            };
            self.roster.disconnected();
            self.update_readiness();
            tracing::warn!(
                socket = %self.path.display(), reason, retry_in = ?backoff,
                "no connection to the CNI agent"
            );
            time::sleep(backoff).await;
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
    }

    pub fn into_proxies(self) -> P {
        self.proxies
    }

    async fn follow(&mut self, socket: &Socket) -> Ended {
        let hello = ZdsHello {
            version: Version::V1.into(),
        };
        if let Err(error) = socket.send(&hello).await {
            return Ended::Connection(format!("cannot say hello: {error}"));
        }
        tracing::info!(socket = %self.path.display(), "connected to the CNI agent");
        self.roster.connected();
        loop {
            let retry_at = self.retry_at;
            let packet = tokio::select! {
                packet = socket.receive() => packet,
                () = sleep_until(retry_at) => {
                    self.retry().await;
                    continue;
                }
            };
            let request = match packet {
                Ok(Some(packet)) => Request::decode(packet),
                Ok(None) => return Ended::Connection("the agent closed the connection".to_owned()),
                Err(error) => return Ended::Connection(error.to_string()),
            };
            let request = match request {
                Ok(request) => request,
                Err(error) => {
                    let reason = error.to_string();
                    return match (
                        error.is_protocol_violation(),
                        acknowledge(socket, &reason).await,
                    ) {
                        (true, _) => Ended::Protocol(ProtocolError::MissingWorkloadInfo),
                        (false, _) => Ended::Connection(reason),
                    };
                }
            };
            tracing::debug!(?request, "request of the CNI agent");
            let completes = matches!(request, Request::SnapshotSent);
            if completes && !self.proxies.takes_over().await {
                self.roster.took_over();
            }
            let step = match self.roster.request(request) {
                Ok(step) => step,
                Err(error) => {
                    // The connection ends in any case, with or without the agent knowing why.
                    let _ = acknowledge(socket, &error.to_string()).await;
                    return Ended::Protocol(error);
                }
            };
            if completes {
                self.name_missing();
            }
            let error = self.take(step).await;
            self.update_readiness();
            if let Err(error) = acknowledge(socket, &error).await {
                return Ended::Connection(format!("cannot acknowledge: {error}"));
            }
        }
    }

    /// Does what a request asks for; the answer is the error's text or nothing.
    async fn take(&mut self, step: Step) -> String {
        match step {
            Step::Nothing => String::new(),
            Step::Start(pod) => self.start(pod).await,
            Step::Replace(pod) => {
                self.stop(&pod.spec.uid.clone()).await;
                self.start(pod).await
            }
            Step::Stop(uids) => {
                for uid in &uids {
                    self.stop(uid).await;
                }
                String::new()
            }
        }
    }

    async fn start(&mut self, pod: Pod) -> String {
        let result = self.proxies.add(&pod).await;
        let info = &pod.spec.info;
        let (name, namespace) = (&*info.name, &*info.namespace);
        match &result {
            Ok(()) => {
                metrics::counter!("workload_manager_proxies_started_total").increment(1);
                tracing::info!(name, namespace, uid = &*pod.spec.uid, "pod captured");
            }
            Err(NotServed { reason, holds_up }) => {
                tracing::warn!(
                    name,
                    namespace,
                    uid = &*pod.spec.uid,
                    error = reason,
                    holds_up,
                    "cannot serve pod"
                );
            }
        }
        self.roster.started(pod, &result);
        result
            .err()
            .map(|not_served| not_served.reason)
            .unwrap_or_default()
    }

    fn name_missing(&self) {
        for uid in self.roster.missing() {
            tracing::warn!(
                uid = &**uid,
                "this process does not serve a pod that the CNI agent wants kept and does not hand over"
            );
        }
    }

    async fn stop(&mut self, uid: &Arc<str>) {
        self.proxies.remove(uid).await;
        metrics::counter!("workload_manager_proxies_stopped_total").increment(1);
        tracing::info!(uid = &**uid, "pod released");
    }

    async fn retry(&mut self) {
        for pod in self.roster.pending() {
            // Its failure is logged and tried again.
            let _ = self.start(pod).await;
        }
        self.retry_at = None;
        self.update_readiness();
    }

    fn update_readiness(&mut self) {
        let (active, pending) = self.roster.counts();
        metrics::gauge!("workload_manager_active_proxy_count").set(active as f64);
        let unserved = pending + self.roster.missing().len();
        metrics::gauge!("workload_manager_pending_proxy_count").set(unserved as f64);
        self.proxies.pending(self.roster.pending());
        self.retry_at = match (pending, self.retry_at) {
            (0, _) => None,
            (_, Some(at)) => Some(at),
            (_, None) => Some(Instant::now() + self.retry),
        };
        self.open = match (self.roster.is_ready(), self.open.take()) {
            (true, _) => None,
            (false, Some(task)) => Some(task),
            (false, None) => Some(self.readiness.task(TASK)),
        };
    }
}

async fn acknowledge(socket: &Socket, error: &str) -> io::Result<()> {
    socket
        .send(&WorkloadResponse {
            payload: Some(Payload::Ack(Ack {
                error: packet::fitting(error).to_owned(),
            })),
        })
        .await
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
