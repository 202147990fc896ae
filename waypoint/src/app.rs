//! The whole program: what is started, in which order, and how it ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::{HeaderMap, HeaderValue};
use identity::ca_client::{self, CaClient, CitadelClient, WithRevocations};
use identity::grpc::{Clock, ControlPlane, Roots};
use identity::manager::CertificateManager;
use runtime::admin::Listeners;
use runtime::metrics::{Metrics, Settings};
use runtime::readiness::Readiness;
use runtime::signals::Shutdown;
use runtime::vital;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use xds::state::State;

use crate::config::{Config, Proxy};
use crate::pipeline::WorkerPipeline;
use crate::shared::{OwnCertificate, Shared};
use crate::worker::{Setup, Workers};
use crate::{admin, startup, sync, worker};

/// Counters that nobody changed for so long are forgotten.
const IDLE_METRICS: Duration = Duration::from_secs(3600);

/// Runs until asked to stop, on a current-thread runtime: this thread belongs to the control
/// plane, metrics and people; connections have threads of their own.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let readiness = Readiness::new();
    let shutdown = Shutdown::new();
    tokio::spawn(listen_to_signals(shutdown.clone()));
    runtime::descriptors::raise_limit();
    tokio::spawn(runtime::allocator::tidy_up());
    let metrics = start_metrics()?;
    serve_readiness_and_metrics(&config, &readiness, &metrics)?;

    let state = Arc::new(State::default());
    let clock = Clock::default();
    let synced = follow_control_plane(&config, &readiness, state.clone(), &clock)?;
    let certificates = own_certificate(&config, &clock)?;
    expose(&metrics, clock, certificates.manager().clone());
    let shared = Arc::new(Shared::new(config, state));
    count_requests(&metrics, &shared);
    let admin = Listeners::localhost(shared.config.ports.admin)?;
    let router = admin::router(shared.clone(), certificates.clone(), shutdown.clone());
    tokio::spawn(admin.serve("admin", router));

    let certified = readiness.task("certificate");
    tokio::select! {
        () = has_certificate(&certificates) => drop(certified),
        reason = shutdown.requested() => {
            tracing::info!(reason, "shutting down before there was a certificate");
            return Ok(());
        }
    }
    tokio::select! {
        // With a part of the mesh nobody is served: a policy may be missing.
        synced = synced => synced.context("the control plane is not followed any more")?,
        _ = shutdown.requested() => {}
    }
    let starting = readiness.task("listener");
    let workers = start_workers(&shared, certificates)?;
    startup::confine_system_calls()?;
    tracing::info!(address = %workers.address(), "serving");
    drop(starting);
    let reason = shutdown.requested().await;
    tracing::info!(reason, "shutting down");
    let _stopping = readiness.task("shutting down");
    workers.drain(shared.config.termination_deadline).await;
    Ok(())
}

fn start_workers(shared: &Arc<Shared>, certificates: OwnCertificate) -> anyhow::Result<Workers> {
    let config = &shared.config;
    let any = match config.ipv6 {
        true => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        false => Ipv4Addr::UNSPECIFIED.into(),
    };
    let setup = Setup {
        listen: SocketAddr::new(any, config.ports.hbone),
        limits: config.limits.clone(),
        tunnel: worker::tunnel_settings(),
        certificates: Arc::new(certificates),
        connect_headers: connect_headers(&config.proxy),
    };
    let shared = shared.clone();
    let make = move |upstream| WorkerPipeline::new(shared.clone(), upstream);
    Workers::start(config.worker_threads.get(), Arc::new(setup), make)
        .context("cannot start the workers")
}

/// Who asks, for the peers' telemetry.
fn connect_headers(proxy: &Proxy) -> HeaderMap {
    let baggage = format!(
        "k8s.cluster.name={},k8s.namespace.name={},k8s.pod.name={},service.name={},\
         service.version=latest",
        proxy.cluster_id, proxy.namespace, proxy.pod, proxy.gateway
    );
    let mut headers = HeaderMap::new();
    headers.insert("x-istio-source", HeaderValue::from_static("waypoint"));
    if let Ok(baggage) = HeaderValue::try_from(baggage) {
        headers.insert("baggage", baggage);
    }
    headers
}

