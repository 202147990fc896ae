//! Starts the mesh's own processes and says when the mesh is ready.
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use cni::agent::Agent;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::launch::{self, Config, Report};
use super::network::{Network, plan};
use super::node::Node;
use super::piece::{self, Piece};
use super::resolv_conf::ResolvConf;
use super::settings::passed_on;
use super::token::Issuer;
use super::{Machine, file, node};
use crate::exit::{Exit, Result};
use crate::state::State;

pub(super) const CONTROL_PLANE_PORT: u16 = 15012;
const LOOK: Duration = Duration::from_millis(20);
/// How often the authority's files are looked at.
const TRUST_LOOK: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(60);
/// A piece that ended so often while starting won't start.
const MOST_RESTARTS: u32 = 5;

/// The running processes; they end with [`Pieces::stop`].
pub(super) struct Pieces {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// The nodes with their folders and agents.
pub(super) fn nodes(config: &Config, network: &Rc<Network>) -> anyhow::Result<Vec<Rc<Node>>> {
    (1..=config.nodes)
        .map(|index| {
            let folder = config.state.node(&node::name(index.into()));
            for below in ["var/run/secrets/tokens", "var/run/secrets/istio"] {
                make(&folder.join(below))?;
            }
            let socket = folder.join("ztunnel.sock");
            let agent = Agent::new(&socket)
                .with_context(|| format!("can't listen on {}", socket.display()))?;
            let node = Node::new(index.into(), agent, network.clone());
            tokio::spawn(node.serve_metrics().context("metrics of a node's agent")?);
            Ok(Rc::new(node))
        })
        .collect()
}

/// Tells the launcher once everything answers.
pub(super) async fn announce(machine: Rc<Machine>, nodes: Vec<Rc<Node>>, mut launcher: UnixStream) {
    let ready = async {
        let socket = machine.config.state.api_socket();
        while !answers(&socket).await {
            tokio::time::sleep(LOOK).await;
        }
        while !nodes.iter().all(|node| node.agent.ztunnel_connected())
            || machine.folder.borrow().is_none()
        {
            tokio::time::sleep(LOOK).await;
        }
    };
    let hopeless = async {
        while machine
            .pieces
            .borrow()
            .iter()
            .all(|piece| piece.borrow().restarts < MOST_RESTARTS)
        {
            tokio::time::sleep(LOOK).await;
        }
    };
    let ready = async {
        tokio::select! {
            () = ready => true,
            () = hopeless => false,
            () = tokio::time::sleep(PATIENCE) => false,
        }
    };
    let report = if ready.await {
        machine.ready.send_replace(true);
        Report::Ready
    } else {
        Report::Failed {
            exit: Exit::TryAgain.code(),
            reason: machine.what_is_missing(&nodes),
        }
    };
    tracing::info!(?report, "started");
    // Its loss is noticed by the kernel.
    let _ = launch::tell(&mut launcher, &report);
    if matches!(report, Report::Failed { .. }) {
        machine.shutdown.cancel();
    }
    // The launcher takes the end of this socket for the machine's.
    std::future::pending::<()>().await;
}

/// Whether the control plane says that it is ready.
async fn answers(socket: &Path) -> bool {
    let ask = async {
        let mut stream = tokio::net::UnixStream::connect(socket).await?;
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer.ends_with(b" 200"))
    };
    matches!(
        tokio::time::timeout(Duration::from_secs(1), ask).await,
        Ok(Ok(true))
    )
}

pub(super) fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("can't make {}", folder.display()))
}

// === impl Pieces ===

