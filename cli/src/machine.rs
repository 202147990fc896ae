//! The mesh on one machine: what Kubernetes and its kubelets would do, in namespaces of our own.
//!
//! - [`launch`], [`namespaces`], [`record`]: the host's side: checks, the lock, the fork into new namespaces
//! - [`start`], [`piece`], [`settings`], [`token`]: the mesh's own processes, kept running
//! - [`controller`]: what pods there are to be; [`replicas`], [`schedule`], [`allocation`],
//!   and [`pod_status`] decide for it; [`desired`] and [`store`] are its input and output
//! - [`waypoint`]: what a waypoint's pod is given besides
//! - [`node`], [`pod`], [`sandbox`]: a pod from its network to its processes
//! - [`network`]: the links between them; [`endpoints`] tells it who answers for a service
//! - [`server`], [`exec`]: what commands ask of a running machine
pub(crate) mod launch;
mod namespaces;
pub(crate) mod record;

mod piece;
mod settings;
mod start;
mod token;

pub(crate) mod allocation;
mod controller;
mod desired;
pub(crate) mod endpoints;
mod pod_status;
pub(crate) mod replicas;
mod schedule;
mod store;
mod waypoint;

pub(crate) mod network;
pub(crate) mod node;
mod pod;
mod resolv_conf;
pub(crate) mod sandbox;

mod exec;
mod server;

mod backoff;
pub(crate) mod file;
mod orphans;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use control_plane::folder::FolderSource;
use control_plane::source::{Batch, Event as Change, Report, Source};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use crate::control::Reply;
use crate::exit::{Exit, Result};
use controller::Controller;
use desired::Author;
use launch::{Config, Report as Progress};
use start::Pieces;

/// Nobody who stops a mesh wants to wait longer for its pods.
const LONGEST_GRACE: Duration = Duration::from_secs(5);
/// Failed writes are tried again, and capture is looked at, without any other cause.
const ROUND: Duration = Duration::from_secs(5);

/// What tasks of the machine share.
struct Machine {
    config: Config,
    started: String,
    controller: RefCell<Controller>,
    network: Rc<network::Network>,
    pieces: RefCell<Vec<piece::Known>>,
    /// Of each node's ztunnel.
    upgrades: RefCell<BTreeMap<String, mpsc::UnboundedSender<piece::Upgrade>>>,
    folder: RefCell<Option<Arc<Report>>>,
    services: watch::Sender<Vec<network::service::Service>>,
    ready: watch::Sender<bool>,
    /// Asked to end.
    shutdown: CancellationToken,
}

/// The machine's life, in its own namespaces.
fn run(config: Config, launcher: UnixStream) -> Result {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .build()?;
    LocalSet::new().block_on(&runtime, live(config, launcher))
}

async fn live(config: Config, mut launcher: UnixStream) -> Result {
    tokio::task::spawn_local(orphans::bury());
    let mut terminate = signal(SignalKind::terminate())?;
    launch::tell(
        &mut launcher,
        &Progress::Progress("making the network".to_owned()),
    )?;
    let network = Rc::new(network::Network::new(config.nodes.into()).await?);
    let (events, mut happened) = mpsc::unbounded_channel();
    let nodes = start::nodes(&config, &network)?;
    let issuer = Rc::new(token::Issuer::new()?);
    let waypoints = Rc::new(waypoint::Outfitter::new(&config, issuer.clone()));
    let machine = Rc::new(Machine {
        controller: RefCell::new(Controller::new(
            config.state.clone(),
            nodes.clone(),
            waypoints,
            events,
        )),
        started: now(),
        network,
        pieces: RefCell::default(),
        upgrades: RefCell::default(),
        folder: RefCell::default(),
        services: watch::channel(Vec::new()).0,
        ready: watch::channel(false).0,
        shutdown: CancellationToken::new(),
        config,
    });
    let (batches, mut changes) = mpsc::channel(16);
    let source = FolderSource::open(
        std::slice::from_ref(&machine.config.folder),
        istio_compat::parse::Raw::Drop,
    )
    .map_err(|error| Exit::BadInput.because(error))?
    .over(machine.config.state.waypoints());
    tokio::spawn(source.run(batches));
    machine.controller.borrow_mut().reconcile();
    tokio::task::spawn_local(publish_services(machine.clone()));
    server::listen(machine.clone())?;
    launch::tell(
        &mut launcher,
        &Progress::Progress("starting the control plane and ztunnel".to_owned()),
    )?;
    let pieces = Pieces::start(&machine, &nodes, issuer)?;
    let readiness = tokio::task::spawn_local(start::announce(machine.clone(), nodes, launcher));

    let mut round = tokio::time::interval(ROUND);
    loop {
        tokio::select! {
            Some(batch) = changes.recv() => machine.take(batch),
            Some((uid, event)) = happened.recv() => {
                let mut controller = machine.controller.borrow_mut();
                controller.note(&uid, event);
                while let Ok((uid, event)) = happened.try_recv() {
                    controller.note(&uid, event);
                }
            }
            _ = round.tick() => {}
            _ = terminate.recv() => machine.shutdown.cancel(),
            () = machine.shutdown.cancelled() => break,
        }
        machine.reconcile();
    }

    tracing::info!("ending");
    readiness.abort();
    machine.controller.borrow_mut().end(LONGEST_GRACE);
    while !machine.controller.borrow().is_empty() {
        let Some((uid, event)) = happened.recv().await else {
            break;
        };
        let mut controller = machine.controller.borrow_mut();
        controller.note(&uid, event);
        controller.reconcile();
    }
    pieces.stop().await;
    tracing::info!("ended");
    Ok(())
}