/// Istio's metrics, and the end of series that nobody counts in any more.
fn count_requests(metrics: &Metrics, shared: &Arc<Shared>) {
    let registry = shared.registry.clone();
    metrics.add_collector(move |exposition| registry.render(exposition));
    let registry = shared.registry.clone();
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(IDLE_METRICS / 12);
        loop {
            ticks.tick().await;
            registry.forget_idle(std::time::Instant::now(), IDLE_METRICS);
        }
    });
}

async fn listen_to_signals(shutdown: Shutdown) {
    if let Err(error) = shutdown.listen().await {
        tracing::error!(%error, "cannot listen to signals");
    }
}

fn start_metrics() -> anyhow::Result<Metrics> {
    let metrics = Metrics::install(&Settings {
        component: "proxy",
        version: env!("CARGO_PKG_VERSION"),
        buckets: &[],
        idle: IDLE_METRICS,
    })?;
    metrics.add_runtime(&Handle::current());
    tokio::spawn(metrics.clone().upkeep());
    Ok(metrics)
}

fn serve_readiness_and_metrics(
    config: &Config,
    readiness: &Readiness,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let listeners = Listeners::wildcard(config.ports.readiness, config.ipv6)?;
    tokio::spawn(listeners.serve("readiness", readiness.router()));
    let listeners = Listeners::wildcard(config.ports.stats, config.ipv6)?;
    tokio::spawn(listeners.serve("stats", metrics.router()));
    Ok(())
}

/// Adds what is computed when it is asked for.
fn expose(metrics: &Metrics, clock: Clock, certificates: CertificateManager) {
    metrics.add_collector(move |exposition| clock.expose(exposition));
    metrics.add_collector(move |exposition| certificates.expose(exposition));
}

/// Starts xDS; the answer comes when everything has arrived once.
fn follow_control_plane(
    config: &Config,
    readiness: &Readiness,
    state: Arc<State>,
    clock: &Clock,
) -> anyhow::Result<oneshot::Receiver<()>> {
    let (synced, wait) = oneshot::channel();
    let control_plane = ControlPlane::new(&config.xds).context("XDS_ADDRESS")?;
    let control_plane = control_plane.with_clock(clock.clone());
    let task = readiness.task("state manager");
    let proxy = config.proxy.clone();
    let following = sync::run(proxy, control_plane, state, task, synced);
    tokio::spawn(vital::task("control plane", following));
    Ok(wait)
}

fn own_certificate(config: &Config, clock: &Clock) -> anyhow::Result<OwnCertificate> {
    let control_plane = ControlPlane::new(&config.ca).context("CA_ADDRESS")?;
    let control_plane = control_plane.with_clock(clock.clone());
    let client = CitadelClient::new(control_plane, ca_client::Mode::Dedicated, config.secret_ttl);
    let mut client: Arc<dyn CaClient> = Arc::new(client);
    if let Some(path) = &config.crl_path {
        let following = WithRevocations::follow(client, path);
        client = Arc::new(following.context("CRL_PATH")?);
    }
    let manager = CertificateManager::new(client);
    if let Roots::File(path) = &config.ca.roots {
        let following = manager.clone().follow_roots(path.clone());
        tokio::spawn(vital::task("roots", following));
    }
    Ok(OwnCertificate::new(config.proxy.identity(), manager))
}

/// Waits for the first certificate; what is in the way is logged each time.
async fn has_certificate(certificates: &OwnCertificate) {
    while let Err(reason) = certificates.certificate().await {
        tracing::warn!(reason, "no certificate yet");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    tracing::info!(identity = %certificates.identity(), "has a certificate");
}
