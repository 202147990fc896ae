//! The agent's side of ZDS: tells every connected ztunnel which pods it carries, and hands over
//! their network namespaces.
//!
//! The server remembers all pods. A ztunnel that connects gets them one by one, then the word that
//! this was all of them. Later pods go to the newest connection only, since older ones belong to a
//! ztunnel that is being replaced; removals go to all.

mod connection;
mod packet;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::zds::WorkloadInfo;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use connection::{Order, Request};
use packet::{Listener, PacketSocket};

/// Time for one packet to leave, and for its answer to come.
const DEADLINE: Duration = Duration::from_secs(5);
/// At most five connections a second: a ztunnel that fails on connect must not keep the node busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The listening socket and every connection; dropping it closes them and removes the socket file.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    path: PathBuf,
    _tasks: JoinSet<()>,
}

/// What became of a pod on its way to ztunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The newest ztunnel has acknowledged the pod.
    Done,
    /// Sent; the answer is due.
    Offered,
    Pending {
        reason: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    #[error("no such pod")]
    Pod,
}

/// A connected ztunnel, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: Option<i32>,
    /// It has acknowledged the snapshot.
    pub synced: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    pods: BTreeMap<String, Entry>,
    /// Oldest first.
    connections: Vec<Connection>,
    next_connection: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    info: WorkloadInfo,
    /// Missing where the namespace of a known pod could not be opened.
    netns: Option<Arc<OwnedFd>>,
    delivery: Delivery,
}

#[derive(Debug)]
struct Connection {
    number: u64,
    peer: Peer,
    orders: mpsc::UnboundedSender<Order>,
}

// === impl Server ===

impl Server {
    /// Listens on `path`, taking the place of a socket that a dead agent left there.
    ///
    /// Must be called inside a Tokio runtime.
    pub fn bind(path: &Path) -> io::Result<Server> {
        let listener = Listener::bind(path)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared.clone()));
        Ok(Server {
            shared,
            path: path.to_owned(),
            _tasks: tasks,
        })
    }

    /// Remembers the pod and gives it to the newest ztunnel. Repeating it is harmless.
    pub async fn add(
        &self,
        uid: &str,
        info: WorkloadInfo,
        netns: Option<Arc<OwnedFd>>,
    ) -> Delivery {
        let entry = Entry {
            info,
            netns,
            delivery: Delivery::waiting(),
        };
        self.shared.state().pods.insert(uid.to_owned(), entry);
        self.deliver(uid)
            .await
            .unwrap_or_else(|Unknown::Pod| Delivery::pending("the pod was removed meanwhile"))
    }

    /// Gives a remembered pod to the newest ztunnel again.
    pub async fn deliver(&self, uid: &str) -> Result<Delivery, Unknown> {
        let answer = {
            let mut state = self.shared.state();
            let State {
                pods, connections, ..
            } = &mut *state;
            let entry = pods.get_mut(uid).ok_or(Unknown::Pod)?;
            let offered = match (connections.last(), entry.live(uid)) {
                (Some(connection), Some(request)) => connection.order(request),
                (None, _) => Err(Delivery::waiting()),
                (_, None) => Err(Delivery::pending(
                    "its network namespace could not be opened",
                )),
            };
            match offered {
                Ok(answer) => {
                    entry.delivery = Delivery::Offered;
                    answer
                }
                Err(pending) => {
                    entry.delivery = pending.clone();
                    drop(state);
                    self.shared.changed.send_replace(());
                    return Ok(pending);
                }
            }
        };
        // The connection notes the answer itself, in case nobody waits here any more.
        Ok(match answer.await {
            Ok(Ok(())) => Delivery::Done,
            Ok(Err(reason)) => Delivery::Pending { reason },
            Err(_) => Delivery::disconnected(),
        })
    }

    /// Forgets the pod and takes it from every ztunnel; a ztunnel that does not answer is cut off
    /// and learns it from the next snapshot.
    pub async fn del(&self, uid: &str) {
        let answers: Vec<_> = {
            let mut state = self.shared.state();
            if state.pods.remove(uid).is_none() {
                return;
            }
            state
                .connections
                .iter()
                .filter_map(|connection| connection.order(Request::del(uid)).ok())
                .collect()
        };
        for answer in answers {
            if let Ok(Err(reason)) = answer.await {
                tracing::warn!(uid, reason, "ztunnel did not take the pod's removal");
            }
        }
        self.shared.changed.send_replace(());
    }

    pub fn delivery(&self, uid: &str) -> Option<Delivery> {
        let state = self.shared.state();
        state.pods.get(uid).map(|entry| entry.delivery.clone())
    }

    /// Connected ztunnels, the newest last.
    pub fn peers(&self) -> Vec<Peer> {
        let state = self.shared.state();
        let peers = state.connections.iter();
        peers.map(|connection| connection.peer.clone()).collect()
    }

    /// Marks every change of deliveries and connections.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A missing file is what we want.
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: Listener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok(socket) => {
                connections.spawn(serve(socket, shared.clone()));
            }
            Err(error) => tracing::warn!(%error, "cannot accept a ztunnel"),
        }
        while connections.try_join_next().is_some() {}
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

