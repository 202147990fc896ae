//! The node's agent: captures pods and hands them to ztunnel, and keeps it so.
//!
//! A pod is captured before ztunnel hears of it, so between the two its connections are refused
//! rather than sent in clear. Once enrolled it stays so until it is released: a pod that ztunnel
//! does not take is pending, and is offered again until it does; rules that someone in the pod
//! changed are put back.

mod telemetry;

mod watch_over;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::zds::WorkloadInfo;
use runtime::conntrack::Usage;
use runtime::metrics::{Exposition, Kind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use crate::apply::{self, Seen};
use crate::connections;
use crate::netns;
use crate::rules::Options;
use crate::zds_server::{Delivery, Peer, Server};

/// How long what a pod has sent before its end may be on its way.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// A pod to be enrolled.
#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub service_account: String,
    /// Search domains of the pod's own resolver, in order.
    pub search_domains: Vec<String>,
    /// How it is captured at first.
    pub options: Options,
}

/// What `ambient.istio.io/redirection` says about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// Captured, and ztunnel has acknowledged it.
    Enabled,
    /// Captured, and not yet with ztunnel: its connections are refused meanwhile.
    Pending { reason: String },
}

#[derive(Clone, Debug)]
pub struct Status {
    /// The newest last. Without any, new pods stay pending.
    pub ztunnels: Vec<Peer>,
    pub pods: Vec<PodStatus>,
}

#[derive(Clone, Debug)]
pub struct PodStatus {
    pub uid: String,
    pub name: String,
    pub namespace: String,
    pub enrolment: Enrolment,
    /// The last time its rules were found changed: what differed, and whether that was repaired.
    pub drift: Option<String>,
    /// How full its connection tracking is, where the kernel tells.
    pub tracking: Option<Usage>,
}

/// Enrols the pods of one node; dropping it stops its tasks and leaves pods as they are.
#[derive(Debug)]
pub struct Agent {
    inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    server: Server,
    pods: Mutex<BTreeMap<String, Arc<Enrolled>>>,
    changes: telemetry::Changes,
}

/// A pod that is, or is about to be, captured.
#[derive(Debug)]
struct Enrolled {
    pod: Pod,
    netns: Arc<OwnedFd>,
    /// Held while its rules are written, so that a repair can't overtake a release.
    rules: tokio::sync::Mutex<Rules>,
    drift: Mutex<Option<String>>,
}

#[derive(Debug)]
enum Rules {
    Capture { options: Options, seen: Seen },
    Release,
}

// === impl Agent ===

