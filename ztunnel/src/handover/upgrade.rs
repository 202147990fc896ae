//! Upgrades by command: `ztunnel upgrade` starts the program that is in its place on the disk now,
//! and waits until that serves. A running tunnel starts no programs: it has given up the right to.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::packet;

/// A successor that does not serve by then is stopped.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often it is looked at whether the successor still runs.
const LOOK: Duration = Duration::from_millis(50);

/// Has a successor of the process that answers at `path` started; its pid, once it serves.
pub fn run(path: &Path) -> anyhow::Result<u32> {
    if !packet::is_answered(path) {
        bail!("no ztunnel answers at {}", path.display());
    }
    // A service manager hears of the new process from here: it knows this one.
    let name = format!("weft-upgrade-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name)?;
    let notices = UnixDatagram::bind_addr(&address).context("cannot listen to the successor")?;
    notices.set_read_timeout(Some(LOOK))?;
    let program = std::env::current_exe().context("cannot tell which program this is")?;
    let mut successor = Command::new(&program)
        .arg("proxy")
        .env("NOTIFY_SOCKET", format!("@{name}"))
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let deadline = Instant::now() + PATIENCE;
    match serves(&notices, &mut successor, deadline) {
        Ok(state) => {
            runtime::notify::tell(&state);
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
