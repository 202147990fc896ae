//! The DNS proxy: answers a pod's questions about the mesh, and passes on the rest as the pod.
//!
//! All of it runs on a thread of its own, so that neither a burst of questions nor a slow
//! nameserver holds up connections or the control plane.
//!
//! - [`answer`]: which questions are ours, and the messages that answer them; pure.
//! - `server`: a pod's listeners.
//! - `upstream`: asking the nameservers.
//! - [`cache`]: what they answered, while it lasts; pure.
//! - `log`: metrics and log lines.

pub mod answer;

pub mod cache;

mod server;

mod upstream;

mod log;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh::snapshot::Snapshot;
use mesh::workload::Workload;
use runtime::{allocator, vital};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use self::server::{PodServer, Serving};
use self::upstream::Nameservers;
use crate::handover::Port;
use crate::handover::inherited::Inherited;
use crate::inpod::NetnsId;
use crate::local::LocalNode;
use crate::proxy::PodSpec;
use crate::proxy::state::State;

pub use self::log::UPSTREAM_DURATION_BUCKETS;

/// Questions that wait for nameservers at most, of all pods.
const WAITING: usize = 4096;

/// A resolver that has heard nothing asks again after five seconds: it is answered before.
pub const WORKLOAD_WAIT: Duration = Duration::from_secs(3);

/// What the proxy is told.
#[derive(Clone, Debug)]
pub struct Config {
    pub port: u16,
    pub node: LocalNode,
    pub cluster_domain: Arc<str>,
    /// Answers AAAA, and listens on ::1.
    pub ipv6: bool,
    /// SO_MARK of every socket.
    pub packet_mark: Option<u32>,
    /// Whether another process may listen on the same ports while it takes over.
    pub port_reuse: bool,
    /// Names the nameservers.
    pub resolv_conf: PathBuf,
    /// How long a pod that the mesh has not told of yet waits for its answers.
    pub workload_wait: Duration,
}

/// What all pods' servers share.
struct Shared {
    config: Config,
    state: Arc<State>,
    nameservers: Nameservers,
    waiting: Arc<Semaphore>,
    /// Whether a successor takes the questions from here on.
    handed_over: watch::Sender<bool>,
}

/// A pod's own part of an answer.
#[derive(Clone, Debug)]
pub struct DnsPod {
    pub spec: PodSpec,
    /// None: what Kubernetes gives by default.
    pub search_domains: Arc<[String]>,
}

/// A handle on the proxy's thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct DnsProxy {
    commands: mpsc::UnboundedSender<Command>,
}

#[derive(Debug)]
enum Command {
    Add(DnsPod, Inherited, oneshot::Sender<io::Result<()>>),
    Remove(Arc<str>),
    /// Duplicates of a pod's sockets.
    Lend(Arc<str>, NetnsId, Port, oneshot::Sender<Vec<OwnedFd>>),
    /// Whoever had duplicates is gone.
    TakeBack,
    HandOver,
}

// === impl DnsProxy ===

impl DnsProxy {
    /// Starts the thread; it serves no pod yet.
    pub fn start(config: Config, state: Arc<State>) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            nameservers: Nameservers::new(config.resolv_conf.clone()),
            config,
            state,
            waiting: Arc::new(Semaphore::new(WAITING)),
            handed_over: watch::Sender::new(false),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        vital::thread("dns".to_owned(), move || {
            runtime.spawn(allocator::tidy_up());
            runtime.block_on(run(receiver, shared));
        })?;
        Ok(Self { commands })
    }

    /// Answers a pod; returns when its sockets listen.
    pub async fn add_pod(&self, pod: DnsPod) -> io::Result<()> {
        self.add_pod_with(pod, Inherited::none()).await
    }

    /// The same, on a predecessor's sockets where it has handed some over.
    pub async fn add_pod_with(&self, pod: DnsPod, inherited: Inherited) -> io::Result<()> {
        let gone = || io::Error::other("the DNS proxy has ended");
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::Add(pod, inherited, answer))
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    pub fn remove_pod(&self, uid: &Arc<str>) {
        // A proxy that is gone serves nobody.
        let _ = self.commands.send(Command::Remove(uid.clone()));
    }

    /// Duplicates of the sockets on which a pod's port is listened to.
    pub async fn lend(&self, uid: &Arc<str>, netns: NetnsId, port: Port) -> Vec<OwnedFd> {
        let (answer, answered) = oneshot::channel();
        let lend = Command::Lend(uid.clone(), netns, port, answer);
        match self.commands.send(lend) {
            Ok(()) => answered.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// Whoever had duplicates is gone, and the queues are this process's alone.
    pub fn take_back(&self) {
        // A proxy that is gone serves nobody.
        let _ = self.commands.send(Command::TakeBack);
    }

    /// Takes no more questions, and answers those it has.
    pub fn hand_over(&self) {
        let _ = self.commands.send(Command::HandOver);
    }
}

async fn run(mut commands: mpsc::UnboundedReceiver<Command>, shared: Arc<Shared>) {
    // Dropping a pod's tasks closes its sockets.
    let mut pods: HashMap<Arc<str>, Serving> = HashMap::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Add(pod, inherited, answer) => {
                let uid = pod.spec.uid.clone();
                let served = PodServer::bind(shared.clone(), pod, inherited);
                let result = served.map(PodServer::spawn).map(|serving| {
                    pods.insert(uid, serving);
                });
                // Whoever asked may have given up.
                let _ = answer.send(result);
            }
            Command::Remove(uid) => {
                pods.remove(&uid);
            }
            Command::Lend(uid, netns, port, answer) => {
                let serving = pods.get(&uid);
                let lent = serving.map(|serving| serving.lend(netns, port));
                let _ = answer.send(lent.unwrap_or_default());
            }
            Command::TakeBack => pods.values().for_each(Serving::take_back),
            Command::HandOver => {
                shared.handed_over.send_replace(true);
                // Whoever binds the port anew must not share it with a socket that nobody reads.
                pods.values_mut().for_each(Serving::let_go);
            }
        }
    }
}

// === impl DnsPod ===

impl DnsPod {
    /// The pod as the mesh knows it.
    fn workload<'a>(&self, node: &LocalNode, snapshot: &'a Snapshot) -> Option<&'a Arc<Workload>> {
        match self.spec.netns {
            Some(_) => node.pod(snapshot, &self.spec.info),
            // A dedicated proxy's workload need not be a pod.
            None => node.workload(snapshot, &self.spec.info),
        }
    }
}

#[cfg(test)]
mod tests;
