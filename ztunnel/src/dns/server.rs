//! One pod's DNS server: UDP and TCP on the loopback addresses of its network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time;

use super::answer::{self, Decision, Received, Setting};
use super::cache::Cache;
use super::log::{Outcome, Question, Via};
use super::upstream::Origin;
use super::{Config, DnsPod, Shared};
use crate::handover::Port;
use crate::handover::inherited::{Gate, Inherited};
use crate::inpod::NetnsId;
use crate::proxy::netns;

/// Questions of one pod in progress at most; more are dropped, and clients ask again.
const IN_PROGRESS: usize = 512;
/// TCP connections of one pod at most.
const CONNECTIONS: usize = 64;
/// A TCP client must ask, and take its answer, within so long.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
const BACKLOG: i32 = 128;
/// Nobody's question is longer; larger packets are cut and then don't parse.
const LARGEST_QUESTION: usize = 4096;

pub(super) struct PodServer {
    pod: Arc<Served>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    gate: Gate,
}

/// A pod being served: dropping it closes its sockets.
pub(super) struct Serving {
    pod: Arc<Served>,
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<Arc<TcpListener>>,
    _tasks: JoinSet<()>,
}

/// What every question of the pod needs.
struct Served {
    shared: Arc<Shared>,
    pod: DnsPod,
    cache: Mutex<Cache>,
    in_progress: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

// === impl PodServer ===

impl PodServer {
    pub(super) fn bind(
        shared: Arc<Shared>,
        pod: DnsPod,
        mut inherited: Inherited,
    ) -> io::Result<Self> {
        let port = shared.config.port;
        let mut addresses = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        if shared.config.ipv6 {
            addresses.push(Ipv6Addr::LOCALHOST.into());
        }
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        for socket in inherited.udp(port) {
            udp.push(UdpSocket::from_std(socket)?);
        }
        for listener in inherited.tcp(port) {
            tcp.push(TcpListener::from_std(listener)?);
        }
        let gate = match udp.is_empty() || tcp.is_empty() {
            true => Gate::open(),
            false => {
                // Both families, or as many as the pod has.
                addresses.clear();
                inherited.gate()
            }
        };
        for address in addresses {
            let address = SocketAddr::new(address, port);
            let bound = netns::within(pod.spec.netns.as_deref(), || {
                let datagrams = bind(address, Type::DGRAM, &shared.config)?;
                let connections = bind(address, Type::STREAM, &shared.config)?;
                connections.listen(BACKLOG)?;
                Ok((datagrams, connections))
            });
            match bound {
                Ok((datagrams, connections)) => {
                    udp.push(UdpSocket::from_std(datagrams.into())?);
                    tcp.push(TcpListener::from_std(connections.into())?);
                }
                // A kernel without IPv6, or a pod whose loopback has none.
                Err(error)
                    if address.is_ipv6()
                        && matches!(
                            error.raw_os_error(),
                            Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                        ) => {}
                Err(error) => {
                    let text = format!("cannot serve DNS on {address}: {error}");
                    return Err(io::Error::new(error.kind(), text));
                }
            }
        }
        let pod = Arc::new(Served {
            shared,
            pod,
            cache: Mutex::default(),
            in_progress: Arc::new(Semaphore::new(IN_PROGRESS)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        Ok(Self {
            pod,
            udp,
            tcp,
            gate,
        })
    }

    pub(super) fn spawn(self) -> Serving {
        let mut tasks = JoinSet::new();
        let udp: Vec<_> = self.udp.into_iter().map(Arc::new).collect();
        let tcp: Vec<_> = self.tcp.into_iter().map(Arc::new).collect();
        for socket in &udp {
            let (pod, socket, mut gate) = (self.pod.clone(), socket.clone(), self.gate.clone());
            tasks.spawn(async move {
                gate.opened().await;
                serve_udp(pod, socket).await;
            });
        }
        for listener in &tcp {
            let (pod, listener, mut gate) = (self.pod.clone(), listener.clone(), self.gate.clone());
            tasks.spawn(async move {
                gate.opened().await;
                serve_tcp(pod, listener).await;
            });
        }
        Serving {
            pod: self.pod,
            udp,
            tcp,
            _tasks: tasks,
        }
    }
}

// === impl Serving ===

impl Serving {
    /// Duplicates of the sockets of one port, where the pod is still in that namespace.
    pub(super) fn lend(&self, netns: NetnsId, port: Port) -> Vec<OwnedFd> {
        let own = NetnsId::of(self.pod.pod.spec.netns.as_deref());
        let number = self.pod.shared.config.port;
        if !own.is_ok_and(|own| own == netns) {
            return Vec::new();
        }
        let sockets: Vec<_> = match port {
            Port::Tcp(port) if port == number => self.tcp.iter().map(|one| one.as_fd()).collect(),
            Port::Udp(port) if port == number => self.udp.iter().map(|one| one.as_fd()).collect(),
            Port::Tcp(_) | Port::Udp(_) => return Vec::new(),
        };
        let duplicates = sockets.iter().map(|fd| fd.try_clone_to_owned());
        duplicates.filter_map(Result::ok).collect()
    }

    /// Closes the sockets as soon as what was asked is answered.
    pub(super) fn let_go(&mut self) {
        self.udp.clear();
        self.tcp.clear();
    }
}

fn bind(address: SocketAddr, kind: Type, config: &Config) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The next process listens too while it takes over.
    socket.set_reuse_port(config.port_reuse)?;
    socket.set_reuse_address(kind == Type::STREAM)?;
    if let Some(packet_mark) = config.packet_mark {
        socket.set_mark(packet_mark)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn serve_udp(pod: Arc<Served>, socket: Arc<UdpSocket>) {
    // Questions end with their socket.
    let mut questions = JoinSet::new();
    let mut buffer = vec![0; LARGEST_QUESTION];
    let mut handed_over = pod.shared.handed_over.subscribe();
    loop {
        while questions.try_join_next().is_some() {}
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            _ = handed_over.wait_for(|handed_over| *handed_over) => break,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                // An earlier answer met a closed port, or memory is short.
                tracing::debug!(%error, "DNS socket");
                time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        let message = match answer::receive(&buffer[..length]) {
            Received::Ignore => continue,
            Received::Refuse(refusal) => {
                if let Some(bytes) = answer::udp_bytes(None, &refusal) {
                    let _ = socket.try_send_to(&bytes, client);
                }
                continue;
            }
            Received::Question(message) => message,
        };
        let Some(permits) = pod.permits() else {
            continue;
        };
        let (pod, socket) = (pod.clone(), socket.clone());
        questions.spawn(async move {
            let answer = pod.resolve(&message, Via::Udp).await;
            if let Some(bytes) = answer::udp_bytes(Some(&message), &answer) {
                // A client that is gone asks again, or not.
                let _ = socket.send_to(&bytes, client).await;
            }
            drop(permits);
        });
    }
    while questions.join_next().await.is_some() {}
}

async fn serve_tcp(pod: Arc<Served>, listener: Arc<TcpListener>) {
    let mut connections = JoinSet::new();
    let mut handed_over = pod.shared.handed_over.subscribe();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = handed_over.wait_for(|handed_over| *handed_over) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "DNS listener");
                time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok(permit) = pod.connections.clone().try_acquire_owned() else {
            continue;
        };
        let pod = pod.clone();
        connections.spawn(async move {
            // However it ends, it only concerns this client.
            let _ = serve_connection(&pod, stream).await;
            drop(permit);
        });
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(pod: &Served, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let packet = time::timeout(TCP_TIMEOUT, read_packet(&mut stream)).await??;
        let answer = match answer::receive(&packet) {
            Received::Ignore => return Ok(()),
            Received::Refuse(refusal) => refusal,
            Received::Question(message) => {
                let Some(_permits) = pod.permits() else {
                    return Ok(());
                };
                pod.resolve(&message, Via::Tcp).await
            }
        };
        let bytes = answer.to_vec().map_err(io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let packet = [&length.to_be_bytes()[..], &bytes].concat();
        time::timeout(TCP_TIMEOUT, stream.write_all(&packet)).await??;
    }
}

async fn read_packet(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut packet = vec![0; length.into()];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

// === impl Served ===

impl Served {
    /// Leave to work on a question; none when there are too many.
    fn permits(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let own = self.in_progress.clone().try_acquire_owned().ok()?;
        let all = self.shared.in_progress.clone().try_acquire_owned().ok()?;
        Some((own, all))
    }

    async fn resolve(&self, message: &Message, via: Via) -> Message {
        let shared = &self.shared;
        let snapshot = shared.state.snapshot();
        let client = self.pod.workload(&shared.config.node, &snapshot);
        let question = Question::new(message, via, client, &self.pod.spec.info);
        let Some(client) = client else {
            question.answered(Outcome::UnknownClient);
            return answer::respond(message, ResponseCode::ServFail);
        };
        let setting = Setting {
            cluster_domain: &shared.config.cluster_domain,
            search_domains: &self.pod.search_domains,
            ipv6: shared.config.ipv6,
        };
        let decision = answer::decide(&snapshot, client, setting, message, &mut rand::rng());
        match decision {
            Decision::Answer(answer) => {
                question.answered(Outcome::Mesh(&answer));
                answer
            }
            Decision::Forward => {
                // The snapshot must not outlive a slow nameserver's patience.
                drop(snapshot);
                self.forward(message, &question).await
            }
        }
    }

    async fn forward(&self, message: &Message, question: &Question) -> Message {
        if let Some(cached) = self.cache().answer(message, Instant::now()) {
            question.answered(Outcome::Cached(&cached));
            return answer::relayed(message, &cached);
        }
        let origin = Origin {
            netns: self.pod.spec.netns.as_deref(),
            packet_mark: self.shared.config.packet_mark,
        };
        let asked = Instant::now();
        let result = self.shared.nameservers.ask(message, origin).await;
        question.forwarded(asked.elapsed(), result.is_ok());
        match result {
            Ok(upstream) => {
                self.cache().store(message, &upstream, Instant::now());
                question.answered(Outcome::Upstream(&upstream));
                answer::relayed(message, &upstream)
            }
            Err(error) => {
                question.answered(Outcome::Failed(&error.to_string()));
                answer::respond(message, ResponseCode::ServFail)
            }
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
