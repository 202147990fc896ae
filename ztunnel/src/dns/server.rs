//! One pod's DNS server: UDP and TCP on the loopback addresses of its network namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use runtime::{descriptors, vital};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time;

use super::answer::{self, Decision, Received, Setting};
use super::cache::Cache;
use super::log::{self, Outcome, Question, Turned, Via};
use super::upstream::Origin;
use super::{Config, DnsPod, Shared};
use crate::handover::Port;
use crate::handover::inherited::{Gate, Inherited};
use crate::inpod::NetnsId;
use crate::proxy::{netns, sockets};

/// Questions of one pod that wait for nameservers at most; what is more fails at once.
const WAITING: usize = 512;
/// TCP connections of one pod at most, besides those that wait for nameservers.
const CONNECTIONS: usize = 64;
/// A TCP client must ask, and take its answer, within so long.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the nameservers have where an answer is known that was right a while ago (RFC 8767 §5).
const STALE_PATIENCE: Duration = Duration::from_millis(1800);
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
    udp: Vec<Arc<Listening<UdpSocket>>>,
    tcp: Vec<Arc<Listening<TcpListener>>>,
    _tasks: JoinSet<()>,
}

struct Listening<S> {
    socket: S,
    /// Whether a successor has the same queue.
    lent: AtomicBool,
}

/// What every question of the pod needs.
struct Served {
    shared: Arc<Shared>,
    pod: DnsPod,
    cache: Mutex<Cache>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// When it was last said that questions are turned away.
    told: Mutex<Option<Instant>>,
}

/// What becomes of a question as soon as it is read.
enum Asked {
    Answered(Message),
    Waits(Waiting),
}

/// A question that only nameservers can answer, or whose pod the mesh has not told of. No other takes
/// time, and so no other needs a place: however many wait in vain, the mesh's own names are answered.
struct Waiting {
    question: Question,
    awaits: Awaits,
    via: Via,
    _of_pod: OwnedSemaphorePermit,
    _of_node: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Nameservers,
    /// Who asks.
    Workload,
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
            waiting: Arc::new(Semaphore::new(WAITING)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            told: Mutex::default(),
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
        let udp: Vec<_> = self.udp.into_iter().map(Listening::new).collect();
        let tcp: Vec<_> = self.tcp.into_iter().map(Listening::new).collect();
        for socket in &udp {
            let (pod, socket, mut gate) = (self.pod.clone(), socket.clone(), self.gate.clone());
            let serving = async move {
                gate.opened().await;
                serve_udp(pod, socket).await;
            };
            tasks.spawn(vital::task("dns over udp", serving));
        }
        for listener in &tcp {
            let (pod, listener, mut gate) = (self.pod.clone(), listener.clone(), self.gate.clone());
            let serving = async move {
                gate.opened().await;
                serve_tcp(pod, listener).await;
            };
            tasks.spawn(vital::task("dns over tcp", serving));
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
            Port::Tcp(port) if port == number => self.tcp.iter().map(|one| one.lend()).collect(),
            Port::Udp(port) if port == number => self.udp.iter().map(|one| one.lend()).collect(),
            Port::Tcp(_) | Port::Udp(_) => return Vec::new(),
        };
        sockets.into_iter().filter_map(Result::ok).collect()
    }

    pub(super) fn take_back(&self) {
        let tcp = self.tcp.iter().map(|one| &one.lent);
        let all = tcp.chain(self.udp.iter().map(|one| &one.lent));
        all.for_each(|lent| lent.store(false, Ordering::Relaxed));
    }

    /// Closes the sockets as soon as what was asked is answered.
    pub(super) fn let_go(&mut self) {
        self.udp.clear();
        self.tcp.clear();
    }
}

// === impl Listening ===

impl<S> Listening<S> {
    fn new(socket: S) -> Arc<Self> {
        let lent = AtomicBool::new(false);
        Arc::new(Self { socket, lent })
    }

