//! The threads of the data path, and how pods come to them and go.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use mesh::identity::Identity;
use runtime::drain::{self, Mode};
use runtime::{allocator, vital};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::Shared;
use super::config::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, SOCKS5_PORT};
use super::pods::{Pod, PodSpec, WorkloadInfo};
use super::worker::{Command, Worker};
use crate::handover::inherited::Inherited;
use crate::inpod::NetnsId;

/// Handles of all workers. Dropping it cuts everything.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    drain: drain::Trigger,
}

/// What the workers listen on. It does not keep them running.
#[derive(Clone)]
pub struct Listeners {
    shared: Arc<Shared>,
    threads: Vec<mpsc::WeakUnboundedSender<Command>>,
}

struct Thread {
    commands: mpsc::UnboundedSender<Command>,
    handle: JoinHandle<()>,
}

// === impl Workers ===

impl Workers {
    /// Starts `count` threads that serve no pod yet.
    pub fn start(count: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (drain, _) = drain::channel();
        let threads = (0..count.max(1))
            .map(|index| Thread::start(index, shared.clone(), drain.watch()))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            shared,
            threads,
            drain,
        })
    }

    /// Listens for a pod on every worker. Where one of them can't, none does.
    pub async fn add_pod(&self, spec: PodSpec) -> io::Result<()> {
        self.add_pod_with(spec, Inherited::none()).await
    }

    /// The same, on a predecessor's sockets where it has handed some over.
    pub async fn add_pod_with(&self, spec: PodSpec, inherited: Inherited) -> io::Result<()> {
        let uid = spec.uid.clone();
        let pod = Arc::new(Pod::new(spec, &self.shared.config));
        let shares = inherited.shares(self.threads.len())?;
        for (thread, share) in self.threads.iter().zip(shares) {
            if let Err(error) = thread.add_pod(pod.clone(), share).await {
                self.forget(&uid);
                return Err(error);
            }
        }
        pod.all_listen();
        self.shared.pods.insert(pod);
        Ok(())
    }

    /// Stops accepting for a pod; what is established runs to its own end.
    pub fn remove_pod(&self, uid: &str) {
        self.shared.pods.remove(uid);
        self.forget(uid);
    }

    fn forget(&self, uid: &str) {
        for thread in &self.threads {
            // A worker that is gone has forgotten everything.
            let _ = thread.commands.send(Command::RemovePod(uid.into()));
        }
    }

    /// For a successor to ask.
    pub fn listeners(&self) -> Listeners {
        let threads = self.threads.iter();
        Listeners {
            shared: self.shared.clone(),
            threads: threads.map(|thread| thread.commands.downgrade()).collect(),
        }
    }

    /// Which pods can't be served for now, for dumps.
    pub fn set_pending(&self, pods: Vec<(Arc<str>, WorkloadInfo)>) {
        self.shared.pods.set_pending(pods);
    }

    /// Who a pod here is, as far as the mesh has told.
    pub fn identity(&self, uid: &str) -> Option<Identity> {
        let pod = self.shared.pods.get(uid)?;
        pod.known_identity(&self.shared.state.snapshot(), &self.shared.config)
    }

    /// The ports of each pod that are listened to.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let socks5 = self.shared.config.socks5.then_some(SOCKS5_PORT);
        let always = [OUTBOUND_PORT, PLAINTEXT_PORT, HBONE_PORT];
        always.into_iter().chain(socks5)
    }

    /// Whoever waits in the queues of what was lent is left to a successor.
    pub fn hand_over(&self) {
        self.shared.handed_over.store(true, Ordering::Release);
    }

    /// Accepts nothing more, and tells peers to go elsewhere.
    pub fn stop_accepting(&self) {
        self.drain.signal(Mode::Graceful);
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.shared.connections.count()
    }

    /// Stops accepting, tells peers to go elsewhere, waits for what runs until it has
    /// ended or `expired`, and then cuts it. How many connections it cut.
    pub async fn drain(self, expired: impl Future<Output = ()>) -> usize {
        self.stop_accepting();
        let cut = tokio::select! {
            () = self.drain.drained() => 0,
            () = expired => self.report_cut(),
        };
        for thread in self.threads {
            drop(thread.commands);
            // A worker only ends its loop, so this is a matter of moments.
            let _ = tokio::task::spawn_blocking(move || thread.handle.join()).await;
        }
        cut
    }

    /// Says what is about to be cut: one line a pod, each connection has its own in the access log.
    fn report_cut(&self) -> usize {
        let cut = self.connections();
        for (uid, connections) in self.shared.connections.by_pod() {
            let pod = self.shared.pods.get(&uid);
            let (inbound, outbound) = (connections.inbound.len(), connections.outbound.len());
            tracing::warn!(
                name = pod.as_ref().map(|pod| &*pod.info.name),
                namespace = pod.as_ref().map(|pod| &*pod.info.namespace),
                uid = &*uid,
                inbound,
                outbound,
                "connections are cut at the drain's deadline"
            );
        }
        metrics::counter!("weft_drain_connections_cut_total").increment(cut as u64);
        cut
    }
}

// === impl Listeners ===

impl Listeners {
    /// Duplicates of the sockets on which a port of a pod is listened to, by all workers.
    pub async fn lend(&self, uid: &Arc<str>, netns: NetnsId, port: u16) -> Vec<OwnedFd> {
        let pod = self.shared.pods.get(uid);
        let own = pod.and_then(|pod| NetnsId::of(pod.netns.as_deref()).ok());
        if own != Some(netns) {
            return Vec::new();
        }
        let mut all = Vec::new();
        for thread in &self.threads {
            let Some(commands) = thread.upgrade() else {
                continue;
            };
            let (answer, answered) = oneshot::channel();
            if commands
                .send(Command::Lend(uid.clone(), port, answer))
                .is_ok()
            {
                all.extend(answered.await.unwrap_or_default());
            }
        }
        all
    }

    /// Whoever had duplicates is gone, and the queues are this process's alone.
    pub fn take_back(&self) {
        for commands in self.threads.iter().filter_map(|thread| thread.upgrade()) {
            // A worker that has ended listens to nothing.
            let _ = commands.send(Command::TakeBack);
        }
    }
}

// === impl Thread ===

impl Thread {
    fn start(index: usize, shared: Arc<Shared>, drain: drain::Watch) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = vital::thread(format!("worker-{index}"), move || {
            let local = LocalSet::new();
            local.spawn_local(allocator::tidy_up());
            local.block_on(&runtime, async move {
                let worker = Rc::new(Worker::new(shared));
                worker.run(receiver, drain).await;
            });
        })?;
        Ok(Self { commands, handle })
    }

    async fn add_pod(&self, pod: Arc<Pod>, inherited: Inherited) -> io::Result<()> {
        let gone = || io::Error::other("the worker has ended");
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::AddPod(pod, inherited, answer))
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
