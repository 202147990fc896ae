//! What a mesh of 100,000 workloads and 10,000 services costs a node: its first sync over xDS, what
//! is resident then, one update, a worker's share of it, the same for a change of policy, one choice of
//! an endpoint, one verdict among 1,000 policies, alone and as a connection asks for it.
//! `cargo bench -p ztunnel --bench scale [-- PART...]`; prints, asserts nothing.

use std::hint::black_box;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::address::NetworkAddress;
use mesh::authorization::{
    Action, Authorization, Clause, Connection, Match, PolicySet, Rule, Scope, StringMatch,
};
use mesh::balancing::{Observed, Selections};
use mesh::destination::Plan;
use mesh::identity::Identity;
use mesh::service::{LoadBalancingMode, Port, Scope as Locality, Service};
use mesh::snapshot::{Change, Changed, Snapshot};
use mesh::workload::{TunnelProtocol, Workload};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use xds::client::{BoxError, Client, Config, Event, Subscription};
use xds::node::{self, ProxyNode};
use xds::resource_type::Layer;
use xds::server::{Admitted, Peers, ResourceSet, Server};
use xds::state::State;
use ztunnel::access_log::ProcessLog;
use ztunnel::admin::Dumped;
use ztunnel::certificates::PodCertificates;
use ztunnel::proxy::Shared;
use ztunnel::proxy::plans::Plans;
use ztunnel::proxy::policy::Policies;
use ztunnel::sync::Known;

const NAMESPACES: usize = 100;
const SERVICES: usize = 10_000;
const WORKLOADS: usize = 100_000;
const NODES: usize = 1_000;
const POLICIES: usize = 1_000;
/// Endpoints of the one service that is large.
const ENDPOINTS: usize = 10_000;
/// Pods of one node, as many as Kubernetes puts on one.
const PODS: usize = 110;

fn main() -> anyhow::Result<()> {
    // The node is a process of its own, so that what is resident is its own.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("node") {
        let control_plane = arguments.next().unwrap_or_default();
        return node(control_plane.parse()?);
    }
    // `cargo bench` adds one of its own.
    let parts: Vec<_> = std::env::args()
        .skip(1)
        .filter(|one| !one.starts_with('-'))
        .collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|one| one == part);
    if wanted("sync") {
        first_sync()?;
    }
    let others: [(&str, fn()); 7] = [
        ("updates", updates),
        ("share", share),
        ("policies", policies),
        ("choices", choices),
        ("redraws", redraws),
        ("verdicts", verdicts),
        ("admissions", admissions),
    ];
    for (_, run) in others.iter().filter(|(part, _)| wanted(part)) {
        run();
    }
    Ok(())
}

// --- the mesh

fn hostname(service: usize) -> String {
    let namespace = service % NAMESPACES;
    format!("app-{service}.ns-{namespace}.svc.cluster.local")
}

fn service(number: usize) -> Service {
    let namespace = format!("ns-{}", number % NAMESPACES);
    let mut service = Service::new(&format!("app-{number}"), &namespace, &hostname(number));
    let address = IpAddr::from([10, 96, high(number), low(number)]);
    service.addresses = vec![NetworkAddress::new("", address)];
    service.ports = vec![port()];
    service
}

fn port() -> Port {
    Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: Default::default(),
    }
}

/// The workload of a number, as the control plane describes a Deployment's pod.
fn workload(number: usize, service: &Service) -> Workload {
    let (namespace, app) = (&*service.namespace, &*service.name);
    let name = format!("{app}-6b7f9c5d4-{number:05x}");
    let uid = format!("Kubernetes//Pod/{namespace}/{name}");
    let mut workload = Workload::new(&uid, &name, namespace);
    let third = u8::try_from(number >> 16).unwrap_or(0);
    workload.addresses = [[10, 128 + third, high(number), low(number)].into()]
        .into_iter()
        .collect();
    workload.service_account = app.into();
    workload.workload_name = app.into();
    workload.canonical_name = app.into();
    workload.canonical_revision = "latest".into();
    workload.node = format!("node-{}", number % NODES).into();
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    let locality = Arc::make_mut(&mut workload.locality);
    locality.region = "eu-central-1".into();
    locality.zone = format!("eu-central-1{}", ["a", "b", "c"][number % 3]).into();
    let memberships = [(service.key(), vec![port()])];
    workload.services = memberships.into_iter().collect();
    workload
}