/// One ztunnel, from its hello to its end.
async fn serve(socket: PacketSocket, shared: Arc<Shared>) {
    let pid = socket.peer_pid();
    if let Err(error) = connection::hello(&socket).await {
        tracing::warn!(pid, %error, "refused a connection that does not speak ZDS");
        return;
    }
    let (number, snapshot, orders) = shared.connected(pid);
    tracing::info!(pid, pods = snapshot.len(), "ztunnel connected");
    let _registered = Registration {
        shared: shared.clone(),
        number,
    };
    let ended = connection::run(&socket, snapshot, orders, |event| match event {
        connection::Event::Delivered(uid, delivery) => shared.delivered(&uid, delivery),
        connection::Event::Synced => shared.synced(number),
    })
    .await;
    tracing::info!(pid, reason = %ended, "ztunnel disconnected");
}

/// Takes the connection from the list when its task ends, however it ends.
struct Registration {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.shared.disconnected(self.number);
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete in itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The snapshot and the queue are taken together: a pod is in one of them, never in neither.
    fn connected(
        &self,
        pid: Option<i32>,
    ) -> (u64, Vec<(String, Request)>, mpsc::UnboundedReceiver<Order>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let mut state = self.state();
        let number = state.next_connection;
        state.next_connection += 1;
        let peer = Peer { pid, synced: false };
        state.connections.push(Connection {
            number,
            peer,
            orders: tx,
        });
        let snapshot = state
            .pods
            .iter()
            .map(|(uid, entry)| (uid.clone(), entry.known(uid)))
            .collect();
        (number, snapshot, rx)
    }

    fn disconnected(&self, number: u64) {
        let mut state = self.state();
        let State {
            pods, connections, ..
        } = &mut *state;
        let newest = connections.last().is_some_and(|one| one.number == number);
        connections.retain(|one| one.number != number);
        for entry in pods.values_mut() {
            if entry.delivery == Delivery::Offered {
                entry.delivery = Delivery::disconnected();
            }
        }
        // A successor that is gone may have been given pods that its predecessor, which serves
        // on, has never heard of. Those it knows it takes without doing anything.
        if let (true, Some(former)) = (newest, connections.last()) {
            for (uid, entry) in pods.iter_mut() {
                let offered = entry.live(uid).map(|request| former.order(request));
                if let Some(Ok(_)) = offered {
                    entry.delivery = Delivery::Offered;
                }
            }
        }
        drop(state);
        self.changed.send_replace(());
    }

    fn synced(&self, number: u64) {
        for connection in &mut self.state().connections {
            if connection.number == number {
                connection.peer.synced = true;
            }
        }
        self.changed.send_replace(());
    }

    fn delivered(&self, uid: &str, delivery: Delivery) {
        if let Some(entry) = self.state().pods.get_mut(uid) {
            entry.delivery = delivery;
        }
        self.changed.send_replace(());
    }
}

// === impl Entry ===

impl Entry {
    /// Within a snapshot: a pod without its namespace is only to be kept.
    fn known(&self, uid: &str) -> Request {
        self.live(uid).unwrap_or_else(|| Request::keep(uid))
    }

    fn live(&self, uid: &str) -> Option<Request> {
        let netns = self.netns.clone()?;
        Some(Request::add(uid, self.info.clone(), netns))
    }
}

// === impl Connection ===

impl Connection {
    fn order(&self, request: Request) -> Result<oneshot::Receiver<Result<(), String>>, Delivery> {
        let (answer, rx) = oneshot::channel();
        match self.orders.send(Order { request, answer }) {
            Ok(()) => Ok(rx),
            Err(_) => Err(Delivery::pending("ztunnel is disconnecting")),
        }
    }
}

// === impl Delivery ===

impl Delivery {
    fn pending(reason: &str) -> Delivery {
        Delivery::Pending {
            reason: reason.to_owned(),
        }
    }

    fn disconnected() -> Delivery {
        Delivery::pending("ztunnel disconnected before it acknowledged")
    }

    fn waiting() -> Delivery {
        Delivery::pending("no ztunnel is connected on this node")
    }
}

#[cfg(test)]
mod tests;
