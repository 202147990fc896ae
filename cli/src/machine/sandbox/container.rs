//! A container's life: started, probed, started again as its policy says, ended.
//!
//! ```text
//! waiting ──▶ running ──▶ terminated ──(policy)──▶ waiting (CrashLoopBackOff) ──▶ running …
//!                │ startup probe, then liveness and readiness
//!                └─ stop: SIGTERM; the sandbox's end is the SIGKILL
//! ```
use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use istio_compat::kinds::container::Container as Spec;
use istio_compat::kinds::pod::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, RestartPolicy,
};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::{Shared, environment};
use crate::machine::backoff::Backoff;
use crate::machine::{now, piece};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Ordinary,
}

/// How a container ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Succeeded,
    Failed,
    Stopped,
}

pub(super) struct Container {
    pub(super) shared: Rc<Shared>,
    kind: Kind,
    index: usize,
    variables: BTreeMap<String, String>,
    command: Vec<String>,
    pub(super) started: CancellationToken,
}

/// The status of a container that does nothing yet.
pub(super) fn waiting(name: &str, reason: &str, message: &str) -> ContainerStatus {
    ContainerStatus {
        name: name.to_owned(),
        state: waiting_state(reason, message),
        ..ContainerStatus::default()
    }
}

/// Whether a container that ended is started again.
fn restarts(policy: RestartPolicy, success: bool) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => !success,
        RestartPolicy::Never => false,
    }
}

// === impl Container ===

impl Container {
    pub(super) fn new(shared: Rc<Shared>, kind: Kind, index: usize) -> Self {
        let spec = spec(&shared, kind, index);
        let host = super::inherited().collect();
        let variables = environment::variables(&shared.pod, spec, &host);
        let command = environment::command(spec, &variables);
        Self {
            kind,
            index,
            variables,
            command,
            started: CancellationToken::new(),
            shared,
        }
    }

    /// Cancelled once the container has started, as its startup probe sees it.
    pub(super) fn started(&self) -> CancellationToken {
        self.started.clone()
    }