fn high(number: usize) -> u8 {
    u8::try_from(number >> 8 & 0xff).unwrap_or(0)
}

fn low(number: usize) -> u8 {
    u8::try_from(number & 0xff).unwrap_or(0)
}

fn mesh() -> Vec<Change> {
    let services: Vec<Service> = (0..SERVICES).map(service).collect();
    let workloads = (0..WORKLOADS).map(|number| workload(number, &services[number % SERVICES]));
    let workloads: Vec<_> = workloads.map(Change::Workload).collect();
    let services = services.into_iter().map(Change::Service);
    services.chain(workloads).collect()
}

/// A service that everything else in the benchmark looks at, with its endpoints.
fn large(mode: LoadBalancingMode, capacity: impl Fn(usize) -> u32) -> Vec<Change> {
    let mut large = service(0);
    large.load_balancing.mode = mode;
    large.load_balancing.routing_preference = vec![Locality::Region, Locality::Zone];
    let endpoints = (0..ENDPOINTS).map(|number| {
        let mut workload = workload(number, &large);
        workload.capacity = capacity(number);
        Change::Workload(workload)
    });
    let mut changes: Vec<_> = endpoints.collect();
    changes.push(Change::Service(large));
    changes
}

// --- first sync

#[tokio::main]
async fn first_sync() -> anyhow::Result<()> {
    let mut set = ResourceSet::default();
    set.apply(&mesh());
    let (_resources, watched) = watch::channel(set);
    let everyone = |_: &MetadataMap, _: &ProxyNode| {
        Ok(Admitted {
            layer: Layer::L4,
            until: None,
        })
    };
    let service = Server::new(watched, Peers::default(), everyone).into_service();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let incoming = TcpListenerStream::new(listener);
    let router = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(router.serve_with_incoming(incoming));
    let node = tokio::process::Command::new(std::env::current_exe()?)
        .args(["node", &address.to_string()])
        .stdin(Stdio::null())
        .status();
    anyhow::ensure!(node.await?.success(), "the node failed");
    Ok(())
}

/// What the tunnel does with xDS, and nothing else that it does.
#[tokio::main(flavor = "current_thread")]
async fn node(control_plane: SocketAddr) -> anyhow::Result<()> {
    let before = resident("VmRSS");
    let client = Client::new(Config {
        node: node::ztunnel("1.1.1.1", "ztunnel", "weft-system", []),
        token: Arc::new(|| Ok(None)),
        headers: Vec::new(),
        layer: Layer::L4,
        addresses: Subscription::Wildcard,
    });
    let mut known = Known {
        state: Arc::default(),
        snapshot: Snapshot::default(),
    };
    let state = known.state.clone();
    let (synced, mut waiting) = tokio::sync::mpsc::channel(1);
    let started = Instant::now();
    let on_event = |event| match event {
        Event::Update(update) => known.apply(update.changes),
        Event::Synced => _ = synced.try_send(started.elapsed()),
        Event::Connected | Event::Disconnected { .. } => {}
    };
    let connect = || async move {
        let endpoint = Endpoint::from_shared(format!("http://{control_plane}"))?;
        Ok::<_, BoxError>(endpoint.connect().await?)
    };
    let elapsed = tokio::select! {
        elapsed = waiting.recv() => elapsed.unwrap_or_default(),
        never = client.run(connect, on_event) => match never {},
    };
    let snapshot = state.snapshot();
    anyhow::ensure!(snapshot.workloads().count() == WORKLOADS, "incomplete");
    anyhow::ensure!(snapshot.services().count() == SERVICES, "incomplete");
    println!(
        "first sync, {WORKLOADS} workloads, {SERVICES} services: {elapsed:.2?} (bar 3 s); \
         resident {:.1} MB (bar 100), {:.1} before, {:.1} at most",
        resident("VmRSS"),
        before,
        resident("VmHWM"),
    );
    drop(snapshot);
    dump(state)
}

