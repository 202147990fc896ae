//! The threads of the data path, and how pods come to them and go.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use runtime::drain::{self, Mode};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time;

use super::Shared;
use super::pods::{Pod, PodSpec};
use super::worker::{Command, Worker};

/// Handles of all workers. Dropping it cuts everything.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    drain: drain::Trigger,
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
        let uid = spec.uid.clone();
        let pod = Arc::new(Pod::new(spec, &self.shared.config));
        for thread in &self.threads {
            if let Err(error) = thread.add_pod(pod.clone()).await {
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

    /// Stops accepting, tells peers to go elsewhere, waits for what runs until the
    /// deadline, and then cuts it.
    pub async fn drain(self, deadline: Duration) {
        self.drain.signal(Mode::Graceful);
        if time::timeout(deadline, self.drain.drained()).await.is_err() {
            tracing::info!("connections are cut at the drain's deadline");
        }
        for thread in self.threads {
            drop(thread.commands);
            // A worker only ends its loop, so this is a matter of moments.
            let _ = tokio::task::spawn_blocking(move || thread.handle.join()).await;
        }
    }
}

// === impl Thread ===

impl Thread {
    fn start(index: usize, shared: Arc<Shared>, drain: drain::Watch) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let local = LocalSet::new();
                local.block_on(&runtime, async move {
                    let worker = Rc::new(Worker::new(shared));
                    worker.run(receiver, drain).await;
                });
            })?;
        Ok(Self { commands, handle })
    }

    async fn add_pod(&self, pod: Arc<Pod>) -> io::Result<()> {
        let gone = || io::Error::other("the worker has ended");
        let (answer, answered) = oneshot::channel();
        self.commands
            .send(Command::AddPod(pod, answer))
            .map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}
