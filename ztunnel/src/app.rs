//! The whole program: what is started, in which order, and how it ends.
//!
//! - `pods`: everything that serves a pod.
//! - `servers`: the process's own servers, which a successor takes over.
//! - `succession`: replacing one process and being replaced by another.

mod pods;

mod servers;

mod succession;

#[cfg(test)]
pub(crate) mod own_process;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use identity::authority::Signer;
use identity::ca_client::{self, CaClient, CitadelClient, LocalCa, WithRevocations};
use identity::grpc::{self, Clock, ControlPlane};
use identity::manager::CertificateManager;
use mesh::snapshot::Snapshot;
use runtime::admin::Listeners;
use runtime::metrics::{Kind, Metrics, Settings};
use runtime::readiness::Readiness;
use runtime::signals::Shutdown;
use runtime::vital;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time;

use self::pods::PodProxies;
use self::servers::Servers;
use self::succession::TAKING_OVER;
use crate::access_log::ProcessLog;
use crate::admin::{self, Dumped};
use crate::certificates::PodCertificates;
use crate::config::{Config, LocalXds, Mode};
use crate::dns::{self, DnsProxy};
use crate::handover::predecessor::Successor;
use crate::inpod;
use crate::local::LocalNode;
use crate::metrics::SeriesCache;
use crate::proxy::conntrack;
use crate::proxy::on_demand::OnDemand;
use crate::proxy::state::State;
use crate::proxy::{PodSpec, Served, Shared, Workers, WorkloadInfo};
use crate::sync::{Freshness, Known};
use crate::{local_xds, startup, sync};

/// Life of a root that goes with the process.
const FAKE_ROOT: Duration = Duration::from_secs(3650 * 86_400);

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The only pod of dedicated mode.
const DEDICATED: &str = "dedicated";

/// This process among the pods of its node, whose uids are UUIDs.
const ITSELF: &str = "ztunnel";

/// Runs until asked to stop, on a current-thread runtime: this thread belongs to the control
/// plane, metrics and people; connections and DNS have threads of their own.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    tokio::spawn(listen_to_signals(shutdown.clone()));
    runtime::descriptors::raise_limit();
    tokio::spawn(vital::task("memory", runtime::memory::watch_over()));
    tokio::spawn(runtime::allocator::tidy_up());
    identity::choose_key_exchange(config.key_exchange).context("COMPLIANCE_POLICY")?;
    let metrics = start_metrics(config.metrics_idle_timeout)?;
    let predecessor = succession::find(&config).await;
    let taking_over = predecessor
        .succession()
        .map(|_| readiness.task(TAKING_OVER));
    let mut servers = Servers::new(predecessor.clone());
    let (ports, ipv6) = (config.ports, config.ipv6);
    let wildcard = move |port| move || Listeners::wildcard(port, ipv6);
    servers
        .serve(
            "readiness",
            ports.readiness,
            wildcard(ports.readiness),
            readiness.router(),
        )
        .await?;
    servers
        .serve(
            "stats",
            ports.stats,
            wildcard(ports.stats),
            metrics.router(),
        )
        .await?;
    startup::self_test(&config)?;

    let state = Arc::new(State::default());
    let freshness = config
        .xds
        .as_ref()
        .map(|_| Freshness::new(SystemTime::now()));
    let clock = Clock::default();
    let following = Following {
        state: state.clone(),
        freshness: freshness.clone(),
        clock: clock.clone(),
    };
    let (synced, on_demand) = follow_control_plane(&config, &readiness, following)?;
    tell_state(&metrics, readiness.clone(), freshness.clone());
    let certificates = PodCertificates::new(certificate_manager(&config, &clock)?);
    expose(&metrics, clock, certificates.manager().cloned());
    let proxy = Shared::new(
        config.proxy.clone(),
        state.clone(),
        Arc::new(certificates.clone()),
        Arc::new(ProcessLog),
        start_series_upkeep(config.metrics_idle_timeout),
    );
    let proxy = Arc::new(proxy.with_on_demand(on_demand));
    metrics.add_collector({
        let proxy = proxy.clone();
        move |exposition| conntrack::collect(&proxy.pods, exposition)
    });
    let dumped = Dumped {
        config: config.clone(),
        proxy: proxy.clone(),
        certificates: certificates.manager().cloned(),
        freshness,
    };
    let admin = admin::router(dumped, shutdown.clone());
    let localhost = move || Listeners::localhost(ports.admin);
    servers
        .serve("admin", ports.admin, localhost, admin)
        .await?;
    if !config.enable_proxy {
        tracing::info!("the data path is off (ENABLE_PROXY=false)");
        startup::confine_system_calls()?;
        shutdown.requested().await;
        return Ok(());
    }

    let starting = readiness.task("proxy");
    let following = follow_identities(proxy.clone(), certificates.clone());
    tokio::spawn(vital::task("identities", following));
    let proxies = PodProxies {
        workers: Workers::start(config.worker_threads.get(), proxy)
            .context("cannot start the workers")?,
        dns: start_dns(&config, &readiness, state)?,
        certificates,
        predecessor,
        dns_port: config.dns.as_ref().map(|dns| dns.port),
    };
    if let Some(info) = config.itself()
        && let Err(not_served) = proxies.serve(itself(&config, info), [].into()).await
    {
        // Pods are not to go without a tunnel because of that.
        let error = not_served.reason;
        tracing::error!(error, "this process itself can't be reached over HBONE");
    }
    drop(starting);
    startup::confine_system_calls()?;
    known(synced, &shutdown).await?;
    let replaced = succession::begin(&config, &readiness, taking_over, &proxies, &servers)?;
    let stop = stopped(&shutdown, replaced);
    let (proxies, result) = match &config.mode {
        Mode::Shared { inpod_uds } => {
            serve_node(inpod_uds.clone(), proxies, &readiness, stop).await
        }
        Mode::Dedicated { workload } => serve_one(workload, proxies, &readiness, stop).await,
    };
    let stop = match result {
        Ok(stop) => stop,
        Err(error) => {
            drain(proxies, &config, &readiness).await;
            return Err(error);
        }
    };
    match stop {
        Stop::Asked(reason) => {
            tracing::info!(reason, "shutting down");
            runtime::notify::stopping();
            drain(proxies, &config, &readiness).await;
        }
        Stop::Replaced(successor) => {
            succession::yield_to(successor, proxies, servers, &config, &shutdown).await;
        }
    }
    Ok(())
}