/// What `/config_dump` takes for so much.
fn dump(state: Arc<State>) -> anyhow::Result<()> {
    let config = ztunnel::config::Config::parse(Default::default(), None, 2)?;
    let certificates = Arc::new(PodCertificates::new(None));
    let log = Arc::new(ProcessLog);
    let proxy = Shared::new(
        config.proxy.clone(),
        state,
        certificates,
        log,
        Arc::default(),
    );
    let dumped = Dumped {
        config: Arc::new(config),
        proxy: Arc::new(proxy),
        certificates: None,
        freshness: None,
    };
    // From here on, what is resident at most is counted anew (proc_pid_clear_refs(5)).
    std::fs::write("/proc/self/clear_refs", "5")?;
    let (before, started, mut length) = (resident("VmRSS"), Instant::now(), Length(0));
    dumped.write(&mut length)?;
    println!(
        "a dump of it: {:.1} MB in {:.2?}; {:.1} MB more resident at most",
        length.0 as f64 / 1e6,
        started.elapsed(),
        resident("VmHWM") - before,
    );
    Ok(())
}

/// Counts what is written, and keeps none of it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Megabytes, as the kernel counts them.
fn resident(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(what));
    let mut words = line.unwrap_or_default().split_ascii_whitespace().skip(1);
    let kilobytes: f64 = words
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    kilobytes * 1024.0 / 1e6
}

// --- updates

/// One workload at a time, in the mesh and in the large service, while readers hold the last one.
fn updates() {
    let mut snapshot = Snapshot::default();
    snapshot.apply(mesh());
    let services: Vec<Service> = (0..SERVICES).map(service).collect();
    report(
        "an update of one workload among 100,000 (bar 1 ms)",
        1000,
        {
            update(snapshot, |number| {
                let number = number * 97 % WORKLOADS;
                workload(number, &services[number % SERVICES])
            })
        },
    );
    let mut snapshot = Snapshot::default();
    snapshot.apply(large(LoadBalancingMode::Standard, |_| 1));
    report("an update of one of 10,000 endpoints (bar 1 ms)", 1000, {
        update(snapshot, |number| {
            workload(number * 7 % ENDPOINTS, &services[0])
        })
    });
}

fn update(mut snapshot: Snapshot, workload: impl Fn(usize) -> Workload) -> impl FnMut(usize) {
    let state = State::new(snapshot.clone());
    move |number| {
        let mut changed = workload(number);
        changed.canonical_revision = format!("v{number}").into();
        snapshot.apply([Change::Workload(changed)]);
        state.publish(snapshot.clone());
    }
}

/// What each worker does itself, while its connections wait, when one workload of elsewhere changes:
/// its pods have open connections, 1,000 policies, and clients of 1,000 services.
fn share() {
    let services: Vec<Service> = (0..1000).map(service).collect();
    let mut snapshot = Snapshot::default();
    snapshot.apply(services.iter().cloned().map(Change::Service));
    snapshot.apply((0..POLICIES).map(|number| policy(number, exact(number))));
    let pods = (0..PODS).map(|number| workload(number * NAMESPACES, &services[0]));
    snapshot.apply(pods.map(Change::Workload));
    let pods: Vec<_> = snapshot.workloads().cloned().collect();
    let before = Arc::new(snapshot.clone());
    let (policies, plans) = (Rc::new(Policies::new(false)), Plans::default());
    let admit = |pod| policies.admit(&before, pod, connection());
    let _open: Vec<_> = pods.iter().map(admit).collect();
    for number in 0..services.len() {
        let vip = SocketAddr::from(([10, 96, high(number), low(number)], 80));
        plans.outbound(&before, &pods[number % PODS], vip);
    }
    let updates: Vec<(Arc<Snapshot>, Changed)> = (0..1000)
        .map(|number| {
            let elsewhere = workload(WORKLOADS + number % 10, &services[7]);
            let changed = snapshot.apply([Change::Workload(elsewhere)]);
            (Arc::new(snapshot.clone()), changed)
        })
        .collect();
    report(
        "a worker's share of an update (bar 10 µs)",
        updates.len(),
        {
            |number| {
                let (snapshot, changed) = &updates[number];
                policies.recheck(snapshot, Some(changed));
                plans.follow(snapshot);
            }
        },
    );
}

