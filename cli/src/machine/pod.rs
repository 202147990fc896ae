//! One pod from its network to its end: attached, captured, run, released, gone.
//!
//! ```text
//! attach network ─▶ capture, if enabled ─▶ sandbox starts containers ─▶ … ─▶ detach
//!                        ▲     │ not before ztunnel has acknowledged
//!                        └─────┴─ follows the labels while the pod runs
//! ```
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use cni::agent::{self, Enrolment};
use cni::rules::Options;
use istio_compat::kinds::pod::{Pod, PodIp};
use nix::sched::CloneFlags;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::network::PodInterface;
use super::node::Node;
use super::pod_status::Stage;
use super::resolv_conf::ResolvConf;
use super::sandbox::{Assignment, Order, Report};
use super::waypoint::Outfitter;
use crate::state::State;
use crate::system::{self, Namespaces, PidNamespace};

/// How long peers get to learn that a pod no longer speaks HBONE before it stops to.
const RELEASE_NOTICE: Duration = Duration::from_millis(250);
/// Beyond the grace period the sandbox itself may need to end.
const SANDBOX_MARGIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// What the machine wants of a running pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    /// To be captured, and how.
    pub(crate) capture: Option<Options>,
    /// To end, with so much time for its containers.
    pub(crate) end: Option<Duration>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Event {
    Stage(Stage),
    Attached(Vec<IpAddr>),
    /// The sandbox's pid in the machine's PID namespace.
    Started(i32),
    Report(Box<Report>),
    Captured,
    /// Should be captured, and isn't yet.
    CapturePending(String),
    /// About to be released; goes on when the sender is used or dropped.
    Releasing(oneshot::Sender<()>),
    /// Nothing of it is left.
    Gone,
}

pub(crate) struct Life {
    pub(crate) pod: Pod,
    pub(crate) node: Rc<Node>,
    pub(crate) state: State,
    pub(crate) interface: Option<PodInterface>,
    /// For a waypoint: who gives it its token.
    pub(crate) waypoint: Option<Rc<Outfitter>>,
    pub(crate) wish: watch::Receiver<Wish>,
    /// The pod's uid goes along: names are used again.
    pub(crate) events: mpsc::UnboundedSender<(String, Event)>,
}

// === impl Life ===

impl Life {
    pub(crate) async fn run(mut self) {
        let uid = self.pod.metadata.uid.clone();
        let netns = cni::netns::create();
        let lived = match &netns {
            Ok(netns) => self.live(netns).await,
            Err(error) => Err(anyhow::anyhow!("no network namespace: {error}")),
        };
        if let Err(error) = lived {
            tracing::warn!(pod = %self, %error, "the pod can't go on");
            let report = Report {
                failure: Some(format!("{error:#}")),
                finished: true,
                ..Report::default()
            };
            self.tell(Event::Report(Box::new(report)));
        }
        if let Ok(netns) = netns {
            self.node.agent.forget(&uid, netns).await;
        }
        if let Some(interface) = self.interface.take() {
            self.node.detach(interface).await;
        }
        // A finished pod's record stays until somebody deletes it.
        ended(self.wish.clone()).await;
        self.tell(Event::Gone);
    }

