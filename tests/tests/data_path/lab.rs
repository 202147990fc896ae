//! Two proxies in this process, pods as namespaces on one switch, or on a switch for each proxy that
//! nothing routes between; the real redirect rules.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use cni::netns;
use futures::FutureExt;
use futures::future::BoxFuture;
use identity::WorkloadCertificate;
use identity::authority::Signer;
use identity::revocation::{RevocationFile, RevocationLists};
use mesh::identity::Identity;
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::{TunnelProtocol, Workload};
use runtime::confinement::capabilities::{self, Capability};
use tokio::task::{LocalSet, spawn_local};
use ztunnel::metrics::SeriesCache;
use ztunnel::proxy::access_log::{AccessLog, AccessLogRecord, Direction, Event};
use ztunnel::proxy::config::Config;
use ztunnel::proxy::state::State;
use ztunnel::proxy::{Certificates, PodSpec, Served, Shared, Workers, WorkloadInfo};

/// How long anything may take before a test fails: only what hangs takes longer, on a busy machine
/// too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Where pods' applications listen.
pub(crate) const APPLICATION: u16 = 8080;

/// The switches, the pods on them and the two nodes' proxies.
pub(crate) struct Lab {
    /// One for each network.
    switches: Vec<OwnedFd>,
    pods: HashMap<String, LabPod>,
    pub(crate) state: Arc<State>,
    snapshot: Snapshot,
    authority: Arc<Authority>,
    nodes: Vec<Node>,
    runtime: tokio::runtime::Runtime,
}

struct LabPod {
    netns: Arc<OwnedFd>,
    number: u16,
    /// Which switch it is on.
    switch: usize,
}

struct Node {
    workers: Workers,
    shared: Arc<Shared>,
    log: Arc<Log>,
    series: Arc<SeriesCache>,
}

/// Certificates of one CA, made when asked for.
pub(crate) struct Authority {
    signer: Signer,
    made: Mutex<HashMap<Identity, Arc<WorkloadCertificate>>>,
    /// Who gets none.
    withheld: Mutex<Vec<Identity>>,
    revocations: OnceLock<(PathBuf, Arc<RevocationLists>)>,
}

#[derive(Default)]
struct Log(Mutex<Vec<AccessLogRecord>>);

impl AccessLog for Log {
    fn wants(&self, event: Event) -> bool {
        event != Event::Open
    }

    fn write(&self, record: AccessLogRecord) {
        self.0.lock().expect("log").push(record);
    }
}

impl Certificates for Authority {
    fn cached(&self, identity: &Identity) -> Option<Arc<WorkloadCertificate>> {
        let made = self.made.lock().expect("certificates");
        made.get(identity).filter(|one| !one.is_expired()).cloned()
    }

    fn certificate(
        &self,
        identity: &Identity,
    ) -> BoxFuture<'static, Result<Arc<WorkloadCertificate>, String>> {
        let withheld = self.withheld.lock().expect("identities");
        let certificate = match withheld.contains(identity) {
            true => Err("withheld".to_owned()),
            false => Ok(self.of(identity)),
        };
        std::future::ready(certificate).boxed()
    }
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let day = Duration::from_secs(86_400);
        Self {
            signer: Signer::self_signed("test", day, SystemTime::now()).expect("root"),
            made: Mutex::default(),
            withheld: Mutex::default(),
            revocations: OnceLock::new(),
        }
    }

    /// Gives a proxy no certificate of this identity.
    pub(crate) fn withhold(&self, identity: Identity) {
        self.withheld.lock().expect("identities").push(identity);
    }

    /// Writes a list that takes these certificates back.
    fn revoke(&self, path: &Path, revoked: &[Arc<WorkloadCertificate>]) {
        let revoked = revoked.iter().map(|one| one.serial().parse());
        let revoked: Vec<_> = revoked.map(|serial| serial.expect("a number")).collect();
        let hour = Duration::from_secs(3600);
        let list = self
            .signer
            .revocation_list(&revoked, hour, SystemTime::now());
        let next = path.with_extension("next");
        std::fs::write(&next, list.expect("list")).expect("written");
        std::fs::rename(next, path).expect("renamed");
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Makes the certificate of this identity one that ends so soon.
    pub(crate) fn ends_after(&self, identity: &Identity, life: Duration) {
        let made = self
            .signer
            .workload_certificate(identity, life, SystemTime::now());
        let made = Arc::new(made.expect("certificate"));
        let mut all = self.made.lock().expect("certificates");
        all.insert(identity.clone(), made);
    }

    pub(crate) fn of(&self, identity: &Identity) -> Arc<WorkloadCertificate> {
        let mut made = self.made.lock().expect("certificates");
        let make = || {
            let hour = Duration::from_secs(3600);
            let now = SystemTime::now();
            let made = self.signer.workload_certificate(identity, hour, now);
            let made = made.expect("certificate");
            Arc::new(match self.revocations.get() {
                Some((_, lists)) => made.with_revocations(lists.clone()).expect("certificate"),
                None => made,
            })
        };
        made.entry(identity.clone()).or_insert_with(make).clone()
    }
}