/// Waits until the mesh is known, or shutdown is asked for. With a part of the mesh nobody is served: a
/// policy may be missing.
async fn known(synced: oneshot::Receiver<()>, shutdown: &Shutdown) -> anyhow::Result<()> {
    tokio::select! {
        synced = synced => synced.context("the control plane is not followed any more"),
        _ = shutdown.requested() => Ok(()),
    }
}

/// Why the process serves no longer.
enum Stop {
    Asked(&'static str),
    Replaced(Successor),
}

async fn stopped(shutdown: &Shutdown, replaced: oneshot::Receiver<Successor>) -> Stop {
    let replaced = async {
        match replaced.await {
            Ok(successor) => successor,
            // Nobody can replace this process.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        reason = shutdown.requested() => Stop::Asked(reason),
        successor = replaced => Stop::Replaced(successor),
    }
}

async fn drain(proxies: PodProxies, config: &Config, readiness: &Readiness) {
    let _stopping = readiness.task("shutting down");
    let deadline = config.termination_deadline;
    tracing::info!(?deadline, "draining connections");
    proxies.workers.drain(time::sleep(deadline)).await;
}

async fn listen_to_signals(shutdown: Shutdown) {
    if let Err(error) = shutdown.listen().await {
        tracing::error!(%error, "cannot listen to signals");
    }
}

/// Has certificates fetched once the mesh tells who the pods here are, before they are needed.
async fn follow_identities(proxy: Arc<Shared>, certificates: PodCertificates) {
    let mut changes = proxy.state.changes();
    loop {
        certificates.are_needed(&proxy.identities());
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn start_metrics(idle: Duration) -> anyhow::Result<Metrics> {
    let metrics = Metrics::install(&Settings {
        component: "ztunnel",
        version: env!("CARGO_PKG_VERSION"),
        buckets: &[(
            "istio_dns_upstream_request_duration_seconds",
            dns::UPSTREAM_DURATION_BUCKETS,
        )],
        idle,
    })?;
    metrics.add_runtime(&Handle::current());
    metrics.add_worker_tasks();
    tokio::spawn(metrics.clone().upkeep());
    Ok(metrics)
}

/// Adds whether the process serves, and for how long it has not heard of the control plane.
fn tell_state(metrics: &Metrics, readiness: Readiness, freshness: Option<Freshness>) {
    metrics.add_collector(move |exposition| {
        let ready = u8::from(readiness.open().is_empty());
        exposition
            .family(
                "weft_ready",
                Kind::Gauge,
                "Whether no task of the start is open",
            )
            .sample(&[("component", "ztunnel")], ready);
        if let Some(freshness) = &freshness {
            let name = "weft_control_plane_stale_seconds";
            let help =
                "Since when the control plane has not been heard of; 0 while it is connected";
            let stale = freshness.stale_for(SystemTime::now());
            exposition
                .family(name, Kind::Gauge, help)
                .sample(&[], stale.as_secs());
        }
    });
}

/// The series of connections, kept from being forgotten while connections hold them.
fn start_series_upkeep(idle: Duration) -> Arc<SeriesCache> {
    let series = Arc::new(SeriesCache::new(idle));
    tokio::spawn({
        let series = series.clone();
        async move {
            let mut ticks = time::interval(idle / 4);
            loop {
                ticks.tick().await;
                series.upkeep();
            }
        }
    });
    series
}

/// Adds what is computed when it is asked for.
fn expose(metrics: &Metrics, clock: Clock, certificates: Option<CertificateManager>) {
    metrics.add_collector(move |exposition| clock.expose(exposition));
    if let Some(certificates) = certificates {
        metrics.add_collector(move |exposition| certificates.expose(exposition));
    }
}

/// What the control plane's answers change.
struct Following {
    state: Arc<State>,
    freshness: Option<Freshness>,
    clock: Clock,
}

/// Starts xDS; the answer comes when everything has arrived once.
fn follow_control_plane(
    config: &Arc<Config>,
    readiness: &Readiness,
    following: Following,
) -> anyhow::Result<(oneshot::Receiver<()>, Option<Arc<OnDemand>>)> {
    let Following {
        state,
        freshness,
        clock,
    } = following;
    let (synced, wait) = oneshot::channel();
    let mut snapshot = local_snapshot(config)?;
    snapshot.prefer_namespace(config.preferred_service_namespace.clone());
    state.publish(snapshot.clone());
    let mut on_demand = None;
    match config.xds.as_ref().zip(freshness) {
        Some((xds, freshness)) => {
            let control_plane = ControlPlane::new(xds).context("XDS_ADDRESS")?;
            let control_plane = control_plane.with_clock(clock);
            let task = readiness.task("state manager");
            let client = sync::client(config);
            let demander = client.demander();
            on_demand = config
                .xds_on_demand
                .then(|| Arc::new(OnDemand::new(move |demand| demander.demand(demand))));
            let following = sync::run(
                client,
                freshness,
                control_plane,
                on_demand.clone(),
                Known { state, snapshot },
                task,
                synced,
            );
            tokio::spawn(vital::task("control plane", following));
        }
        None => {
            if config.local_xds.is_none() {
                tracing::warn!(
                    "no control plane (XDS_ADDRESS is empty): nothing is known of the mesh"
                );
            }
            let _ = synced.send(());
        }
    }
    Ok((wait, on_demand))
}

/// The mesh as far as a text of our own tells it.
fn local_snapshot(config: &Config) -> anyhow::Result<Snapshot> {
    let (text, origin) = match &config.local_xds {
        None => return Ok(Snapshot::default()),
        Some(LocalXds::Text(text)) => (text.clone(), "LOCAL_XDS".to_owned()),
        Some(LocalXds::File(path)) => {
            let origin = format!("LOCAL_XDS_PATH: {}", path.display());
            let text = std::fs::read_to_string(path).with_context(|| origin.clone())?;
            (text, origin)
        }
    };
    local_xds::snapshot(&text)
        .map_err(anyhow::Error::msg)
        .context(origin)
}

fn certificate_manager(
    config: &Config,
    clock: &Clock,
) -> anyhow::Result<Option<CertificateManager>> {
    let Some(mut client) = ca_client(config, clock)? else {
        return Ok(None);
    };
    if let Some(path) = &config.crl_path {
        let following = WithRevocations::follow(client, path);
        client = Arc::new(following.context("CRL_PATH")?);
    }
    let manager = CertificateManager::new(client);
    if let Some(grpc::Config {
        roots: grpc::Roots::File(path),
        ..
    }) = &config.ca
    {
        let following = manager.clone().follow_roots(path.clone());
        tokio::spawn(vital::task("roots", following));
    }
    Ok(Some(manager))
}

fn ca_client(config: &Config, clock: &Clock) -> anyhow::Result<Option<Arc<dyn CaClient>>> {
    if config.fake_ca {
        tracing::warn!("FAKE_CA: no other process trusts the certificates of this one");
        let now = SystemTime::now();
        let signer = Signer::self_signed(&config.node.trust_domain, FAKE_ROOT, now);
        return Ok(Some(Arc::new(LocalCa {
            signer: signer.context("FAKE_CA")?,
            lifetime: config.secret_ttl,
        })));
    }
    let Some(ca) = &config.ca else {
        return Ok(None);
    };
    let mode = match config.mode {
        Mode::Shared { .. } => ca_client::Mode::Shared,
        Mode::Dedicated { .. } => ca_client::Mode::Dedicated,
    };
    let control_plane = ControlPlane::new(ca).context("CA_ADDRESS")?;
    let control_plane = control_plane.with_clock(clock.clone());
    let client = CitadelClient::new(control_plane, mode, config.secret_ttl);
    Ok(Some(Arc::new(client)))
}

fn start_dns(
    config: &Config,
    readiness: &Readiness,
    state: Arc<State>,
) -> anyhow::Result<Option<DnsProxy>> {
    let Some(dns) = &config.dns else {
        return Ok(None);
    };
    let _starting = readiness.task("dns proxy");
    let settings = dns::Config {
        port: dns.port,
        node: LocalNode {
            name: config.node.name.clone(),
            cluster_id: config.node.cluster_id.clone(),
        },
        cluster_domain: config.node.cluster_domain.clone(),
        ipv6: config.ipv6,
        packet_mark: config.proxy.packet_mark,
        port_reuse: config.proxy.port_reuse,
        resolv_conf: PathBuf::from(RESOLV_CONF),
        workload_wait: dns::WORKLOAD_WAIT,
    };
    let proxy = DnsProxy::start(settings, state).context("cannot start the DNS proxy")?;
    Ok(Some(proxy))
}

/// Serves the pods that the CNI agent hands over.
async fn serve_node(
    inpod_uds: PathBuf,
    proxies: PodProxies,
    readiness: &Readiness,
    stop: impl Future<Output = Stop>,
) -> (PodProxies, anyhow::Result<Stop>) {
    let mut client = inpod::Client::new(inpod_uds, proxies, readiness);
    let result = tokio::select! {
        error = client.run() => {
            tracing::error!(%error, "the CNI agent speaks another protocol");
            Err(error.into())
        }
        stop = stop => Ok(stop),
    };
    (client.into_proxies(), result)
}

/// Serves one workload in the tunnel's own namespace.
async fn serve_one(
    workload: &WorkloadInfo,
    proxies: PodProxies,
    readiness: &Readiness,
    stop: impl Future<Output = Stop>,
) -> (PodProxies, anyhow::Result<Stop>) {
    let starting = readiness.task("workload proxy manager");
    let spec = PodSpec {
        uid: DEDICATED.into(),
        info: workload.clone(),
        netns: None,
        served: Served::Everything,
    };
    let result = proxies.serve(spec, search_domains()).await;
    if let Err(not_served) = result {
        return (proxies, Err(anyhow::Error::msg(not_served.reason)));
    }
    drop(starting);
    (proxies, Ok(stop.await))
}

/// This process as one of the pods it serves: whoever scrapes it from a pod of the mesh does so by
/// mutual TLS.
fn itself(config: &Config, info: WorkloadInfo) -> PodSpec {
    let ports = [config.ports.stats, config.ports.readiness];
    PodSpec {
        uid: ITSELF.into(),
        info,
        netns: None,
        served: Served::Ports(ports.into()),
    }
}

/// Of the tunnel's own resolv.conf, which in dedicated mode is the workload's.
fn search_domains() -> Arc<[String]> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("search"))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests;
