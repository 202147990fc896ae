//! One thread of the data path: its listeners, its tunnels, its policies.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hbone::client::Tunnel;
use hbone::copy;
use hbone::pool::{Key, Pool};
use identity::WorkloadCertificate;
use identity::revocation::Untracked;
use mesh::address::NetworkAddress;
use mesh::balancing::{Ejections, Observed};
use mesh::identity::Identity;
use mesh::snapshot::Snapshot;
use mesh::workload::Workload;
use metrics::{Gauge, counter, gauge};
use runtime::descriptors;
use runtime::drain::Watch;
use runtime::memory::{self, Pressure};
use runtime::tasks::spawn_local;
use runtime::vital;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use super::Shared;
use super::access_log::Direction;
use super::config::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, SOCKS5_PORT};
use super::described::Described;
use super::names::Names;
use super::plans::Plans;
use super::pods::{Pod, Served};
use super::policy::Policies;
use super::sockets::{self, Kind};
use super::{inbound, outbound, plaintext, socks5};
use crate::handover::inherited::{Gate, Inherited};
use crate::metrics::Reporter;
use crate::metrics::shortages::{self, Wanted};

/// How long nothing is accepted while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(crate) enum Command {
    AddPod(Arc<Pod>, Inherited, oneshot::Sender<io::Result<()>>),
    RemovePod(Arc<str>),
    /// Duplicates of the sockets on which a pod's port is listened to.
    Lend(Arc<str>, u16, oneshot::Sender<Vec<OwnedFd>>),
    /// Whoever had duplicates is gone.
    TakeBack,
}

/// What the connections of one thread share.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    pub(crate) policies: Rc<Policies>,
    pub(crate) names: Names,
    pub(crate) described: Described,
    pub(crate) plans: Plans,
    open_sockets: OpenSockets,
    listening: RefCell<HashMap<Arc<str>, Listening>>,
}

/// Whether who a tunnel reaches still has its address.
fn is_still_there(snapshot: &Snapshot, key: &Key) -> bool {
    let address = key.destination.ip();
    key.workload.as_ref().is_none_or(|uid| {
        let workload = snapshot.workload(uid);
        workload.is_some_and(|workload| workload.addresses.contains(&address))
    })
}

/// Waits until there are descriptors again.
async fn pause(direction: Direction) {
    let reporter = reporter(direction);
    shortages::count_pause(reporter);
    let reporter = reporter.as_str();
    tracing::warn!(reporter, "accepting is paused: descriptors are short");
    loop {
        time::sleep(ACCEPT_PAUSE).await;
        if !descriptors::are_short_now() {
            return;
        }
    }
}

/// The accept loops of one pod; they end when this is dropped.
struct Listening {
    listeners: Vec<Rc<Listener>>,
    _stop: Vec<oneshot::Sender<()>>,
}

struct Listener {
    port: u16,
    tcp: TcpListener,
    /// Whether a successor has the same queue.
    lent: Cell<bool>,
}

/// A listener that is accepted from once its gate is open.
struct Opening {
    listener: Rc<Listener>,
    gate: Gate,
}

/// One accepted connection, counted as an open socket while it lasts.
pub(crate) struct Accepted {
    pub(crate) tcp: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) pod: Arc<Pod>,
    /// Held so that a drain waits for the connection.
    pub(crate) drain: Watch,
    pub(crate) _socket: SocketCount,
}

pub(crate) struct SocketCount(Gauge);

/// `istio_tcp_sockets_open` of each reporter.
struct OpenSockets {
    inbound: Gauge,
    outbound: Gauge,
}

// === impl Worker ===

