//! The host's side of a mesh: checks what is needed, takes the lock, forks the machine into
//! namespaces of its own, and waits for it.
//!
//! ```text
//! weft up ── fork ──▶ machine: PID 1 of new PID, mount, network, UTS and IPC namespaces
//!   │                    │     (and user namespace, when not root)
//!   │ holds the lock     │ holds the lock too; killed by the kernel when `weft up` dies;
//!   ▼                    ▼ when it dies, the kernel kills everything inside
//! ```
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::namespaces;
use super::record::{Process, Record};
use crate::exit::{Exit, Failure, Result};
use crate::state::State;
use crate::system;

/// What the machine is to run, checked.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) state: State,
    pub(crate) folder: PathBuf,
    pub(crate) nodes: u8,
    /// The program of each node's ztunnel, in order.
    pub(crate) ztunnels: Vec<PathBuf>,
    pub(crate) control_plane: PathBuf,
    pub(crate) waypoint: PathBuf,
    pub(crate) cacerts: Option<PathBuf>,
    pub(crate) trust_domain: String,
    pub(crate) trust_domain_aliases: Vec<String>,
}

/// What the machine tells its launcher, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Report {
    Progress(String),
    Ready,
    Failed { exit: u8, reason: String },
}

/// A forked machine, as its launcher sees it.
pub(crate) struct Launched {
    state: State,
    machine: Pid,
    process: OwnedFd,
    signals: SignalFd,
    reports: BufReader<UnixStream>,
    _lock: File,
}

/// Why the launcher woke up.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Report,
    Ended,
}

/// The lock on the state folder, and the folder's readiness.
pub(crate) fn prepare(config: &Config) -> Result<File> {
    let state = &config.state;
    let root = state.root();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .map_err(|error| writing(root, &error))?;
    let lock = lock(state)?;
    // Whatever is there belongs to a mesh that is gone.
    remove_run(state)?;
    for folder in [
        state.run(),
        state.cluster(),
        state.waypoints(),
        state.run().join("control-plane"),
        state.ca(),
    ] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|error| writing(&folder, &error))?;
    }
    if config.folder == state.objects() {
        std::fs::create_dir_all(&config.folder).map_err(|error| writing(&config.folder, &error))?;
    }
    Ok(lock)
}

/// Fails with [`Exit::TryAgain`] while another mesh runs here.
pub(crate) fn lock(state: &State) -> Result<File> {
    let path = state.lock();
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| writing(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let who = match Record::read(&state.machine_json()) {
                Some(record) => format!(" (pid {})", record.launcher.pid),
                None => String::new(),
            };
            Err(Exit::TryAgain.because(format!(
                "a mesh is already running at {}{who}: stop it with `weft down`, or give another folder with --state",
                state.root().display()
            )))
        }
        Err(TryLockError::Error(error)) => Err(writing(&path, &error)),
    }
}

/// Removes all that goes with a running mesh. Only under the lock.
pub(crate) fn remove_run(state: &State) -> Result {
    let run = state.run();
    match std::fs::remove_dir_all(&run) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(&run, &error)),
        _ => Ok(()),
    }
}

/// Forks the machine. Must be called while the process has one thread.
pub(crate) fn launch(config: Config, lock: File) -> Result<Launched> {
    let (ours, theirs) = UnixStream::pair()?;
    let log_path = config.state.machine_log();
    let log = File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|error| writing(&log_path, &error))?;
    let record = Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        launcher: Process::of(std::process::id().cast_signed())?,
        machine: Process {
            pid: 0,
            start_time: 0,
        },
        folder: config.folder.clone(),
        nodes: (1..=config.nodes)
            .map(|index| super::node::name(index.into()))
            .collect(),
        started: super::now(),
    };
    namespaces::new_pid_namespace()?;
    let Some(machine) = system::fork()? else {
        drop(ours);
        let code = in_machine(config, theirs, log, lock);
        std::process::exit(code);
    };
    drop(theirs);
    let state = config.state;
    let record = Record {
        machine: Process::of(machine.as_raw())?,
        ..record
    };
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals.thread_block()?;
    let launched = Launched {
        state,
        machine,
        process: system::pidfd(machine.as_raw())?,
        signals: SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?,
        reports: BufReader::new(ours),
        _lock: lock,
    };
    let path = launched.state.machine_json();
    super::file::write(&path, &serde_json::to_vec_pretty(&record)?)
        .map_err(|error| unwritten(&error))?;
    // The machine waits for this: it must not outlive a launcher that failed so far.
    launched.reports.get_ref().write_all(b"go\n")?;
    Ok(launched)
}

/// A plain sentence and the exit code for a file that can't be made.
pub(crate) fn writing(path: &Path, error: &io::Error) -> Failure {
    let text = format!("can't write {}: {error}", path.display());
    unwritten(&io::Error::new(error.kind(), text))
}