/// Keeps the network's idea of services at the controller's, one step at a time.
async fn publish_services(machine: Rc<Machine>) {
    let mut services = machine.services.subscribe();
    services.mark_changed();
    while services.changed().await.is_ok() {
        let current = services.borrow_and_update().clone();
        while let Err(error) = machine.network.set_services(&current).await {
            tracing::warn!(%error, "can't publish services");
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                changed = services.changed() => {
                    services.mark_changed();
                    if changed.is_ok() {
                        break;
                    }
                    return;
                }
            }
        }
    }
}

/// RFC 3339, as in objects' metadata.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

// === impl Machine ===

impl Machine {
    /// Takes in what changed in the user's folder, or among the control plane's waypoints.
    fn take(&self, batch: Batch) {
        let waypoints = self.config.state.waypoints();
        let mut controller = self.controller.borrow_mut();
        for event in batch.events {
            match event {
                Change::Applied(object) => {
                    let author = match Path::new(&*object.origin.file).starts_with(&waypoints) {
                        true => Author::ControlPlane,
                        false => Author::User,
                    };
                    controller.desired.apply(&object.body, author);
                }
                Change::Deleted(key) => controller.desired.delete(&key),
            }
        }
        if let Some(report) = batch.report {
            *self.folder.borrow_mut() = Some(report);
        }
    }

    fn reconcile(&self) {
        let mut controller = self.controller.borrow_mut();
        controller.reconcile();
        let (services, pods) = controller.view();
        let services: Vec<_> = services
            .iter()
            .map(|service| endpoints::resolve(service, &pods))
            .collect();
        self.services.send_if_modified(|published| {
            let changed = *published != services;
            if changed {
                *published = services;
            }
            changed
        });
    }

    /// Has another process take the place of a node's ztunnel.
    async fn upgrade_ztunnel(&self, node: &str, program: Option<PathBuf>) -> Reply {
        let upgrades = self.upgrades.borrow().get(node).cloned();
        let Some(upgrades) = upgrades else {
            return Reply::NotFound(format!("there is no node {node}"));
        };
        let (answer, answered) = oneshot::channel();
        // A machine that ends answers nobody.
        let _ = upgrades.send(piece::Upgrade { program, answer });
        match answered.await {
            Ok(Ok(upgraded)) => Reply::Upgraded(upgraded),
            Ok(Err(why)) => Reply::Failed(why),
            Err(_) => Reply::Failed("the mesh is ending, or its ztunnel has".to_owned()),
        }
    }

    fn status(&self) -> crate::control::Status {
        let (nodes, pods, mut problems) = self.controller.borrow().status();
        if let Some(report) = self.folder.borrow().as_ref() {
            let troubles = report.places.iter().filter_map(|place| {
                Some(format!(
                    "{} {}",
                    place.name,
                    place.trouble.as_ref()?.message
                ))
            });
            problems.extend(troubles);
            let errors = report.diagnostics.iter().filter(|diagnostic| {
                diagnostic.severity == istio_compat::diagnostic::Severity::Error
            });
            problems.extend(errors.map(ToString::to_string));
        }
        crate::control::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: record::Record::read(&self.config.state.machine_json())
                .map_or(0, |record| record.launcher.pid),
            started: self.started.clone(),
            ready: *self.ready.borrow(),
            folder: self.config.folder.clone(),
            trust_domain: self.config.trust_domain.clone(),
            trust_domain_aliases: self.config.trust_domain_aliases.clone(),
            pieces: self
                .pieces
                .borrow()
                .iter()
                .map(|piece| piece.borrow().clone())
                .collect(),
            nodes,
            pods,
            problems,
        }
    }
}