    /// Until it is not to run any more.
    pub(super) async fn run(self, policy: RestartPolicy, stop: CancellationToken) -> Outcome {
        if self.command.is_empty() {
            let message = "there are no images on one machine: give the container a command";
            self.update(|status| status.state = waiting_state("NoCommand", message));
            stop.cancelled().await;
            return Outcome::Stopped;
        }
        let mut backoff = Backoff::container();
        loop {
            if stop.is_cancelled() {
                return Outcome::Stopped;
            }
            let started = Instant::now();
            let (success, reason) = match self.run_once(&stop).await {
                Ok((status, why)) => (
                    status.success(),
                    why.unwrap_or_else(|| piece::describe(status)),
                ),
                Err(reason) => {
                    self.ended(127, None, "StartError", &reason, &now());
                    (false, reason)
                }
            };
            if stop.is_cancelled() {
                return Outcome::Stopped;
            }
            if !restarts(policy, success) {
                return if success {
                    Outcome::Succeeded
                } else {
                    Outcome::Failed
                };
            }
            let pause = backoff.after(started.elapsed());
            self.update(|status| {
                let last = std::mem::replace(
                    &mut status.state,
                    waiting_state(
                        "CrashLoopBackOff",
                        &format!("{reason}; starting again in {}s", pause.as_secs()),
                    ),
                );
                status.last_state = last;
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Outcome::Stopped,
            }
            self.update(|status| status.restart_count += 1);
        }
    }

    /// One process, from start to end; and why it was ended, where it was.
    async fn run_once(
        &self,
        stop: &CancellationToken,
    ) -> Result<(ExitStatus, Option<String>), String> {
        let mut child = self.spawn(&self.command, true).map_err(|error| {
            let folder = &self.spec().working_dir;
            let place = if folder.is_empty() {
                String::new()
            } else {
                format!(" in {folder}")
            };
            format!("can't start {}{place}: {error}", self.command[0])
        })?;
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .map(Pid::from_raw);
        let started_at = now();
        let name = self.spec().name.clone();
        if let Some(stdout) = child.stdout.take() {
            tokio::task::spawn_local(self.shared.log.clone().follow(name.clone(), stdout));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::task::spawn_local(self.shared.log.clone().follow(name, stderr));
        }
        let unprobed = self.spec().startup_probe.is_none();
        let ready = unprobed && self.spec().readiness_probe.is_none();
        self.update(|status| {
            let running = ContainerStateRunning {
                started_at: Some(started_at.clone()),
            };
            status.state = ContainerState {
                running: Some(running),
                ..ContainerState::default()
            };
            status.started = Some(unprobed);
            status.ready = ready;
        });
        if unprobed {
            self.started.cancel();
        }
        let mut reason = None;
        let status = tokio::select! {
            status = child.wait() => status,
            () = stop.cancelled() => {
                self.update(|status| status.ready = false);
                terminate(&mut child, pid).await
            }
            failed = self.probe() => {
                reason = Some(failed);
                self.update(|status| status.ready = false);
                terminate_within(&mut child, pid, self.grace()).await
            }
        };
        // Whatever the process left behind in its group.
        if let Some(pid) = pid {
            let _ = killpg(pid, Signal::SIGKILL);
        }
        let status = status.map_err(|error| error.to_string())?;
        use std::os::unix::process::ExitStatusExt;
        let code = status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        let word = if status.success() {
            "Completed"
        } else {
            "Error"
        };
        self.ended(
            code,
            status.signal(),
            word,
            reason.as_deref().unwrap_or_default(),
            &started_at,
        );
        Ok((status, reason))
    }

    pub(super) fn spawn(&self, command: &[String], logged: bool) -> std::io::Result<Child> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(std::io::Error::other("no command"));
        };
        let folder = match self.spec().working_dir.as_str() {
            "" => "/",
            folder => folder,
        };
        let output = || {
            if logged {
                Stdio::piped()
            } else {
                Stdio::null()
            }
        };
        Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(&self.variables)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .process_group(0)
            .kill_on_drop(!logged)
            .spawn()
    }

    fn ended(
        &self,
        exit_code: i32,
        signal: Option<i32>,
        reason: &str,
        message: &str,
        started_at: &str,
    ) {
        self.shared.probed(&self.spec().name, None);
        self.update(|status| {
            status.ready = false;
            status.started = Some(false);
            status.state = ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code,
                    signal,
                    reason: reason.to_owned(),
                    message: message.to_owned(),
                    started_at: Some(started_at.to_owned()),
                    finished_at: Some(now()),
                }),
                ..ContainerState::default()
            };
        });
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ContainerStatus)) {
        self.shared.update(self.kind, self.index, change);
    }

    pub(super) fn spec(&self) -> &Spec {
        spec(&self.shared, self.kind, self.index)
    }

    fn grace(&self) -> Duration {
        Duration::from_secs(
            self.shared
                .pod
                .spec
                .termination_grace_period_seconds
                .unwrap_or(30)
                .into(),
        )
    }
}

fn spec(shared: &Shared, kind: Kind, index: usize) -> &Spec {
    match kind {
        Kind::Init => &shared.pod.spec.init_containers[index],
        Kind::Ordinary => &shared.pod.spec.containers[index],
    }
}

/// The machine sets the deadline for a whole pod.
async fn terminate(child: &mut Child, pid: Option<Pid>) -> std::io::Result<ExitStatus> {
    if let Some(pid) = pid {
        let _ = kill(pid, Signal::SIGTERM);
    }
    child.wait().await
}

async fn terminate_within(
    child: &mut Child,
    pid: Option<Pid>,
    grace: Duration,
) -> std::io::Result<ExitStatus> {
    match tokio::time::timeout(grace, terminate(child, pid)).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

fn waiting_state(reason: &str, message: &str) -> ContainerState {
    let waiting = ContainerStateWaiting {
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    ContainerState {
        waiting: Some(waiting),
        ..ContainerState::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_restart_policy_decides() {
        for (policy, after_success, after_failure) in [
            (RestartPolicy::Always, true, true),
            (RestartPolicy::OnFailure, false, true),
            (RestartPolicy::Never, false, false),
        ] {
            assert_eq!(
                (restarts(policy, true), restarts(policy, false)),
                (after_success, after_failure),
                "{policy:?}"
            );
        }
    }
}
