//! Runs a closure in another network namespace. Sockets keep the namespace they were made in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process;
use std::sync::OnceLock;

use nix::sched::{CloneFlags, setns};

/// Where every thread of this process belongs.
static HOME: OnceLock<File> = OnceLock::new();

/// Brings the thread home when dropped, also by a panic.
struct Visit(&'static File);

impl Drop for Visit {
    fn drop(&mut self) {
        if let Err(error) = setns(self.0, CloneFlags::CLONE_NEWNET) {
            // Every socket this thread makes from here on would be some pod's.
            tracing::error!(%error, "can't leave a pod's network namespace");
            process::abort();
        }
    }
}

/// Calls `action` in the namespace, or right here when there is none.
///
/// The closure is synchronous, so that no other task of this thread runs in the pod.
pub(crate) fn within<R>(
    netns: Option<&OwnedFd>,
    action: impl FnOnce() -> io::Result<R>,
) -> io::Result<R> {
    let Some(netns) = netns else {
        return action();
    };
    let home = home()?;
    setns(netns, CloneFlags::CLONE_NEWNET)?;
    let _visit = Visit(home);
    action()
}

/// A new namespace with its loopback up.
#[cfg(test)]
pub(crate) fn new() -> std::sync::Arc<OwnedFd> {
    let made = std::thread::spawn(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
        // The program starts in this thread's namespace.
        let up = process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip is installed").success());
        File::open("/proc/thread-self/ns/net").expect("exists")
    });
    std::sync::Arc::new(made.join().expect("no panic").into())
}

/// The process's own namespace, found by whoever leaves it first.
fn home() -> io::Result<&'static File> {
    if let Some(home) = HOME.get() {
        return Ok(home);
    }
    let found = File::open("/proc/thread-self/ns/net")?;
    Ok(HOME.get_or_init(|| found))
}
