//! What the first process of a PID namespace owes: burying those whose parents are gone.
//!
//! Our own children are waited for by those who started them, also on other threads. A
//! plain `wait` for anybody would take their results away, so only what stays dead for a
//! while without anybody asking is buried.
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn bury() {
    let Ok(mut died) = signal(SignalKind::child()) else {
        return;
    };
    while died.recv().await.is_some() {
        let mut seen = None;
        loop {
            tokio::time::sleep(PATIENCE).await;
            let dead = oldest_dead();
            match dead {
                Some(pid) if seen == dead => {
                    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
                    seen = None;
                }
                Some(_) => seen = dead,
                None => break,
            }
        }
    }
}

fn oldest_dead() -> Option<Pid> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::All, flags) {
        Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => Some(pid),
        _ => None,
    }
}