impl Agent {
    /// Listens for ztunnel on `socket`. Must be called inside a Tokio runtime.
    pub fn new(socket: &Path) -> io::Result<Agent> {
        let inner = Arc::new(Inner {
            server: Server::bind(socket)?,
            pods: Mutex::default(),
            changes: telemetry::Changes::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_over::offer_pending(inner.clone()));
        tasks.spawn(watch_over::repair_rules(inner.clone()));
        Ok(Agent {
            inner,
            _tasks: tasks,
        })
    }

    /// Captures the pod, then offers it to ztunnel. Repeating it is harmless.
    ///
    /// An error means that the pod is not captured. A pod that is captured and not acknowledged
    /// is pending; it is offered again until it is acknowledged or unenrolled, and
    /// [`Agent::changed`] tells when that changes.
    pub async fn enrol(&self, pod: Pod, netns: OwnedFd) -> Result<Enrolment, apply::Error> {
        let uid = pod.uid.clone();
        let info = pod.workload_info();
        let rules = Rules::Capture {
            options: pod.options.clone(),
            seen: Seen::default(),
        };
        let enrolled = Arc::new(Enrolled {
            pod,
            netns: Arc::new(netns),
            rules: tokio::sync::Mutex::new(rules),
            drift: Mutex::default(),
        });
        let former = self.inner.pods().insert(uid.clone(), enrolled.clone());
        if let Some(former) = former {
            // A repair under way for the former entry must not write older options over ours.
            *former.rules.lock().await = Rules::Release;
        }
        let state = enrolled.rules.lock().await;
        if let Rules::Capture { options, .. } = &*state
            && let Err(error) = enrolled.capture(options).await
        {
            self.inner.forget(&uid, &enrolled);
            return Err(error);
        }
        drop(state);
        if !self.inner.holds(&uid, &enrolled) {
            return Ok(Enrolment::Pending {
                reason: "the pod was removed meanwhile".into(),
            });
        }
        let netns = enrolled.netns.clone();
        let delivery = self.inner.server.add(&uid, info, Some(netns)).await;
        if !self.inner.knows(&uid) {
            // Unenrolled between the two steps: ztunnel must not keep what nobody will withdraw.
            self.inner.server.del(&uid).await;
        }
        Ok(delivery.into())
    }

    /// Captures an enrolled pod in another way from now on, in one step: new connections go by the
    /// new options, open ones stay as they are.
    pub async fn adjust(&self, uid: &str, options: Options) -> Result<(), apply::Error> {
        let Some(enrolled) = self.inner.pods().get(uid).cloned() else {
            return Ok(());
        };
        let mut rules = enrolled.rules.lock().await;
        match &*rules {
            Rules::Capture { options: now, .. } if *now != options => {}
            Rules::Capture { .. } | Rules::Release => return Ok(()),
        }
        enrolled.capture(&options).await?;
        *rules = Rules::Capture {
            options,
            seen: Seen::default(),
        };
        Ok(())
    }

    /// Releases a pod that lives on: new connections pass untouched, those that ztunnel carries
    /// keep their translation, and ztunnel is told to let go. Repeating it is harmless.
    ///
    /// Ordering with the control plane is the caller's: first it withdraws the pod's annotation,
    /// so that peers stop to expect HBONE there.
    pub async fn unenrol(&self, uid: &str) {
        let Some(enrolled) = self.inner.pods().remove(uid) else {
            return;
        };
        let mut state = enrolled.rules.lock().await;
        *state = Rules::Release;
        if let Err(error) = apply::release(&enrolled.netns).await {
            // The pod may be on its way out, which must not keep it with ztunnel.
            tracing::warn!(uid, %error, "cannot release the pod's rules");
        }
        drop(state);
        self.inner.server.del(uid).await;
    }

    /// Lets go of a pod whose processes are gone, while its namespace is still connected: what they
    /// have said last may arrive, and then all that ztunnel has open there is cut, also of a pod that
    /// has been released. Nobody would tell the peers later.
    pub async fn forget(&self, uid: &str, netns: impl AsFd) {
        self.inner.pods().remove(uid);
        self.inner.server.del(uid).await;
        match connections::end(netns, LAST_WORDS).await {
            Ok(cut) => tracing::debug!(uid, cut, "cut the connections of a pod that is gone"),
            Err(error) => {
                tracing::warn!(uid, %error, "cannot tell the peers of a pod that it is gone");
            }
        }
    }

    pub fn enrolment(&self, uid: &str) -> Option<Enrolment> {
        self.inner.server.delivery(uid).map(Enrolment::from)
    }

    pub fn ztunnel_connected(&self) -> bool {
        !self.inner.server.peers().is_empty()
    }

    pub fn status(&self) -> Status {
        let pods = self
            .inner
            .all()
            .into_iter()
            .map(|enrolled| self.inner.pod_status(&enrolled))
            .collect();
        Status {
            ztunnels: self.inner.server.peers(),
            pods,
        }
    }

    /// Adds to what a scraper is told.
    pub fn collector(&self) -> impl Fn(&mut Exposition) + Send + Sync + use<> {
        let inner = self.inner.clone();
        move |exposition| {
            let connected = u8::from(!inner.server.peers().is_empty());
            exposition
                .family(
                    "ztunnel_connected",
                    Kind::Gauge,
                    "Ztunnels of this node that are there",
                )
                .sample(&[], connected);
            inner.changes.collect(exposition);
        }
    }

    /// Marks every change of an enrolment or of the connected ztunnels.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.inner.server.changed()
    }
}

// === impl Inner ===

impl Inner {
    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Enrolled>>> {
        // Every change under the lock is a single insertion or removal.
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Arc<Enrolled>> {
        self.pods().values().cloned().collect()
    }

    fn knows(&self, uid: &str) -> bool {
        self.pods().contains_key(uid)
    }

    /// Whether the pod is still this very enrolment.
    fn holds(&self, uid: &str, enrolled: &Arc<Enrolled>) -> bool {
        self.pods()
            .get(uid)
            .is_some_and(|current| Arc::ptr_eq(current, enrolled))
    }

    fn forget(&self, uid: &str, enrolled: &Arc<Enrolled>) {
        let mut pods = self.pods();
        if pods
            .get(uid)
            .is_some_and(|current| Arc::ptr_eq(current, enrolled))
        {
            pods.remove(uid);
        }
    }

    fn pod_status(&self, enrolled: &Enrolled) -> PodStatus {
        let pod = &enrolled.pod;
        let enrolment = match self.server.delivery(&pod.uid) {
            Some(delivery) => delivery.into(),
            None => Enrolment::Pending {
                reason: "its rules are being written".into(),
            },
        };
        PodStatus {
            uid: pod.uid.clone(),
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            enrolment,
            drift: enrolled.drift().clone(),
            tracking: netns::run_blocking(&*enrolled.netns, Usage::here)
                .ok()
                .flatten(),
        }
    }
}

// === impl Enrolled ===

impl Enrolled {
    /// Says of which pod, where it has something to say.
    async fn capture(&self, options: &Options) -> Result<(), apply::Error> {
        let Pod { uid, name, .. } = &self.pod;
        apply::capture(&self.netns, options)
            .instrument(tracing::info_span!("capture", uid, pod = name))
            .await
    }

    fn drift(&self) -> MutexGuard<'_, Option<String>> {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pod ===

impl Pod {
    fn workload_info(&self) -> WorkloadInfo {
        WorkloadInfo {
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            search_domains: self.search_domains.clone(),
        }
    }
}

// === impl Enrolment ===

impl From<Delivery> for Enrolment {
    fn from(delivery: Delivery) -> Enrolment {
        match delivery {
            Delivery::Done => Enrolment::Enabled,
            Delivery::Offered => Enrolment::Pending {
                reason: "ztunnel has not answered yet".into(),
            },
            Delivery::Pending { reason } => Enrolment::Pending { reason },
        }
    }
}

#[cfg(test)]
mod tests;
