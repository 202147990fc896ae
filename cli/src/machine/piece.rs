//! One of the mesh's own processes, kept running, and replaced by another on demand.
mod upgrade;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sched::CloneFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use crate::control;
use crate::system::{self, Namespaces};

pub(crate) use upgrade::Upgrade;

/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
const LONGEST_LOG: u64 = 64 << 20;

/// What to run, and where.
pub(crate) struct Piece {
    pub(crate) name: &'static str,
    pub(crate) node: Option<String>,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<&'static str, String>,
    pub(crate) folder: PathBuf,
    pub(crate) netns: OwnedFd,
    /// What the process finds as /etc/resolv.conf.
    pub(crate) resolv_conf: Option<PathBuf>,
    pub(crate) log: PathBuf,
}

/// What is known of it, for `weft status`.
pub(crate) type Known = Rc<RefCell<control::Piece>>;

// === impl Piece ===

impl Piece {
    pub(crate) fn known(&self) -> Known {
        Rc::new(RefCell::new(control::Piece {
            name: self.name.to_owned(),
            node: self.node.clone(),
            ..control::Piece::default()
        }))
    }

    /// Starts it, and again when it ends, until `stop`; replaces it when told to.
    pub(crate) async fn supervise(
        mut self,
        known: Known,
        stop: CancellationToken,
        mut upgrades: mpsc::UnboundedReceiver<Upgrade>,
    ) {
        let mut backoff = Backoff::piece();
        // Processes that were replaced.
        let mut former = JoinSet::new();
        while !stop.is_cancelled() {
            let started = Instant::now();
            let ended = match self.spawn(None) {
                Ok(mut child) => {
                    note(&known, &child);
                    tracing::info!(piece = %self, "started");
                    let end = self.watch(&mut child, &known, &stop, &mut upgrades, &mut former);
                    match end.await {
                        Some(status) => describe(status),
                        None => {
                            end_child(&mut child).await;
                            break;
                        }
                    }
                }
                Err(error) => format!("can't start {}: {error}", self.program.display()),
            };
            let pause = backoff.after(started.elapsed());
            tracing::warn!(piece = %self, reason = ended, ?pause, "ended; starting it again");
            {
                let mut known = known.borrow_mut();
                known.pid = None;
                known.since = None;
                known.restarts += 1;
                known.last_exit = Some(ended);
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
        known.borrow_mut().pid = None;
        while former.join_next().await.is_some() {}
    }

    /// Until the child has ended, or must. Another may take its place meanwhile.
    async fn watch(
        &mut self,
        child: &mut Child,
        known: &Known,
        stop: &CancellationToken,
        upgrades: &mut mpsc::UnboundedReceiver<Upgrade>,
        former: &mut JoinSet<()>,
    ) -> Option<ExitStatus> {
        let mut look = tokio::time::interval(Duration::from_secs(30));
        loop {
            tokio::select! {
                status = child.wait() => return status.ok(),
                () = stop.cancelled() => return None,
                Some(upgrade) = upgrades.recv() => {
                    let replaced = tokio::select! {
                        replaced = self.upgrade(child, upgrade) => replaced,
                        () = stop.cancelled() => return None,
                    };
                    if let Some(replaced) = replaced {
                        note(known, child);
                        let version = version(&self.program, "version").await;
                        known.borrow_mut().version = version;
                        former.spawn_local(upgrade::bury(replaced, known.clone(), stop.clone()));
                    }
                }
                Some(_) = former.join_next() => {}
                _ = look.tick() => {
                    if let Err(error) = super::file::rotate(&self.log, LONGEST_LOG) {
                        tracing::warn!(piece = %self, %error, "can't shorten the log");
                    }
                }
            }
        }
    }

    /// Starts the program, which tells `notify` when it serves.
    fn spawn(&self, notify: Option<&Path>) -> std::io::Result<Child> {
        let log = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(&self.environment)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        if let Some(notify) = notify {
            command.env("NOTIFY_SOCKET", notify);
        }
        let namespaces = Namespaces {
            join: vec![(self.netns.try_clone()?, CloneFlags::CLONE_NEWNET)],
            make: CloneFlags::CLONE_NEWNS,
        };
        system::enter_before_exec(command.as_std_mut(), namespaces);
        if let Some(resolv_conf) = &self.resolv_conf {
            system::bind_before_exec(
                command.as_std_mut(),
                c_string(resolv_conf)?,
                c"/etc/resolv.conf".to_owned(),
            );
        }
        command.spawn()
    }
}

impl std::fmt::Display for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        self.node
            .as_ref()
            .map_or(Ok(()), |node| write!(f, "/{node}"))
    }
}

/// The first line of what the program says about its version.
pub(crate) async fn version(program: &Path, argument: &str) -> String {
    let run = Command::new(program)
        .arg(argument)
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(Duration::from_secs(5), run).await {
        Ok(Ok(output)) if output.status.success() => String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned(),
        _ => String::new(),
    }
}

/// How a process ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => Signal::try_from(signal).map_or_else(
            |_| format!("signal {signal}"),
            |signal| signal.as_str().to_owned(),
        ),
        (None, None) => "ended".to_owned(),
    }
}

fn note(known: &Known, child: &Child) {
    let mut known = known.borrow_mut();
    known.pid = pid(child);
    known.since = Some(super::now());
}

fn pid(child: &Child) -> Option<i32> {
    child.id().and_then(|pid| i32::try_from(pid).ok())
}

async fn end_child(child: &mut Child) {
    if let Some(pid) = pid(child) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

fn c_string(path: &Path) -> std::io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