impl Pieces {
    pub(super) fn start(
        machine: &Rc<Machine>,
        nodes: &[Rc<Node>],
        issuer: Rc<Issuer>,
    ) -> Result<Self> {
        let state = &machine.config.state;
        file::write(&state.token_issuer(), issuer.public_key())?;
        let resolv_conf = state.run().join("resolv.conf");
        file::write(
            &resolv_conf,
            ResolvConf::cluster(node::SYSTEM_NAMESPACE)
                .to_string()
                .as_bytes(),
        )?;

        let mut pieces = Self {
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        pieces.add(
            machine,
            control_plane(&machine.config, &machine.network)?,
            "--version",
        );
        for node in nodes {
            issuer.write(&node.token_subject(), &state.node(&node.name))?;
            let ztunnel = ztunnel(&machine.config, node, &resolv_conf)?;
            pieces.add(machine, ztunnel, "version");
        }
        tokio::task::spawn_local(renew(issuer, nodes.to_vec(), state.clone()));
        Ok(pieces)
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    fn add(&mut self, machine: &Rc<Machine>, piece: Piece, version: &'static str) {
        let known = piece.known();
        machine.pieces.borrow_mut().push(known.clone());
        let (upgrade, upgrades) = mpsc::unbounded_channel();
        if let Some(node) = &piece.node {
            machine.upgrades.borrow_mut().insert(node.clone(), upgrade);
        }
        let (program, waits) = (piece.program.clone(), piece.node.is_some());
        let (state, cacerts) = (machine.config.state.clone(), machine.config.cacerts.clone());
        let stop = self.stop.clone();
        self.tasks.spawn_local({
            let known = known.clone();
            async move {
                if waits {
                    tokio::select! {
                        () = give_trust(&state, cacerts.as_deref(), &piece.folder) => {}
                        () = stop.cancelled() => return,
                    }
                    let folder = piece.folder.clone();
                    tokio::task::spawn_local(keep_trust(state, cacerts, folder));
                }
                piece.supervise(known, stop, upgrades).await;
            }
        });
        tokio::task::spawn_local(async move {
            let version = piece::version(&program, version).await;
            known.borrow_mut().version = version;
        });
    }
}

/// What proxies are given of the authority's files: whom to trust, and whom no longer.
const GIVEN: [&str; 2] = ["root-cert.pem", REVOKED];
const REVOKED: &str = "crl.pem";

/// Where a proxy looks for them, in its folder.
const SECRETS: &str = "var/run/secrets/istio";

/// Where a proxy finds the revocation lists. An operator's authority has some from the start, or none.
pub(super) fn revocation_lists(cacerts: Option<&Path>, folder: &Path) -> Option<String> {
    let path = folder.join(SECRETS).join(REVOKED);
    cacerts
        .is_none_or(|cacerts| cacerts.join(REVOKED).exists())
        .then(|| path.display().to_string())
}

/// Puts the authority's files where a proxy looks for them, as soon as they are there.
pub(super) async fn give_trust(state: &State, cacerts: Option<&Path>, folder: &Path) {
    while !copy_trust(state, cacerts, folder, &mut Default::default()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Keeps them the same as the authority's, whose roots change when one is replaced, and whose revocation
/// lists when a certificate is taken back.
pub(super) async fn keep_trust(state: State, cacerts: Option<PathBuf>, folder: PathBuf) {
    let mut known = Default::default();
    loop {
        tokio::time::sleep(TRUST_LOOK).await;
        copy_trust(&state, cacerts.as_deref(), &folder, &mut known);
    }
}

/// Whether all of it is there. What is `known` is not written again.
fn copy_trust(
    state: &State,
    cacerts: Option<&Path>,
    folder: &Path,
    known: &mut [Vec<u8>; GIVEN.len()],
) -> bool {
    let mut complete = true;
    for (name, known) in GIVEN.into_iter().zip(known) {
        let is_copied = match cacerts {
            None => copy(&state.ca(), folder, name, known),
            // An operator's authority need not have any lists.
            Some(cacerts) => copy(cacerts, folder, name, known) || name == REVOKED,
        };
        complete &= is_copied;
    }
    complete
}

fn copy(authority: &Path, folder: &Path, name: &str, known: &mut Vec<u8>) -> bool {
    let content = std::fs::read(authority.join(name)).unwrap_or_default();
    if content.is_empty() {
        return false;
    }
    if content != *known {
        let path = folder.join(SECRETS).join(name);
        if std::fs::read(&path).is_ok_and(|there| there == content) {
            *known = content;
            return true;
        }
        match file::write(&path, &content) {
            Ok(()) => *known = content,
            Err(error) => {
                tracing::warn!(%error);
                return false;
            }
        }
    }
    true
}

/// Keeps the nodes' tokens good.
async fn renew(issuer: Rc<Issuer>, nodes: Vec<Rc<Node>>, state: State) {
    let renewals = nodes.iter().map(async |node| {
        let (subject, folder) = (node.token_subject(), state.node(&node.name));
        issuer.renew(&subject, &folder).await
    });
    futures::future::join_all(renewals).await;
}

fn control_plane(config: &Config, network: &Network) -> anyhow::Result<Piece> {
    let state = &config.state;
    let text = |path: &Path| path.display().to_string();
    // A kernel without IPv6 knows no address of its.
    let any = if network.has_ipv6() {
        "[::]"
    } else {
        "0.0.0.0"
    };
    let mut arguments = vec![
        "--folder".to_owned(),
        text(&config.folder),
        "--cluster".to_owned(),
        text(&state.cluster()),
        "--waypoints".to_owned(),
        text(&state.waypoints()),
        "--ca-dir".to_owned(),
        text(&state.ca()),
        "--token-issuer".to_owned(),
        text(&state.token_issuer()),
        "--xds-listen".to_owned(),
        format!("{any}:{CONTROL_PLANE_PORT}"),
        "--metrics-listen".to_owned(),
        format!("{any}:15014"),
        "--api-socket".to_owned(),
        text(&state.api_socket()),
        "--trust-domain".to_owned(),
        config.trust_domain.clone(),
    ];
    arguments.extend(["--san".to_owned(), plan::CONTROL_PLANE_IPV4.to_string()]);
    for alias in &config.trust_domain_aliases {
        arguments.extend(["--trust-domain-alias".to_owned(), alias.clone()]);
    }
    if let Some(cacerts) = &config.cacerts {
        arguments.extend(["--cacerts".to_owned(), text(cacerts)]);
    }
    Ok(Piece {
        name: "control-plane",
        node: None,
        program: config.control_plane.clone(),
        arguments,
        environment: passed_on(),
        folder: state.run(),
        netns: network.control_plane().try_clone_to_owned()?,
        resolv_conf: None,
        log: state.control_plane_log(),
    })
}

fn ztunnel(config: &Config, node: &Node, resolv_conf: &Path) -> anyhow::Result<Piece> {
    let folder = config.state.node(&node.name);
    let addresses = node.addresses();
    let address = addresses.first().context("a node without address")?;
    let control_plane = format!("https://{}:{CONTROL_PLANE_PORT}", plan::CONTROL_PLANE_IPV4);
    let cidrs: Vec<String> = plan::cluster_cidrs()
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut environment = passed_on();
    environment.extend([
        ("XDS_ADDRESS", control_plane.clone()),
        ("CA_ADDRESS", control_plane),
        ("NODE_NAME", node.name.clone()),
        ("CLUSTER_ID", "Kubernetes".to_owned()),
        ("CLUSTER_CIDRS", cidrs.join(",")),
        ("TRUST_DOMAIN", config.trust_domain.clone()),
        ("POD_NAME", node.ztunnel_name()),
        ("POD_NAMESPACE", node::SYSTEM_NAMESPACE.to_owned()),
        ("SERVICE_ACCOUNT", "ztunnel".to_owned()),
        ("INSTANCE_IP", address.to_string()),
        (
            "INPOD_UDS",
            folder.join("ztunnel.sock").display().to_string(),
        ),
    ]);
    let lists = revocation_lists(config.cacerts.as_deref(), &folder);
    environment.extend(lists.map(|path| ("CRL_PATH", path)));
    Ok(Piece {
        name: "ztunnel",
        node: Some(node.name.clone()),
        program: node.ztunnel_program(&config.ztunnels).to_owned(),
        arguments: Vec::new(),
        environment,
        log: config.state.ztunnel_log(&node.name),
        folder,
        netns: node.netns().try_clone_to_owned()?,
        resolv_conf: Some(resolv_conf.to_owned()),
    })
}

// === impl Machine ===

impl Machine {
    fn what_is_missing(&self, nodes: &[Rc<Node>]) -> String {
        let mut missing = Vec::new();
        for piece in self.pieces.borrow().iter() {
            let piece = piece.borrow();
            let log = match &piece.node {
                Some(node) => self.config.state.ztunnel_log(node),
                None => self.config.state.control_plane_log(),
            };
            if let Some(ended) = &piece.last_exit {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                missing.push(format!(
                    "{} keeps ending ({ended}){}",
                    piece.name,
                    launch::last_words(&said)
                ));
            }
        }
        for node in nodes.iter().filter(|node| !node.agent.ztunnel_connected()) {
            missing.push(format!("ztunnel of {} has not connected", node.name));
        }
        if missing.is_empty() {
            missing.push("the control plane does not answer".to_owned());
        }
        format!("the mesh doesn't get ready: {}", missing.join("; "))
    }
}