/// What each worker does itself when one of 1,000 policies changes: all hold for all of its pods, which
/// have open connections.
fn policies() {
    for (what, scope) in [
        ("of the namespace", Scope::Namespace),
        ("that select pods", Scope::WorkloadSelector),
    ] {
        let mut snapshot = Snapshot::default();
        let scoped = |number: usize, one: Match| match policy(number, one) {
            Change::Authorization(policy) => Authorization { scope, ..policy },
            other => unreachable!("{other:?}"),
        };
        let all: Vec<_> = (0..POLICIES)
            .map(|number| scoped(number, exact(number)))
            .collect();
        let pods = (0..PODS).map(|number| {
            let mut pod = workload(number * NAMESPACES, &service(0));
            if scope == Scope::WorkloadSelector {
                pod.authorization_policies = all.iter().map(Authorization::key).collect();
            }
            Change::Workload(pod)
        });
        snapshot.apply(pods);
        snapshot.apply(all.iter().cloned().map(Change::Authorization));
        let pods: Vec<_> = snapshot.workloads().cloned().collect();
        let policies = Rc::new(Policies::new(false));
        let admit = |pod| policies.admit(&snapshot, pod, connection());
        let _open: Vec<_> = pods.iter().map(admit).collect();
        let edits: Vec<(Snapshot, Changed)> = (0..100)
            .map(|number| {
                let edited = scoped(number, exact(POLICIES + number));
                let changed = snapshot.apply([Change::Authorization(edited)]);
                (snapshot.clone(), changed)
            })
            .collect();
        report(
            &format!("a worker's share of an edit of one of 1,000 policies {what} (bar 10 ms)"),
            edits.len(),
            |number| {
                let (snapshot, changed) = &edits[number];
                policies.recheck(snapshot, Some(changed));
            },
        );
    }
}

// --- choices

fn choices() {
    type Capacity = fn(usize) -> u32;
    let equal: Capacity = |_| 1;
    let unequal: Capacity = |number| 1 + u32::try_from(number % 3).unwrap_or(0);
    for (what, mode, capacity) in [
        ("equal", LoadBalancingMode::Standard, equal),
        ("weighted", LoadBalancingMode::Standard, unequal),
        ("of the same zone", LoadBalancingMode::Strict, equal),
        (
            "by locality, weighted",
            LoadBalancingMode::Failover,
            unequal,
        ),
    ] {
        let mut snapshot = Snapshot::default();
        snapshot.apply(large(mode, capacity));
        let client = Arc::new(workload(1, &service(0)));
        let address = SocketAddr::from(([10, 96, 0, 0], 80));
        let plan = Plan::new(&snapshot, &client, address, &mut Selections::default());
        let plan = Arc::new(plan);
        let observed = Observed::nothing(Instant::now());
        let mut random = rand::rng();
        let what = format!("an endpoint of 10,000, {what} (bar 1 µs)");
        report(&what, 10_000, |_| {
            black_box(plan.draw(observed, &mut random));
        });
    }
}

/// What the first connection has to wait for after one of the endpoints has changed.
fn redraws() {
    let mut snapshot = Snapshot::default();
    snapshot.apply(large(LoadBalancingMode::Failover, |_| 1));
    let mut large = service(0);
    large.load_balancing.mode = LoadBalancingMode::Failover;
    let snapshots: Vec<Snapshot> = (0..1000)
        .map(|number| {
            let mut changed = workload(number * 7 % ENDPOINTS, &large);
            changed.canonical_revision = format!("v{number}").into();
            snapshot.apply([Change::Workload(changed)]);
            snapshot.clone()
        })
        .collect();
    let client = Arc::new(workload(1, &service(0)));
    let address = SocketAddr::from(([10, 96, 0, 0], 80));
    let observed = Observed::nothing(Instant::now());
    let (mut selections, mut random) = (Selections::default(), rand::rng());
    let what = "an endpoint of 10,000, by locality, of which one has changed (bar 100 µs)";
    report(what, snapshots.len(), |number| {
        let snapshot = &snapshots[number];
        let plan = Arc::new(Plan::new(snapshot, &client, address, &mut selections));
        black_box(plan.draw(observed, &mut random));
        selections.follow(snapshot);
    });
}

