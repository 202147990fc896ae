//! Upgrades by command: `ztunnel upgrade` starts the program that is in its place on the disk now,
//! and waits until that serves. A running tunnel starts no programs: it has given up the right to.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::packet;

/// A successor that does not serve by then is stopped.
const PATIENCE: Duration = Duration::from_secs(120);
/// The socket's name in its folder.
const NOTIFY: &str = "notify";
/// How often it is looked at whether the successor still runs.
const LOOK: Duration = Duration::from_millis(50);

/// Where a successor says what becomes of it. Only its own user gets there: whoever else could speak
/// here would tell the service manager, through a root that it believes, which process is the service.
struct Notices {
    folder: PathBuf,
    socket: UnixDatagram,
}

/// Has a successor of the process that answers at `path` started; its pid, once it serves.
pub fn run(path: &Path) -> anyhow::Result<u32> {
    if !packet::is_answered(path) {
        bail!("no ztunnel answers at {}", path.display());
    }
    // A service manager hears of the new process from here: it knows this one.
    let beside = path.parent().unwrap_or(Path::new("/"));
    let notices = Notices::listen(beside).context("cannot listen to the successor")?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut successor = Command::new(&program)
        .arg("proxy")
        .env("NOTIFY_SOCKET", notices.path())
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let deadline = Instant::now() + PATIENCE;
    match serves(&notices.socket, &mut successor, deadline) {
        Ok(state) => {
            runtime::notify::tell(&passed_on(&state, successor.id()));
            Ok(successor.id())
        }
        Err(error) => {
            // It has ended already, or must.
            let _ = successor.kill();
            let _ = successor.wait();
            Err(error.context("the former process serves on"))
        }
    }
}

/// What the manager hears of it: that `pid` serves, and what people are told.
fn passed_on(state: &str, pid: u32) -> String {
    let status = state.lines().filter(|line| line.starts_with("STATUS="));
    std::iter::once(format!("READY=1\nMAINPID={pid}"))
        .chain(status.map(str::to_owned))
        .collect::<Vec<_>>()
        .join("\n")
}

/// What the successor says when it serves.
fn serves(
    notices: &UnixDatagram,
    successor: &mut Child,
    deadline: Instant,
) -> anyhow::Result<String> {
    let mut state = [0; 4096];
    loop {
        match notices.recv(&mut state) {
            Ok(length) => {
                let state = String::from_utf8_lossy(&state[..length]);
                if state.lines().any(|line| line == "READY=1") {
                    return Ok(state.into_owned());
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) => {}
            Err(error) => return Err(error).context("cannot hear the successor"),
        }
        if let Some(status) = successor.try_wait()? {
            bail!("the new one ended with {status} before it was ready");
        }
        if Instant::now() >= deadline {
            bail!("the new one was not ready within {} s", PATIENCE.as_secs());
        }
    }
}

// === impl Notices ===

impl Notices {
    fn listen(beside: &Path) -> io::Result<Self> {
        let folder = beside.join(format!("upgrade-{}", std::process::id()));
        // Of a process that had our number and was killed.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        DirBuilder::new().mode(0o700).create(&folder)?;
        let socket = UnixDatagram::bind(folder.join(NOTIFY))?;
        socket.set_read_timeout(Some(LOOK))?;
        Ok(Self { folder, socket })
    }

    fn path(&self) -> PathBuf {
        self.folder.join(NOTIFY)
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::thread;

    use nix::unistd::{Uid, setfsuid};

    use super::*;

    const NOBODY: u32 = 65534;

    #[test]
    fn nobody_else_can_say_that_the_successor_serves() {
        let beside = tempfile::tempdir().expect("a folder");
        let open = |path: &Path| {
            let all = fs::Permissions::from_mode(0o777);
            fs::set_permissions(path, all).expect("permitted");
        };
        open(beside.path());
        let notices = Notices::listen(beside.path()).expect("listens");
        open(&notices.path());
        let say = |user: Uid, state: &'static str| {
            let path = notices.path();
            // It is the thread's alone.
            let saying = thread::spawn(move || {
                setfsuid(user);
                let socket = UnixDatagram::unbound().expect("a socket");
                socket.send_to(state.as_bytes(), path).map(drop)
            });
            saying
                .join()
                .expect("no panic")
                .map_err(|error| error.kind())
        };
        let forged = say(Uid::from_raw(NOBODY), "READY=1\nMAINPID=1\nSTATUS=forged");
        assert_eq!(forged, Err(io::ErrorKind::PermissionDenied));
        say(Uid::effective(), "READY=1\nSTATUS=serves").expect("said");
        let mut successor = Command::new("sleep").arg("60").spawn().expect("sleep");
        let deadline = Instant::now() + PATIENCE;
        let state = serves(&notices.socket, &mut successor, deadline).expect("serves");
        assert_eq!(passed_on(&state, 7), "READY=1\nMAINPID=7\nSTATUS=serves");
        successor.kill().expect("killed");
        successor.wait().expect("ended");
        drop(notices);
        let left = fs::read_dir(beside.path()).expect("readable").count();
        assert_eq!(left, 0);
    }

    #[test]
    fn only_what_everybody_may_say_is_passed_on() {
        let state = "READY=1\nMAINPID=1\nFDSTORE=1\nSTATUS=serves\nX_WEFT_HANDOVER=0";
        assert_eq!(passed_on(state, 7), "READY=1\nMAINPID=7\nSTATUS=serves");
    }
}
