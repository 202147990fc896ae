//! The first process of a pod: PID 1 of its PID namespace, kubelet and container runtime in one.
//!
//! The machine starts it in the pod's namespaces with a socket as standard input, tells it
//! what to run once the network is ready, and hears of every change. When it ends, the
//! kernel ends everything in the pod.
//!
//! - [`environment`]: what a container's process is given
//! - [`container`]: a container's life
//! - [`health`], [`probe`]: whether it is started, alive, ready
//! - [`log`]: what it writes
mod container;
mod environment;
mod health;
mod log;
mod probe;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use istio_compat::kinds::container::ContainerRestartPolicy;
use istio_compat::kinds::pod::{ContainerStatus, Pod, RestartPolicy};
use nix::mount::{MsFlags, mount};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio_util::sync::CancellationToken;

use container::{Container, Kind, Outcome};
use log::Log;

/// From the machine, a line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Order {
    Start(Box<Assignment>),
    Terminate { grace: Duration },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Assignment {
    /// With its addresses and its node in place.
    pub(crate) pod: Pod,
    pub(crate) resolv_conf: String,
    pub(crate) log: PathBuf,
}

/// To the machine, a line of JSON each: everything, whenever something changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Report {
    /// All init containers have done their work.
    pub(crate) initialized: bool,
    pub(crate) init_containers: Vec<ContainerStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
    /// What the last probe of a container said, where it failed.
    pub(crate) failing_probes: BTreeMap<String, String>,
    /// Nothing runs and nothing will be started again.
    pub(crate) finished: bool,
    /// The sandbox itself failed.
    pub(crate) failure: Option<String>,
}

/// What the containers of one pod share.
struct Shared {
    pod: Pod,
    log: Log,
    report: RefCell<Report>,
    changed: Notify,
    /// Asked to end, with so much time.
    terminate: CancellationToken,
}

/// The life of a sandbox; the hidden command's body.
pub(crate) fn main() -> anyhow::Result<()> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let (read, mut write) = UnixStream::from_std(socket)?.into_split();
        let mut orders = BufReader::new(read).lines();
        tokio::task::spawn_local(super::orphans::bury());
        let assignment = match next(&mut orders).await? {
            Some(Order::Start(assignment)) => assignment,
            Some(Order::Terminate { .. }) | None => return Ok(()),
        };
        if let Err(error) = prepare(&assignment) {
            let report = Report { failure: Some(format!("{error:#}")), ..Report::default() };
            return send(&mut write, &report).await;
        }
        let shared = Rc::new(Shared::new(assignment)?);
        let mut work = tokio::task::spawn_local(run(shared.clone()));
        let mut sent = Report::default();
        let mut deadline = None;
        loop {
            let report = shared.report.borrow().clone();
            if report != sent {
                send(&mut write, &report).await?;
                sent = report;
            }
            if sent.finished {
                return Ok(());
            }
            tokio::select! {
                () = shared.changed.notified() => {}
                result = &mut work => result?,
                order = next(&mut orders), if deadline.is_none() => match order? {
                    Some(Order::Terminate { grace }) => {
                        deadline = Some(tokio::time::Instant::now() + grace);
                        shared.terminate.cancel();
                    }
                    Some(Order::Start(_)) => {}
                    None => return Ok(()),
                },
                () = async { tokio::time::sleep_until(deadline.unwrap_or_else(tokio::time::Instant::now)).await }, if deadline.is_some() => {
                    // What is left dies with this process.
                    return Ok(());
                }
            }
        }
    })
}