// --- verdicts

fn policy(number: usize, one: Match) -> Change {
    Change::Authorization(Authorization {
        name: format!("policy-{number}").into(),
        namespace: "ns-0".into(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause { matches: vec![one] }],
        }],
    })
}

fn exact(number: usize) -> Match {
    Match {
        principals: vec![StringMatch::Exact(
            format!("cluster.local/ns/ns-1/sa/client-{number}").into(),
        )],
        ..Match::default()
    }
}

/// Of a client that no policy is about.
fn connection() -> Connection {
    let client = Identity::new("cluster.local", "ns-1", "other");
    let destination = SocketAddr::from(([10, 128, 0, 0], 8080));
    Connection::new(Some(client), [10, 244, 1, 1].into(), destination)
}

/// The verdict, and a place in the list of what is held against the policies again when they change.
fn admissions() {
    let mut snapshot = Snapshot::default();
    snapshot.apply((0..POLICIES).map(|number| policy(number, exact(number))));
    snapshot.apply([Change::Workload(workload(0, &service(0)))]);
    let destination = snapshot.workloads().next().expect("one").clone();
    let policies = Rc::new(Policies::new(false));
    report("an admission, 1,000 policies (bar 5 µs)", 10_000, |_| {
        let admitted = policies.admit(&snapshot, &destination, connection());
        assert!(black_box(admitted).is_ok());
    });
}

fn verdicts() {
    let prefix = |number: usize| Match {
        principals: vec![StringMatch::Prefix(
            format!("cluster.local/ns/ns-1/sa/client-{number}").into(),
        )],
        ..Match::default()
    };
    let port = |number: usize| Match {
        destination_ports: vec![u16::try_from(10_000 + number).unwrap_or(0)],
        ..Match::default()
    };
    let range = |number: usize| Match {
        source_ips: vec![
            format!("172.{}.{}.0/24", 16 + number / 256, number % 256)
                .parse()
                .expect("a range"),
        ],
        ..Match::default()
    };
    let suffix = |number: usize| Match {
        principals: vec![StringMatch::Suffix(format!("/sa/client-{number}").into())],
        ..Match::default()
    };
    let namespace = |number: usize| Match {
        namespaces: vec![StringMatch::Prefix(format!("team-{number}-").into())],
        ..Match::default()
    };
    // All but the client's own, as "only my team" is written.
    let exclusion = |number: usize| Match {
        not_namespaces: vec![
            StringMatch::Exact("ns-1".into()),
            StringMatch::Exact(format!("team-{number}").into()),
        ],
        ..Match::default()
    };
    let kinds: [(&str, &dyn Fn(usize) -> Match); 7] = [
        ("by client", &exact),
        ("by the beginning of the client's name", &prefix),
        ("by port", &port),
        ("by address", &range),
        ("by the end of the client's name", &suffix),
        ("by the beginning of the namespace", &namespace),
        ("by whom they except", &exclusion),
    ];
    for (what, kind) in kinds {
        let destination = workload(0, &service(0));
        let mut snapshot = Snapshot::default();
        snapshot.apply((0..POLICIES).map(|number| policy(number, kind(number))));
        let set = PolicySet::of(&snapshot, &destination);
        let connection = connection();
        let what = format!("a verdict, 1,000 policies {what} (bar 5 µs)");
        report(&what, 10_000, |_| {
            assert!(black_box(set.authorize(&connection, None)).is_allowed());
        });
    }
}

fn report(what: &str, count: usize, mut one: impl FnMut(usize)) {
    let mut slowest = Duration::ZERO;
    let started = Instant::now();
    for number in 0..count {
        let one_started = Instant::now();
        one(number);
        slowest = slowest.max(one_started.elapsed());
    }
    let average = started.elapsed() / u32::try_from(count).unwrap_or(u32::MAX);
    println!("{what}: {average:.2?} on average, {slowest:.2?} at most");
}