/// Says what to do about an error that names its file.
fn unwritten(error: &io::Error) -> Failure {
    let (exit, hint) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (
            Exit::Failed,
            ": the disk of the state folder is full; free some space, or give another folder with --state",
        ),
        io::ErrorKind::PermissionDenied => {
            (Exit::NotPermitted, ": give a folder of yours with --state")
        }
        io::ErrorKind::ReadOnlyFilesystem => (Exit::NotPermitted, ""),
        _ => (Exit::Failed, ""),
    };
    exit.because(format!("{error}{hint}"))
}

/// The machine's first steps, in the forked child; returns its exit code.
fn in_machine(config: Config, launcher: UnixStream, log: File, lock: File) -> i32 {
    let mut reports = match launcher.try_clone() {
        Ok(reports) => reports,
        Err(_) => return 1,
    };
    let failed = |reports: &mut UnixStream, failure: Failure| {
        let full = failure
            .error
            .downcast_ref()
            .filter(|error: &&io::Error| error.kind() == io::ErrorKind::StorageFull);
        let failure = full.map(unwritten).unwrap_or(failure);
        let report = Report::Failed {
            exit: failure.exit.code(),
            reason: format!("{:#}", failure.error),
        };
        let _ = tell(reports, &report);
        i32::from(failure.exit.code())
    };
    if let Err(failure) = namespaces::enter(&launcher, &log) {
        return failed(&mut reports, failure);
    }
    match super::run(config, launcher) {
        Ok(()) => {
            drop(lock);
            0
        }
        Err(failure) => failed(&mut reports, failure),
    }
}

/// Sends one report to the launcher.
pub(crate) fn tell(launcher: &mut UnixStream, report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    launcher.write_all(&line)
}

// === impl Launched ===

impl Launched {
    /// Follows the machine until it is ready, or has failed. From here on Ctrl-C, a closed
    /// terminal and `kill` end the machine in order; the second time at once.
    pub(crate) fn wait_until_ready(&mut self, mut progress: impl FnMut(&str)) -> Result {
        let mut line = String::new();
        loop {
            if self.reports.buffer().is_empty() && self.wait_for(true)? == Cause::Ended {
                return Err(self.died());
            }
            line.clear();
            if self.reports.read_line(&mut line)? == 0 {
                return Err(self.died());
            }
            match serde_json::from_str(&line)? {
                Report::Progress(step) => progress(&step),
                Report::Ready => return Ok(()),
                Report::Failed { exit, reason } => {
                    let failure = Exit::from_code(exit).because(reason);
                    let _ = waitpid(self.machine, None);
                    let _ = remove_run(&self.state);
                    return Err(failure);
                }
            }
        }
    }

    /// Until the machine tells something, if that is of interest, or has ended. Passes signals on.
    fn wait_for(&self, reports: bool) -> Result<Cause> {
        let mut interrupted = false;
        loop {
            let mut watched = vec![
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.process.as_fd(), PollFlags::POLLIN),
            ];
            if reports {
                watched.push(PollFd::new(
                    self.reports.get_ref().as_fd(),
                    PollFlags::POLLIN,
                ));
            }
            match poll(&mut watched, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let is_ready = |index: usize| watched.get(index).and_then(PollFd::any).unwrap_or(false);
            if is_ready(2) {
                return Ok(Cause::Report);
            }
            if is_ready(1) {
                return Ok(Cause::Ended);
            }
            if is_ready(0) && self.signals.read_signal()?.is_some() {
                let how = if interrupted {
                    Signal::SIGKILL
                } else {
                    Signal::SIGTERM
                };
                let _ = kill(self.machine, how);
                interrupted = true;
            }
        }
    }

    /// Waits for the machine's end, and removes what went with it.
    pub(crate) fn wait(self) -> Result {
        while self.wait_for(false)? != Cause::Ended {}
        let status = loop {
            match waitpid(self.machine, None) {
                Err(Errno::EINTR) => {}
                other => break other?,
            }
        };
        let log = match status {
            WaitStatus::Exited(_, 0) => None,
            _ => std::fs::read_to_string(self.state.machine_log()).ok(),
        };
        remove_run(&self.state)?;
        match log {
            None => Ok(()),
            Some(log) => Err(Exit::Failed.because(format!(
                "the mesh ended ({}){}",
                describe(status),
                last_words(&log)
            ))),
        }
    }

    fn died(&mut self) -> Failure {
        let status = waitpid(self.machine, None);
        let log = std::fs::read_to_string(self.state.machine_log()).unwrap_or_default();
        let _ = remove_run(&self.state);
        let how = status.map_or_else(|errno| errno.desc().to_owned(), describe);
        Exit::Failed.because(format!(
            "the mesh ended before it was ready ({how}){}",
            last_words(&log)
        ))
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit code {code}"),
        WaitStatus::Signaled(_, signal, _) => signal.as_str().to_owned(),
        other => format!("{other:?}"),
    }
}

/// The end of a log, to stand under an error.
pub(super) fn last_words(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    if last.is_empty() {
        String::new()
    } else {
        format!(":\n  {}", last.join("\n  "))
    }
}