    async fn live(&mut self, netns: &OwnedFd) -> anyhow::Result<()> {
        let interface = tokio::select! {
            interface = self.attach(netns) => interface,
            () = ended(self.wish.clone()) => return Ok(()),
        };
        let addresses = interface.ips.clone();
        self.interface = Some(interface);
        self.pod.status.pod_ip = addresses.first().copied();
        self.pod.status.pod_ips = addresses.iter().map(|ip| PodIp { ip: *ip }).collect();
        self.pod.status.host_ip = self.node.addresses().first().copied();
        self.tell(Event::Attached(addresses));

        let (settled, captured) = oneshot::channel();
        let capture = Capture {
            life: self,
            netns: netns.as_fd(),
            enrolled: false,
        };
        let wish = self.wish.clone();
        let work = async {
            // Nothing of the pod runs before it is where it belongs: never plaintext first.
            tokio::select! {
                result = captured => drop(result),
                () = ended(wish.clone()) => return Ok(()),
            }
            if let Some(outfitter) = &self.waypoint {
                tokio::select! {
                    result = outfitter.equip(&self.pod, &self.node) => result?,
                    () = ended(wish.clone()) => return Ok(()),
                }
            }
            self.contain(netns, wish).await
        };
        let renewal = async {
            match &self.waypoint {
                Some(outfitter) => outfitter.renew(&self.pod, &self.node).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = work => result,
            never = renewal => match never {},
            never = capture.follow(settled) => match never {},
        }
    }

    async fn attach(&self, netns: &OwnedFd) -> PodInterface {
        loop {
            match self.node.attach(netns).await {
                Ok(interface) => return interface,
                Err(error) => {
                    let message = format!("{error:#}");
                    self.tell(Event::Stage(Stage::Waiting {
                        reason: "NetworkNotReady",
                        message,
                    }));
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Runs the sandbox to its end.
    async fn contain(
        &self,
        netns: &OwnedFd,
        mut wish: watch::Receiver<Wish>,
    ) -> anyhow::Result<()> {
        let (mut sandbox, read, mut write) = self.spawn(netns)?;
        if let Some(pid) = sandbox.id().and_then(|pid| i32::try_from(pid).ok()) {
            self.tell(Event::Started(pid));
        }
        let metadata = &self.pod.metadata;
        let log = self.state.pod_log(&metadata.namespace, &metadata.name);
        if let Some(folder) = log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let resolv_conf = ResolvConf::of(&self.pod, &host).to_string();
        order(
            &mut write,
            &Order::Start(Box::new(Assignment {
                pod: self.pod.clone(),
                resolv_conf,
                log,
            })),
        )
        .await?;
        self.tell(Event::Stage(Stage::Running));

        let mut reports = BufReader::new(read).lines();
        let mut last = Report::default();
        loop {
            tokio::select! {
                line = reports.next_line() => match line? {
                    Some(line) => {
                        last = serde_json::from_str(&line)?;
                        self.tell(Event::Report(Box::new(last.clone())));
                    }
                    None => break,
                },
                () = ended(wish.clone()) => {
                    let grace = wish.borrow_and_update().end.unwrap_or_default();
                    let _ = order(&mut write, &Order::Terminate { grace }).await;
                    if tokio::time::timeout(grace + SANDBOX_MARGIN, sandbox.wait()).await.is_err() {
                        sandbox.kill().await?;
                    }
                    return Ok(());
                }
            }
        }
        let status = sandbox.wait().await?;
        if !last.finished && last.failure.is_none() {
            anyhow::bail!(
                "the pod's first process ended ({})",
                super::piece::describe(status)
            );
        }
        Ok(())
    }

    fn spawn(&self, netns: &OwnedFd) -> anyhow::Result<(Child, OwnedReadHalf, OwnedWriteHalf)> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("sandbox")
            .arg0(format!("weft pod {self}"))
            .env_clear()
            .envs(
                ["PATH", "HOME", "LANG"]
                    .into_iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .kill_on_drop(true);
        let namespaces = Namespaces {
            join: vec![(netns.try_clone()?, CloneFlags::CLONE_NEWNET)],
            make: CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC,
        };
        system::enter_before_exec(command.as_std_mut(), namespaces);
        let sandbox = system::spawn_in_pid_namespace(PidNamespace::New, || command.spawn())?;
        ours.set_nonblocking(true)?;
        let (read, write) = UnixStream::from_std(ours)?.into_split();
        Ok((sandbox, read, write))
    }

    fn tell(&self, event: Event) {
        // The machine is gone only when everything is.
        let _ = self.events.send((self.pod.metadata.uid.clone(), event));
    }
}

impl std::fmt::Display for Life {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}/{}",
            self.pod.metadata.namespace, self.pod.metadata.name
        )
    }
}

/// Keeps a pod captured or not, as wished.
struct Capture<'a> {
    life: &'a Life,
    netns: std::os::fd::BorrowedFd<'a>,
    enrolled: bool,
}

// === impl Capture ===

impl Capture<'_> {
    /// `settled` is used once the pod is where it was to be first.
    async fn follow(mut self, settled: oneshot::Sender<()>) -> std::convert::Infallible {
        let mut settled = Some(settled);
        let mut wish = self.life.wish.clone();
        let mut agent = self.life.node.agent.changed();
        loop {
            let wanted = wish.borrow_and_update().capture.clone();
            let is_wanted = wanted.is_some();
            agent.borrow_and_update();
            let mut retry = None;
            if let Some(options) = wanted {
                match self.enrol(options).await {
                    Ok(Enrolment::Enabled) => {
                        self.life.tell(Event::Captured);
                        settled.take().map(|settled| settled.send(()));
                    }
                    Ok(Enrolment::Pending { reason }) => {
                        self.life.tell(Event::CapturePending(reason))
                    }
                    Err(error) => {
                        self.life.tell(Event::CapturePending(format!("{error:#}")));
                        retry = Some(RETRY);
                    }
                }
            } else {
                self.release().await;
                settled.take().map(|settled| settled.send(()));
            }
            tokio::select! {
                // Without a machine nobody wishes for anything.
                changed = wish.changed() => if changed.is_err() { std::future::pending::<()>().await },
                changed = agent.changed(), if is_wanted => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep(retry.unwrap_or_default()), if retry.is_some() => {}
            }
        }
    }

    async fn enrol(&mut self, options: Options) -> anyhow::Result<Enrolment> {
        let agent = &self.life.node.agent;
        let pod = &self.life.pod;
        let uid = &pod.metadata.uid;
        if self.enrolled
            && let Some(enrolment) = agent.enrolment(uid)
        {
            agent.adjust(uid, options).await?;
            return Ok(enrolment);
        }
        let described = agent::Pod {
            uid: uid.clone(),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            service_account: pod.service_account().to_owned(),
            search_domains: ResolvConf::of(pod, "").searches,
            options,
        };
        let enrolment = agent
            .enrol(described, self.netns.try_clone_to_owned()?)
            .await?;
        self.enrolled = true;
        Ok(enrolment)
    }

    async fn release(&mut self) {
        if !self.enrolled {
            return;
        }
        let (done, withdrawn) = oneshot::channel();
        self.life.tell(Event::Releasing(done));
        let _ = withdrawn.await;
        tokio::time::sleep(RELEASE_NOTICE).await;
        self.life
            .node
            .agent
            .unenrol(&self.life.pod.metadata.uid)
            .await;
        self.enrolled = false;
    }
}

async fn ended(mut wish: watch::Receiver<Wish>) {
    // A machine that is gone wishes the pod's end, too.
    let _ = wish.wait_for(|wish| wish.end.is_some()).await;
}

async fn order(write: &mut OwnedWriteHalf, order: &Order) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    Ok(write.write_all(&line).await?)
}