impl Worker {
    /// Must be called on the thread's `LocalSet`.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            pool: Pool::new(shared.config.pool_idle),
            policies: Rc::new(Policies::new(shared.config.policy_info_logging)),
            shared,
            names: Names::default(),
            described: Described::default(),
            plans: Plans::default(),
            open_sockets: OpenSockets::new(),
            listening: RefCell::default(),
        }
    }

    /// Obeys until nobody commands any more; whatever still runs then is cut.
    pub(crate) async fn run(
        self: Rc<Self>,
        mut commands: mpsc::UnboundedReceiver<Command>,
        drain: Watch,
    ) {
        let mut changes = self.shared.state.changes();
        let mut seen = *changes.borrow();
        let mut pressure = memory::changes();
        let mut accepting = Some(drain.clone());
        let mut drained = pin!(async move { drain.clone().signaled().await });
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::AddPod(pod, inherited, answer)) => {
                        let result = match &accepting {
                            Some(drain) => self.add_pod(pod, inherited, drain),
                            None => Err(io::Error::other("draining")),
                        };
                        let _ = answer.send(result);
                    }
                    Some(Command::RemovePod(uid)) => self.remove_pod(&uid),
                    Some(Command::Lend(uid, port, answer)) => {
                        // Whoever asked may have given up.
                        let _ = answer.send(self.lend(&uid, port));
                    }
                    Some(Command::TakeBack) => self.take_back(),
                    None => return,
                },
                Ok(()) = changes.changed() => self.follow(&mut seen),
                Ok(()) = pressure.changed() => {
                    if *pressure.borrow_and_update() >= Pressure::Release {
                        self.pool.release_idle();
                    }
                }
                // From here on only connections hold the drain.
                _ = &mut drained, if accepting.is_some() => {
                    accepting = None;
                    self.listening.borrow_mut().clear();
                }
            }
        }
    }

    /// Takes note of what has changed. What that costs, connections of this thread wait for: it does
    /// not grow with what a change does not concern.
    fn follow(&self, seen: &mut u64) {
        let (snapshot, changed) = self.shared.state.since(seen);
        self.policies.recheck(&snapshot, changed.as_ref());
        self.plans.follow(&snapshot);
        let wanted = |key: &Key| is_still_there(&snapshot, key);
        match &changed {
            Some(changed) => self.pool.retain_into(&changed.workloads, wanted),
            None => self.pool.retain(wanted),
        }
    }

    fn add_pod(
        self: &Rc<Self>,
        pod: Arc<Pod>,
        mut inherited: Inherited,
        drain: &Watch,
    ) -> io::Result<()> {
        let config = &self.shared.config;
        let netns = pod.netns.as_deref();
        let gate = inherited.gate();
        let mut listen = |port, kind| -> io::Result<Vec<Opening>> {
            let inherited = inherited.tcp(port);
            if !inherited.is_empty() {
                let opening = |listener| Opening::new(port, listener, gate.clone());
                return inherited.into_iter().map(opening).collect();
            }
            let open = || match port {
                SOCKS5_PORT => sockets::listen_on_loopback(netns, port, config),
                _ => sockets::listen(netns, port, kind, config),
            };
            let listening = match config.port_reuse {
                true => open(),
                false => pod.listening_once(port, open),
            };
            listening
                .and_then(|listener| Ok(vec![Opening::new(port, listener, Gate::open())?]))
                .map_err(|error| io::Error::new(error.kind(), format!("port {port}: {error}")))
        };
        let tunnels = listen(HBONE_PORT, Kind::Inbound)?;
        let mut captured = |port, kind| match pod.served {
            Served::Everything => listen(port, kind),
            Served::Ports(_) => Ok(Vec::new()),
        };
        let outbound = captured(OUTBOUND_PORT, Kind::Outbound)?;
        let plaintext = captured(PLAINTEXT_PORT, Kind::Inbound)?;
        let socks5 = match config.socks5 {
            true => captured(SOCKS5_PORT, Kind::Outbound)?,
            false => Vec::new(),
        };
        let (mut listeners, mut stop) = (Vec::new(), Vec::new());
        for opening in outbound {
            listeners.push(opening.listener.clone());
            stop.push(self.accept(opening, &pod, drain, Direction::Outbound, outbound::serve));
        }
        for opening in plaintext {
            listeners.push(opening.listener.clone());
            stop.push(self.accept(opening, &pod, drain, Direction::Inbound, plaintext::serve));
        }
        for opening in tunnels {
            listeners.push(opening.listener.clone());
            stop.push(self.accept(opening, &pod, drain, Direction::Inbound, inbound::serve));
        }
        for opening in socks5 {
            listeners.push(opening.listener.clone());
            stop.push(self.accept(opening, &pod, drain, Direction::Outbound, socks5::serve));
        }
        let all = Listening {
            listeners,
            _stop: stop,
        };
        self.listening.borrow_mut().insert(pod.uid.clone(), all);
        Ok(())
    }

    fn lend(&self, uid: &str, port: u16) -> Vec<OwnedFd> {
        let listening = self.listening.borrow();
        let listeners = listening
            .get(uid)
            .into_iter()
            .flat_map(|all| &all.listeners);
        let of_port = listeners.filter(|listener| listener.port == port);
        let lend = |listener: &Rc<Listener>| {
            let duplicate = listener.tcp.as_fd().try_clone_to_owned().ok()?;
            listener.lent.set(true);
            Some(duplicate)
        };
        of_port.filter_map(lend).collect()
    }

    fn take_back(&self) {
        let listening = self.listening.borrow();
        let listeners = listening.values().flat_map(|all| &all.listeners);
        listeners.for_each(|listener| listener.lent.set(false));
    }

    fn remove_pod(&self, uid: &str) {
        self.listening.borrow_mut().remove(uid);
        self.pool.purge(uid);
    }

    fn accept<F>(
        self: &Rc<Self>,
        opening: Opening,
        pod: &Arc<Pod>,
        drain: &Watch,
        direction: Direction,
        serve: impl Fn(Rc<Self>, Accepted) -> F + 'static,
    ) -> oneshot::Sender<()>
    where
        F: Future<Output = ()> + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let Opening { listener, mut gate } = opening;
        let (worker, pod, drain) = (self.clone(), pod.clone(), drain.clone());
        let shared = self.shared.clone();
        let admit = move |tcp: TcpStream, peer| {
            if memory::pressure() >= Pressure::Refuse {
                copy::abort(&tcp);
                // The stages are logged as they come.
                return shortages::count_refusal(reporter(direction), Wanted::Memory);
            }
            sockets::accepted(&tcp, &worker.shared.config);
            let accepted = Accepted {
                tcp,
                peer: sockets::canonical(peer),
                pod: pod.clone(),
                drain: drain.clone(),
                _socket: worker.open_sockets.count(direction),
            };
            spawn_local(serve(worker.clone(), accepted));
        };
        spawn_local(vital::task("accepting", async move {
            tokio::select! {
                () = gate.opened() => {}
                _ = &mut stopped => return,
            }
            loop {
                let accepted = tokio::select! {
                    accepted = listener.tcp.accept() => accepted,
                    _ = &mut stopped => break,
                };
                let short = match accepted {
                    Ok((tcp, peer)) => {
                        let short = descriptors::are_short(&tcp);
                        admit(tcp, peer);
                        short
                    }
                    Err(error) => {
                        tracing::warn!(%error, "can't accept");
                        true
                    }
                };
                // Who comes meanwhile waits in the queue, not for an answer that can't be had.
                if short {
                    pause(direction).await;
                }
            }
            // Who is already in the queue would see a reset, unless a successor has the same queue.
            if shared.handed_over.load(Ordering::Acquire) && listener.lent.get() {
                return;
            }
            for (tcp, peer) in sockets::waiting(&listener.tcp) {
                admit(tcp, peer);
            }
        }));
        stop
    }

    /// What is known of endpoints when one is to be chosen.
    pub(crate) fn observed<'a>(&'a self, ejections: &'a Ejections) -> Observed<'a> {
        Observed {
            ejections: (!ejections.is_empty()).then_some(ejections),
            active: Some(&self.shared.active),
            now: time::Instant::now().into_std(),
        }
    }

    /// Counts a TLS handshake by its key exchange.
    pub(crate) fn count_handshake(&self, group: &'static str, direction: Direction) {
        let reporter = reporter(direction).as_str();
        counter!("weft_tls_handshakes_total", "group" => group, "reporter" => reporter)
            .increment(1);
    }

    /// Counts a peer turned away, or a tunnel cut, because of a revocation list.
    pub(crate) fn count_revocation(&self, direction: Direction) {
        let reporter = reporter(direction).as_str();
        counter!("istio_crl_policy_rejections_total", "reporter" => reporter).increment(1);
    }

    /// What is known of a peer's revocation; a peer that no list can speak of is served, and counted.
    pub(crate) fn tracked<F>(
        &self,
        revocation: Result<Option<F>, Untracked>,
        direction: Direction,
    ) -> Option<F> {
        revocation.unwrap_or_else(|untracked| {
            let reporter = reporter(direction).as_str();
            tracing::warn!(reporter, "{untracked}");
            counter!("istio_crl_untracked_connections_total", "reporter" => reporter).increment(1);
            None
        })
    }

    /// Cuts a tunnel when its peer's certificate is revoked.
    pub(crate) fn cut_when_revoked(
        self: &Rc<Self>,
        certificate: &WorkloadCertificate,
        tunnel: &Tunnel,
    ) {
        let revocation = certificate.revocation_of(tunnel.peer_chain());
        let Some(revoked) = self.tracked(revocation, Direction::Outbound) else {
            return;
        };
        let worker = Rc::downgrade(self);
        tunnel.cut_when(async move {
            revoked.await;
            if let Some(worker) = worker.upgrade() {
                worker.count_revocation(Direction::Outbound);
            }
        });
    }

    /// A valid certificate for `identity`, waited for within the connect timeout.
    pub(crate) async fn certificate(
        &self,
        identity: &Identity,
    ) -> Result<Arc<WorkloadCertificate>, String> {
        let certificates = &self.shared.certificates;
        if let Some(certificate) = certificates.cached(identity)
            && !certificate.is_expired()
        {
            return Ok(certificate);
        }
        let requested = certificates.certificate(identity);
        match Box::pin(time::timeout(self.shared.config.connect_timeout, requested)).await {
            Ok(Ok(certificate)) if certificate.is_expired() => {
                Err(format!("the certificate of {identity} has expired"))
            }
            Ok(Ok(certificate)) => Ok(certificate),
            Ok(Err(reason)) => Err(format!("no certificate for {identity}: {reason}")),
            Err(_) => Err(format!("no certificate for {identity} in time")),
        }
    }

    /// Who the pod is, waited for like the workload that says so.
    pub(crate) async fn identity(&self, pod: &Pod) -> Option<Identity> {
        let known = pod.known_identity(&self.shared.state.load(), &self.shared.config);
        if known.is_some() {
            return known;
        }
        let workload = self.workload(pod).await?;
        Some(pod.identity(&workload))
    }

    /// The pod as the mesh knows it, waited for a little: a pod may start before the
    /// mesh has heard of it.
    pub(crate) async fn workload(&self, pod: &Pod) -> Option<Arc<Workload>> {
        let config = &self.shared.config;
        if let Some(workload) = pod.workload(&self.shared.state.load(), config) {
            return Some(workload);
        }
        let mut changes = self.shared.state.changes();
        let wait = async {
            loop {
                if let Some(workload) = pod.workload(&self.shared.state.load(), config) {
                    return Some(workload);
                }
                changes.changed().await.ok()?;
            }
        };
        Box::pin(time::timeout(config.workload_wait, wait))
            .await
            .ok()?
    }

    /// Whether the address is a pod's or a service's, known or not.
    pub(crate) fn is_of_cluster(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let cidrs = &self.shared.config.cluster_cidrs;
        cidrs.iter().any(|cidr| cidr.contains(&address))
    }

    /// Waits until it is known whose an address of the cluster is, or for as long as may be: names and
    /// addresses of what is new can reach a client before the control plane's word reaches us.
    pub(crate) async fn await_owner(&self, client: &Workload, address: &NetworkAddress) {
        let state = &self.shared.state;
        let mut changes = state.changes();
        let is_known = || {
            let snapshot = state.load();
            snapshot.service_at(address, &client.namespace).is_some()
                || snapshot.workload_at(address).is_some()
        };
        let wait = async { while !is_known() && changes.changed().await.is_ok() {} };
        // Whoever waited in vain finds that out by deciding again.
        let _ = time::timeout(self.shared.config.owner_wait, wait).await;
    }
}

// === impl Opening ===

impl Opening {
    fn new(port: u16, listener: std::net::TcpListener, gate: Gate) -> io::Result<Self> {
        let listener = Listener {
            port,
            tcp: TcpListener::from_std(listener)?,
            lent: Cell::new(false),
        };
        Ok(Self {
            listener: Rc::new(listener),
            gate,
        })
    }
}

// === impl OpenSockets, SocketCount ===

impl OpenSockets {
    fn new() -> Self {
        let of = |direction| {
            let reporter = reporter(direction).as_str();
            gauge!("istio_tcp_sockets_open", "reporter" => reporter)
        };
        Self {
            inbound: of(Direction::Inbound),
            outbound: of(Direction::Outbound),
        }
    }

    fn count(&self, direction: Direction) -> SocketCount {
        let gauge = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        gauge.increment(1);
        SocketCount(gauge.clone())
    }
}

impl Drop for SocketCount {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

pub(crate) fn reporter(direction: Direction) -> Reporter {
    match direction {
        Direction::Inbound => Reporter::Destination,
        Direction::Outbound => Reporter::Source,
    }
}

#[cfg(test)]
mod tests;