/// What containers inherit of the machine's environment.
pub(crate) fn inherited() -> impl Iterator<Item = (String, String)> {
    ["PATH", "HOME", "LANG"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
}

/// The environment and the working folder of a container, the first unless one is named.
pub(crate) fn settings(
    pod: &Pod,
    container: Option<&str>,
) -> Result<(BTreeMap<String, String>, String), String> {
    let mut all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let names = || {
        all.clone()
            .map(|container| container.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let found = match container {
        Some(name) => all
            .clone()
            .find(|container| container.name == name)
            .ok_or_else(|| format!("the pod has no container {name:?}, only {}", names()))?,
        None => all.next().ok_or("the pod has no container")?,
    };
    let folder = if found.working_dir.is_empty() {
        "/"
    } else {
        &found.working_dir
    };
    Ok((
        environment::variables(pod, found, &inherited().collect()),
        folder.to_owned(),
    ))
}

/// Init containers one after the other, then all containers together.
async fn run(shared: Rc<Shared>) {
    let policy = shared.pod.spec.restart_policy;
    let mut sidecars = Vec::new();
    let sidecars_stop = CancellationToken::new();
    for index in 0..shared.pod.spec.init_containers.len() {
        let sidecar = shared.pod.spec.init_containers[index].restart_policy
            == Some(ContainerRestartPolicy::Always);
        let container = Container::new(shared.clone(), Kind::Init, index);
        if sidecar {
            let stop = sidecars_stop.clone();
            let started = container.started();
            sidecars.push(tokio::task::spawn_local(async move {
                container.run(RestartPolicy::Always, stop).await
            }));
            tokio::select! {
                () = started.cancelled() => {}
                () = shared.terminate.cancelled() => break,
            }
            continue;
        }
        // An init container runs to its success: to start it again always would never end.
        let policy = match policy {
            RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
            RestartPolicy::Never => RestartPolicy::Never,
        };
        match container.run(policy, shared.terminate.clone()).await {
            Outcome::Succeeded => {}
            Outcome::Failed | Outcome::Stopped => {
                sidecars_stop.cancel();
                shared.finish();
                return;
            }
        }
    }
    if !shared.terminate.is_cancelled() {
        shared.report.borrow_mut().initialized = true;
        shared.changed.notify_one();
        let mut containers = Vec::new();
        for index in 0..shared.pod.spec.containers.len() {
            let container = Container::new(shared.clone(), Kind::Ordinary, index);
            let stop = shared.terminate.clone();
            containers.push(tokio::task::spawn_local(async move {
                container.run(policy, stop).await
            }));
        }
        for container in containers {
            let _ = container.await;
        }
    }
    sidecars_stop.cancel();
    for sidecar in sidecars {
        let _ = sidecar.await;
    }
    shared.finish();
}

/// The pod's own view of the file system: its processes, its name service, its name.
fn prepare(assignment: &Assignment) -> anyhow::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("can't make mounts private")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).context("can't mount /proc")?;
    let pod = &assignment.pod;
    let name = environment::hostname(pod);
    nix::unistd::sethostname(&name).context("can't set the host name")?;

    let folder = assignment.log.parent().context("a log without folder")?;
    // Name services of the host that glibc would ask before /etc/resolv.conf.
    for services in ["/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon"] {
        if Path::new(services).is_dir() {
            let options = Some("mode=0755,size=64k");
            mount(
                Some("tmpfs"),
                services,
                Some("tmpfs"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
                options,
            )
            .with_context(|| format!("can't cover {services}"))?;
        }
    }
    cover(
        "/etc/resolv.conf",
        &folder.join("resolv.conf"),
        &assignment.resolv_conf,
    )?;
    cover(
        "/etc/hosts",
        &folder.join("hosts"),
        &environment::hosts(pod, &name),
    )?;
    Ok(())
}

/// Makes `path` hold `content` in this mount namespace.
fn cover(path: &str, source: &Path, content: &str) -> anyhow::Result<()> {
    std::fs::write(source, content).with_context(|| format!("can't write {}", source.display()))?;
    if !Path::new(path).exists() {
        // A symbolic link into a folder covered above.
        let _ = std::fs::write(path, "");
    }
    mount(
        Some(source),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("can't give the pod its {path}"))
}

async fn next(
    orders: &mut tokio::io::Lines<BufReader<tokio::net::unix::OwnedReadHalf>>,
) -> anyhow::Result<Option<Order>> {
    match orders.next_line().await? {
        Some(line) => Ok(Some(serde_json::from_str(&line)?)),
        None => Ok(None),
    }
}

async fn send(write: &mut tokio::net::unix::OwnedWriteHalf, report: &Report) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(write.write_all(&line).await?)
}

// === impl Shared ===

impl Shared {
    fn new(assignment: Box<Assignment>) -> io::Result<Self> {
        let Assignment { pod, log, .. } = *assignment;
        let waiting = |containers: &[istio_compat::kinds::container::Container]| {
            containers
                .iter()
                .map(|container| container::waiting(&container.name, "PodInitializing", ""))
                .collect()
        };
        let report = Report {
            init_containers: waiting(&pod.spec.init_containers),
            containers: waiting(&pod.spec.containers),
            ..Report::default()
        };
        Ok(Self {
            log: Log::open(log)?,
            pod,
            report: RefCell::new(report),
            changed: Notify::new(),
            terminate: CancellationToken::new(),
        })
    }

    fn update(&self, kind: Kind, index: usize, change: impl FnOnce(&mut ContainerStatus)) {
        let mut report = self.report.borrow_mut();
        let statuses = match kind {
            Kind::Init => &mut report.init_containers,
            Kind::Ordinary => &mut report.containers,
        };
        if let Some(status) = statuses.get_mut(index) {
            change(status);
        }
        drop(report);
        self.changed.notify_one();
    }

    /// The report is sent when it changes, and not with every answer.
    fn probed(&self, container: &str, failure: Option<String>) {
        let mut report = self.report.borrow_mut();
        let failing = &mut report.failing_probes;
        if failing.get(container) == failure.as_ref() {
            return;
        }
        match failure {
            Some(failure) => failing.insert(container.to_owned(), failure),
            None => failing.remove(container),
        };
        drop(report);
        self.changed.notify_one();
    }

    fn finish(&self) {
        self.report.borrow_mut().finished = true;
        self.changed.notify_one();
    }
}