// === impl Lab ===

impl Lab {
    pub(crate) fn new() -> Self {
        Self::with(["", ""], |_| {})
    }

    /// A node in each of two networks, which nothing routes between.
    pub(crate) fn of_two_networks() -> Self {
        Self::with(["near", "far"], |_| {})
    }

    /// The nodes are in these networks and configured a little differently than usual.
    pub(crate) fn with(networks: [&str; 2], configure: impl Fn(&mut Config)) -> Self {
        Self::started(networks, configure, |shared| {
            Workers::start(2, shared).expect("workers")
        })
    }

    /// The proxies' threads have only these of root's capabilities, which are each thread's own and
    /// its children's.
    pub(crate) fn with_capabilities(
        kept: &'static [Capability],
        configure: impl Fn(&mut Config),
    ) -> Self {
        Self::started(["", ""], configure, |shared| {
            let confined = thread::spawn(move || {
                capabilities::keep(kept).expect("given up");
                Workers::start(2, shared).expect("workers")
            });
            confined.join().expect("started")
        })
    }

    fn started(
        networks: [&str; 2],
        configure: impl Fn(&mut Config),
        start: impl Fn(Arc<Shared>) -> Workers,
    ) -> Self {
        let count = if networks[0] == networks[1] { 1 } else { 2 };
        let switches = (0..count).map(|_| {
            let switch = netns::create().expect("the right to make network namespaces");
            sh(
                &switch,
                "ip link set lo up && ip link add switch type bridge && ip link set switch up",
            );
            switch
        });
        let switches = switches.collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let state = Arc::new(State::default());
        let authority = Arc::new(Authority::new());
        let nodes = [1, 2].map(|number| {
            let mut config = Config {
                node: format!("node-{number}").into(),
                network: networks[number - 1].into(),
                connect_timeout: Duration::from_secs(2),
                workload_wait: Duration::from_millis(300),
                ..Config::default()
            };
            configure(&mut config);
            let log = Arc::new(Log::default());
            let series = Arc::new(SeriesCache::default());
            let shared = Shared::new(
                config,
                state.clone(),
                authority.clone(),
                log.clone(),
                series.clone(),
            );
            let shared = Arc::new(shared);
            Node {
                workers: start(shared.clone()),
                shared,
                log,
                series,
            }
        });
        Self {
            switches,
            pods: HashMap::new(),
            state,
            snapshot: Snapshot::default(),
            authority,
            nodes: nodes.into(),
            runtime,
        }
    }

    /// A pod that the mesh doesn't capture.
    pub(crate) fn bare_pod(&mut self, name: &str) {
        self.bare_pod_on(name, 1);
    }

