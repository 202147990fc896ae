//! One process of a piece takes another's place: the new one says when it serves, as to a service
//! manager (`sd_notify(3)`), and until then nothing has changed.
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::UnixDatagram;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Known, Piece, describe, end_child, pid, version};
use crate::control::Upgraded;

/// A process that does not serve by then is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// Said by a process which listens beside its predecessor instead of taking over from it.
const BESIDE: &str = "X_WEFT_HANDOVER=0";

/// What a command asks for.
pub(crate) struct Upgrade {
    /// The one that runs, where it is none.
    pub(crate) program: Option<PathBuf>,
    pub(crate) answer: oneshot::Sender<Result<Upgraded, String>>,
}

/// A process that was replaced.
pub(super) struct Former {
    child: Child,
    /// Whether it ends of its own accord, when its connections have.
    handed_over: bool,
}

impl Piece {
    /// Puts another process in the child's place, and answers how that went. The former one, if
    /// it was replaced.
    pub(super) async fn upgrade(&mut self, child: &mut Child, upgrade: Upgrade) -> Option<Former> {
        let former = self.program.clone();
        if let Some(program) = upgrade.program {
            self.program = program;
        }
        let started = Instant::now();
        match self.successor().await {
            Ok((next, handed_over)) => {
                let next_pid = pid(&next).unwrap_or_default();
                let child = std::mem::replace(child, next);
                let upgraded = Upgraded {
                    pid: next_pid,
                    former: pid(&child).unwrap_or_default(),
                    version: version(&self.program, "version").await,
                    milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    handed_over,
                };
                tracing::info!(piece = %self, ?upgraded, "replaced");
                // Whoever asked may have gone.
                let _ = upgrade.answer.send(Ok(upgraded));
                Some(Former { child, handed_over })
            }
            Err(why) => {
                self.program = former;
                tracing::warn!(piece = %self, why, "not replaced");
                let _ = upgrade.answer.send(Err(why));
                None
            }
        }
    }

    /// A process that serves, and whether it was handed what the former one had.
    async fn successor(&self) -> Result<(Child, bool), String> {
        let path = self.folder.join("notify.sock");
        let _ = std::fs::remove_file(&path);
        let notices = UnixDatagram::bind(&path)
            .map_err(|error| format!("can't listen on {}: {error}", path.display()))?;
        let written = std::fs::metadata(&self.log).map_or(0, |log| log.len());
        let mut next = self
            .spawn(Some(&path))
            .map_err(|error| format!("can't start {}: {error}", self.program.display()))?;
        let serves = tokio::select! {
            handed_over = ready(&notices) => Ok(handed_over),
            status = next.wait() => {
                let how = status.map_or_else(|error| error.to_string(), describe);
                let words = super::super::launch::last_words(&self.said_since(written));
                Err(format!("it ended ({how}) before it served{words}"))
            }
            () = tokio::time::sleep(PATIENCE) => {
                Err(format!("it did not serve within {} s", PATIENCE.as_secs()))
            }
        };
        match serves {
            Ok(handed_over) => Ok((next, handed_over)),
            Err(why) => {
                end_child(&mut next).await;
                Err(format!("{why}; the former process serves on"))
            }
        }
    }
}

impl Piece {
    /// What was logged behind `written` bytes, but for connections: both processes log to one
    /// file, and the former one serves.
    fn said_since(&self, written: u64) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(written)
            .unwrap_or(usize::MAX)
            .min(log.len());
        let said = String::from_utf8_lossy(&log[start..]);
        let lines = said.lines().filter(|line| !line.contains("\taccess\t"));
        lines.collect::<Vec<_>>().join("\n")
    }
}

/// Waits until the new process says that it serves; whether it has taken over.
async fn ready(notices: &UnixDatagram) -> bool {
    let mut text = [0; 4096];
    loop {
        // Another process of the same user could speak here too; it could as well stop us.
        let length = notices.recv(&mut text).await.unwrap_or_default();
        let state = String::from_utf8_lossy(&text[..length]);
        if state.lines().any(|line| line == "READY=1") {
            return !state.lines().any(|line| line == BESIDE);
        }
    }
}

/// Waits for the end of a process that was replaced, and hastens it where the mesh ends.
pub(super) async fn bury(former: Former, known: Known, stop: CancellationToken) {
    let Former {
        mut child,
        handed_over,
    } = former;
    let number = pid(&child);
    known.borrow_mut().former.extend(number);
    if let (false, Some(number)) = (handed_over, number) {
        let _ = kill(Pid::from_raw(number), Signal::SIGTERM);
    }
    tokio::select! {
        status = child.wait() => {
            tracing::info!(pid = number, ended = status.map(describe).ok(), "a replaced process is gone");
        }
        () = stop.cancelled() => end_child(&mut child).await,
    }
    known.borrow_mut().former.retain(|one| Some(*one) != number);
}