    fn is_lent(&self) -> bool {
        self.lent.load(Ordering::Relaxed)
    }
}

impl<S: AsFd> Listening<S> {
    fn lend(&self) -> io::Result<OwnedFd> {
        let duplicate = self.socket.as_fd().try_clone_to_owned()?;
        self.lent.store(true, Ordering::Relaxed);
        Ok(duplicate)
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

async fn serve_udp(pod: Arc<Served>, socket: Arc<Listening<UdpSocket>>) {
    // Questions end with their socket.
    let mut questions = JoinSet::new();
    let mut buffer = vec![0; LARGEST_QUESTION];
    let mut handed_over = pod.shared.handed_over.subscribe();
    loop {
        while questions.try_join_next().is_some() {}
        let received = tokio::select! {
            received = socket.socket.recv_from(&mut buffer) => received,
            _ = handed_over.wait_for(|handed_over| *handed_over) => break,
        };
        match received {
            Ok((length, client)) => pod.hear(&socket, &buffer[..length], client, &mut questions),
            Err(error) => {
                // An earlier answer met a closed port, or memory is short.
                tracing::debug!(%error, "DNS socket");
                time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    if !socket.is_lent() {
        // More would not be answered, and others may come without end.
        for _ in 0..WAITING {
            let Ok((length, client)) = socket.socket.try_recv_from(&mut buffer) else {
                break;
            };
            pod.hear(&socket, &buffer[..length], client, &mut questions);
        }
    }
    while questions.join_next().await.is_some() {}
}

/// A client that is gone, or takes no more, asks again, or not.
fn send(socket: &UdpSocket, client: SocketAddr, question: Option<&Message>, answer: &Message) {
    if let Some(bytes) = answer::udp_bytes(question, answer) {
        let _ = socket.try_send_to(&bytes, client);
    }
}

async fn serve_tcp(pod: Arc<Served>, listener: Arc<Listening<TcpListener>>) {
    let mut connections = JoinSet::new();
    let mut handed_over = pod.shared.handed_over.subscribe();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            _ = handed_over.wait_for(|handed_over| *handed_over) => break,
        };
        match accepted {
            Ok((stream, _)) => pod.admit(stream, &mut connections),
            Err(error) => {
                tracing::debug!(%error, "DNS listener");
                time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    if !listener.is_lent() {
        for (stream, _) in sockets::waiting(&listener.socket) {
            pod.admit(stream, &mut connections);
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    pod: &Arc<Served>,
    mut stream: TcpStream,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    let mut permit = Some(permit);
    loop {
        let packet = time::timeout(TCP_TIMEOUT, read_packet(&mut stream)).await??;
        let answer = match answer::receive(&packet) {
            Received::Ignore => return Ok(()),
            Received::Refuse(refusal) => refusal,
            Received::Question(message) => match pod.ask(&message, Via::Tcp) {
                Asked::Answered(answer) => answer,
                Asked::Waits(waiting) => {
                    // It has a place of another kind now: others come in to ask for the mesh's names.
                    permit = None;
                    pod.answer_later(&message, waiting).await
                }
            },
        };
        let bytes = answer.to_vec().map_err(io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        let packet = [&length.to_be_bytes()[..], &bytes].concat();
        time::timeout(TCP_TIMEOUT, stream.write_all(&packet)).await??;
        if permit.is_none() {
            let again = pod.connections.clone().try_acquire_owned();
            permit = Some(again.map_err(io::Error::other)?);
        }
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
    /// Answers a datagram, if it is a question. Should one panic, it only concerns this client: no pod is to
    /// end the process, nor its own server, by what it asks.
    fn hear(
        self: &Arc<Self>,
        socket: &Arc<Listening<UdpSocket>>,
        datagram: &[u8],
        client: SocketAddr,
        questions: &mut JoinSet<()>,
    ) {
        let hearing = || self.hear_question(socket, datagram, client, questions);
        if catch_unwind(AssertUnwindSafe(hearing)).is_err() {
            tracing::error!(
                pod = &*self.pod.spec.info.name,
                "a DNS question has panicked"
            );
        }
    }

    fn hear_question(
        self: &Arc<Self>,
        socket: &Arc<Listening<UdpSocket>>,
        datagram: &[u8],
        client: SocketAddr,
        questions: &mut JoinSet<()>,
    ) {
        let message = match answer::receive(datagram) {
            Received::Ignore => return,
            Received::Refuse(refusal) => return send(&socket.socket, client, None, &refusal),
            Received::Question(message) => message,
        };
        let waiting = match self.ask(&message, Via::Udp) {
            Asked::Answered(answer) => {
                return send(&socket.socket, client, Some(&message), &answer);
            }
            Asked::Waits(waiting) => waiting,
        };
        let (pod, socket) = (self.clone(), socket.clone());
        questions.spawn(async move {
            let answer = pod.answer_later(&message, waiting).await;
            send(&socket.socket, client, Some(&message), &answer);
        });
    }

    /// Serves a connection, unless the pod has too many, or only reserved descriptors are left.
    fn admit(self: &Arc<Self>, stream: TcpStream, connections: &mut JoinSet<()>) {
        if descriptors::is_reserved(&stream) {
            return self.turn_away(Turned::Connection);
        }
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            return self.turn_away(Turned::Connection);
        };
        let pod = self.clone();
        connections.spawn(async move {
            // However it ends, it only concerns this client.
            let _ = serve_connection(&pod, stream, permit).await;
        });
    }

    /// Answers a question, where that takes no nameserver.
    fn ask(&self, message: &Message, via: Via) -> Asked {
        let shared = &self.shared;
        let snapshot = shared.state.load();
        let client = self.pod.workload(&shared.config.node, &snapshot);
        let question = Question::new(message, via, client, &self.pod.spec.info);
        let Some(client) = client else {
            return match self.place(question, Awaits::Workload, via) {
                Ok(waiting) => Asked::Waits(waiting),
                Err(question) => Asked::Answered(unknown_client(message, &question)),
            };
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
                Asked::Answered(answer)
            }
            Decision::Forward => self.ask_others(message, question, via),
        }
    }

    /// What is kept of a question that is not the mesh's, or a place to wait for an answer.
    fn ask_others(&self, message: &Message, question: Question, via: Via) -> Asked {
        if let Some(cached) = self.cache().answer(message, Instant::now()) {
            question.answered(Outcome::Cached(&cached));
            return Asked::Answered(answer::relayed(message, &cached));
        }
        if let Some(stale) = self.cache().rested(message, Instant::now()) {
            question.answered(Outcome::Stale(&stale));
            return Asked::Answered(answer::relayed(message, &stale));
        }
        match self.place(question, Awaits::Nameservers, via) {
            Ok(waiting) => Asked::Waits(waiting),
            Err(question) => {
                Asked::Answered(self.without_nameserver(message, &question, "too many wait"))
            }
        }
    }

    /// A place to wait for an answer, unless too many wait.
    fn place(&self, question: Question, awaits: Awaits, via: Via) -> Result<Waiting, Question> {
        let of_pod = self.waiting.clone().try_acquire_owned();
        let of_node = self.shared.waiting.clone().try_acquire_owned();
        let turned = match (of_pod, of_node) {
            (Ok(of_pod), Ok(of_node)) => {
                return Ok(Waiting {
                    question,
                    awaits,
                    via,
                    _of_pod: of_pod,
                    _of_node: of_node,
                });
            }
            (Err(_), _) => Turned::Pod,
            (Ok(_), Err(_)) => Turned::Node,
        };
        self.turn_away(turned);
        Err(question)
    }

    /// Answers once what the question waits for is here, or when that has taken too long.
    async fn answer_later(self: &Arc<Self>, message: &Message, waiting: Waiting) -> Message {
        match waiting.awaits {
            Awaits::Nameservers => self.forward(message, waiting).await,
            Awaits::Workload => self.answer_when_known(message, waiting).await,
        }
    }

    /// An application is started when its pod is captured, and may ask before the mesh has said who
    /// it is.
    async fn answer_when_known(self: &Arc<Self>, message: &Message, waiting: Waiting) -> Message {
        let shared = &self.shared;
        let mut changes = shared.state.changes();
        let known = async {
            while self
                .pod
                .workload(&shared.config.node, &shared.state.load())
                .is_none()
            {
                // A state that nobody changes any more tells nothing new.
                if changes.changed().await.is_err() {
                    std::future::pending().await
                }
            }
        };
        if time::timeout(shared.config.workload_wait, known)
            .await
            .is_err()
        {
            return unknown_client(message, &waiting.question);
        }
        let via = waiting.via;
        drop(waiting);
        match self.ask(message, via) {
            Asked::Answered(answer) => answer,
            Asked::Waits(waiting) if waiting.awaits == Awaits::Nameservers => {
                self.forward(message, waiting).await
            }
            // Gone again.
            Asked::Waits(waiting) => unknown_client(message, &waiting.question),
        }
    }

    /// Answers with what nameservers say. Where something is known that was right a while ago, that
    /// is said after a moment; they go on being asked, so that the next one hears of it.
    async fn forward(self: &Arc<Self>, message: &Message, waiting: Waiting) -> Message {
        let waiting = Arc::new(waiting);
        let asking = self
            .clone()
            .ask_nameservers(message.clone(), waiting.clone());
        let has_stale = self.cache().stale(message, Instant::now()).is_some();
        let result = match has_stale {
            false => asking.await,
            true => match time::timeout(STALE_PATIENCE, tokio::spawn(asking)).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) | Err(_) => {
                    self.cache().failed(message, Instant::now());
                    Err("no nameserver has answered in time".into())
                }
            },
        };
        result.unwrap_or_else(|why| self.without_nameserver(message, &waiting.question, &why))
    }

    /// What nameservers say and is worth more than what was right a while ago, or why there is none.
    async fn ask_nameservers(
        self: Arc<Self>,
        message: Message,
        waiting: Arc<Waiting>,
    ) -> Result<Message, String> {
        let origin = Origin {
            netns: self.pod.spec.netns.as_deref(),
            packet_mark: self.shared.config.packet_mark,
        };
        let asked = Instant::now();
        let result = self.shared.nameservers.ask(&message, origin).await;
        waiting.question.forwarded(asked.elapsed(), result.is_ok());
        let now = Instant::now();
        let mut cache = self.cache();
        match result {
            Ok(upstream)
                if answer::is_failure(&upstream) && cache.stale(&message, now).is_some() =>
            {
                cache.failed(&message, now);
                Err(upstream.metadata.response_code.to_string())
            }
            Ok(upstream) => {
                cache.store(&message, &upstream, now);
                waiting.question.answered(Outcome::Upstream(&upstream));
                Ok(answer::relayed(&message, &upstream))
            }
            Err(error) => {
                cache.failed(&message, now);
                Err(error.to_string())
            }
        }
    }

    /// What was right a while ago, where that is known: better than nothing.
    fn without_nameserver(&self, message: &Message, question: &Question, why: &str) -> Message {
        match self.cache().stale(message, Instant::now()) {
            Some(stale) => {
                question.answered(Outcome::Stale(&stale));
                answer::relayed(message, &stale)
            }
            None => {
                question.answered(Outcome::Failed(why));
                answer::respond(message, ResponseCode::ServFail)
            }
        }
    }

    fn turn_away(&self, turned: Turned) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        log::turned_away(turned, &self.pod.spec.info, &mut told, Instant::now());
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown_client(message: &Message, question: &Question) -> Message {
    question.answered(Outcome::UnknownClient);
    answer::respond(message, ResponseCode::ServFail)
}