    /// A pod in a node's network that the mesh doesn't capture.
    pub(crate) fn bare_pod_on(&mut self, name: &str, node: usize) {
        let number = u16::try_from(self.pods.len()).expect("few pods") + 1;
        let netns = Arc::new(netns::create().expect("namespace"));
        let switch = (node - 1).min(self.switches.len() - 1);
        let net = 44 + switch;
        sh(&netns, "ip link set lo up");
        self.plug(&netns, number, switch);
        sh(
            &netns,
            &format!(
                "ip route add default via 10.{net}.255.254 && ip -6 route add default via fd{net}::ffff"
            ),
        );
        let pod = LabPod {
            netns,
            number,
            switch,
        };
        self.pods.insert(name.into(), pod);
    }

    /// Has a pod in the other network too.
    pub(crate) fn join(&self, name: &str) {
        let pod = &self.pods[name];
        self.plug(&pod.netns, pod.number, 1 - pod.switch);
    }

    fn plug(&self, netns: &OwnedFd, number: u16, switch: usize) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        let (net, eth) = (44 + switch, format!("eth{switch}"));
        sh(
            &self.switches[switch],
            &format!(
                "ip link add pod{number} type veth peer name {eth} netns {path} \
                 && ip link set pod{number} master switch up"
            ),
        );
        sh(
            netns,
            &format!(
                "ip link set {eth} up && ip addr add 10.{net}.0.{number}/16 dev {eth} \
                 && ip -6 addr add fd{net}::{number:x}/64 dev {eth} nodad"
            ),
        );
        // The kernel finishes later what it has acknowledged, and drops packets until then.
        let until = |is_done: &str| format!("until {is_done}; do sleep 0.01; done");
        let carries = |link: &str| format!("ip link show {link} | grep -q 'state UP'");
        let port = carries(&format!("pod{number}"));
        sh(&self.switches[switch], &until(&port));
        let is_done = format!(
            "{} && ip -6 route show table local | grep -q 'fd{net}::{number:x} '",
            carries(&eth)
        );
        sh(netns, &until(&is_done));
    }

    /// A captured pod on a node, known to the mesh, with an application that answers.
    pub(crate) fn pod(&mut self, name: &str, node: usize) {
        self.bare_pod_on(name, node);
        self.publish([Change::Workload(self.workload(name, node))]);
        self.capture(name, node);
        self.serve(name);
    }

    /// Puts the redirect rules into a pod that somebody else serves.
    pub(crate) fn redirect(&self, name: &str) {
        let options = cni::rules::Options {
            dns_capture: false,
            ..cni::rules::Options::default()
        };
        let capturing = cni::apply::capture(&self.pods[name].netns, &options);
        self.runtime.block_on(capturing).expect("rules");
    }

    pub(crate) fn netns(&self, name: &str) -> Arc<OwnedFd> {
        self.pods[name].netns.clone()
    }

    pub(crate) fn capture(&self, name: &str, node: usize) {
        self.attend(name, node).expect("listeners");
        self.redirect(name);
    }

    /// Has a node's proxy listen in a pod.
    pub(crate) fn attend(&self, name: &str, node: usize) -> io::Result<()> {
        let spec = PodSpec {
            uid: name.into(),
            info: WorkloadInfo {
                name: name.into(),
                namespace: "shop".into(),
                service_account: name.into(),
            },
            netns: Some(self.netns(name)),
            served: Served::Everything,
        };
        let workers = &self.nodes[node - 1].workers;
        self.runtime.block_on(workers.add_pod(spec))
    }

    pub(crate) fn release(&self, name: &str, node: usize) {
        let netns = &self.pods[name].netns;
        self.runtime
            .block_on(cni::apply::release(netns))
            .expect("rules");
        self.nodes[node - 1].workers.remove_pod(name);
    }

    /// Drains a node's proxy and tells how long that took, and how many connections it cut.
    pub(crate) fn drain(&mut self, node: usize, deadline: Duration) -> (Duration, usize) {
        let drained = self.nodes.remove(node - 1);
        let started = Instant::now();
        let cut = self.runtime.block_on(async {
            let expired = tokio::time::sleep(deadline);
            drained.workers.drain(expired).await
        });
        (started.elapsed(), cut)
    }

    pub(crate) fn workload(&self, name: &str, node: usize) -> Workload {
        let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
        workload.service_account = name.into();
        workload.workload_name = name.into();
        workload.canonical_name = name.into();
        workload.node = format!("node-{node}").into();
        workload.network = self.nodes[node - 1].shared.config.network.clone();
        workload.tunnel_protocol = TunnelProtocol::Hbone;
        workload.addresses = vec![self.ip(name), self.ip6(name)].into();
        workload
    }

    pub(crate) fn publish(&mut self, changes: impl IntoIterator<Item = Change>) {
        let changed = self.snapshot.apply(changes);
        self.state.publish_changed(self.snapshot.clone(), changed);
    }

    pub(crate) fn ip(&self, name: &str) -> IpAddr {
        self.ip_on(name, self.pods[name].switch)
    }

    /// The address of a pod that is in both networks, in the second of them.
    pub(crate) fn far_ip(&self, name: &str) -> IpAddr {
        self.ip_on(name, 1)
    }

    fn ip_on(&self, name: &str, switch: usize) -> IpAddr {
        let [high, low] = self.pods[name].number.to_be_bytes();
        let net = if switch == 0 { 44 } else { 45 };
        IpAddr::from([10, net, high, low])
    }

    pub(crate) fn ip6(&self, name: &str) -> IpAddr {
        let LabPod { number, switch, .. } = self.pods[name];
        let net = if switch == 0 { 0xfd44 } else { 0xfd45 };
        Ipv6Addr::new(net, 0, 0, 0, 0, 0, 0, number).into()
    }

    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        (self.ip(name), APPLICATION).into()
    }

    /// Has certificates made from here on look their peers up in a file of revocation lists.
    pub(crate) fn keep_revocation_lists(&self, path: PathBuf) {
        let nobody = self
            .authority
            .of(&Identity::new("test", "nobody", "nobody"));
        self.authority.revoke(&path, &[nobody]);
        let file = RevocationFile::open(&path).expect("lists");
        let kept = self.authority.revocations.set((path, file.lists()));
        kept.expect("once");
        self.runtime.spawn(file.follow());
    }

    /// Takes back the certificates of these pods, and only theirs.
    pub(crate) fn revoke(&self, names: &[&str]) {
        let certificate = |name: &&str| {
            self.authority
                .of(&Identity::new("cluster.local", "shop", *name))
        };
        let revoked: Vec<_> = names.iter().map(certificate).collect();
        let (path, _) = self.authority.revocations.get().expect("lists are kept");
        self.authority.revoke(path, &revoked);
    }

    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Runs `job` in a pod's namespace.
    pub(crate) fn within<T: Send>(&self, name: &str, job: impl FnOnce() -> T + Send) -> T {
        netns::run_blocking(&self.pods[name].netns, job).expect("namespace")
    }

    /// Runs `job` in a pod's namespace, for as long as it takes.
    pub(crate) fn spawn_within(&self, name: &str, job: impl FnOnce() + Send + 'static) {
        let netns = self.pods[name].netns.clone();
        thread::spawn(move || netns::run_blocking(&netns, job).expect("namespace"));
    }

    /// Listens in a pod and hands `proxy` each connection, on a thread of its own.
    pub(crate) fn run_proxy<P, F>(
        &self,
        name: &str,
        port: u16,
        proxy: P,
        connection: impl Fn(Rc<P>, tokio::net::TcpStream) -> F + Send + 'static,
    ) where
        P: Send + 'static,
        F: Future<Output = ()> + 'static,
    {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let listener = self.within(name, || TcpListener::bind(any));
        let listener = listener.expect("a free port");
        listener.set_nonblocking(true).expect("socket");
        self.spawn_within(name, move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            LocalSet::new().block_on(&runtime, async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("socket");
                let proxy = Rc::new(proxy);
                while let Ok((tcp, _)) = listener.accept().await {
                    spawn_local(connection(proxy.clone(), tcp));
                }
            });
        });
    }

    /// Runs a shell script in a pod's namespace.
    pub(crate) fn run(&self, name: &str, script: &str) {
        sh(&self.pods[name].netns, script);
    }

    /// The same, and answers what it printed.
    pub(crate) fn ask(&self, name: &str, script: &str) -> String {
        sh(&self.pods[name].netns, script)
    }

    /// An application: it tells the caller's address, then echoes until the end.
    pub(crate) fn serve(&self, name: &str) {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, APPLICATION));
        let listener = self
            .within(name, || TcpListener::bind(any))
            .expect("application");
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(move || answer(stream.expect("accept")));
            }
        });
    }

    /// Opens a connection from a pod and reads who the application says is calling.
    pub(crate) fn call(&self, from: &str, to: SocketAddr) -> io::Result<(TcpStream, IpAddr)> {
        let mut stream = self.dial(from, to)?;
        let caller = greeting(&mut stream)?;
        Ok((stream, caller))
    }

    /// Opens a connection from a pod: its own tunnel has taken it, and maybe nobody else yet.
    pub(crate) fn dial(&self, from: &str, to: SocketAddr) -> io::Result<TcpStream> {
        let stream = self.within(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Closes a connection properly and waits until both of its ends are logged.
    pub(crate) fn log_of(
        &self,
        node: usize,
        direction: Direction,
        holds: impl Fn(&AccessLogRecord) -> bool,
    ) -> AccessLogRecord {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.nodes[node - 1].log.0.lock().expect("log");
            let found = log
                .iter()
                .find(|record| record.direction == direction && holds(record));
            if let Some(record) = found {
                return record.clone();
            }
            assert!(Instant::now() < end, "no such record in {log:#?}");
            drop(log);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has both nodes let go of what they keep for whoever asks: what they have logged, and metrics of
    /// connections that are closed, which a program does from time to time.
    pub(crate) fn forget(&self) {
        for node in &self.nodes {
            node.log.0.lock().expect("log").clear();
            node.series.upkeep();
        }
    }

    /// Tasks that both nodes have.
    pub(crate) fn tasks(&self) -> usize {
        runtime::tasks::alive() + self.runtime.metrics().num_alive_tasks()
    }

    /// Endpoints that a node leaves alone now.
    pub(crate) fn ejected(&self, node: usize) -> Vec<String> {
        let ejections = self.nodes[node - 1].shared.ejections.load();
        let ejected = ejections.ejected(Instant::now());
        ejected.map(|one| one.endpoint.to_string()).collect()
    }

    pub(crate) fn open_connections(&self, node: usize) -> usize {
        self.nodes[node - 1].shared.connections.count()
    }
}

/// Reads who the application says is calling.
pub(crate) fn greeting(stream: &mut TcpStream) -> io::Result<IpAddr> {
    let mut length = [0];
    stream.read_exact(&mut length)?;
    let mut caller = vec![0; length[0].into()];
    stream.read_exact(&mut caller)?;
    let caller = String::from_utf8(caller).expect("ascii");
    Ok(caller.parse().expect("an address"))
}

fn answer(mut stream: TcpStream) {
    let peer = stream.peer_addr().expect("peer").ip().to_canonical();
    let peer = peer.to_string();
    let length = u8::try_from(peer.len()).expect("short");
    let mut buffer = vec![0; 256 << 10];
    let mut greeting = vec![length];
    greeting.extend(peer.bytes());
    if stream.write_all(&greeting).is_err() {
        return;
    }
    while let Ok(amount) = stream.read(&mut buffer) {
        if amount == 0 || stream.write_all(&buffer[..amount]).is_err() {
            return;
        }
    }
}

pub(crate) fn sh(netns: &OwnedFd, script: &str) -> String {
    let output = netns::run_blocking(netns, || Command::new("sh").args(["-ec", script]).output());
    let output = output.expect("namespace").expect("sh");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
