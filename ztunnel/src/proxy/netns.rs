//! Runs a closure in another network namespace. Sockets keep the namespace they were made in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process;

use nix::sched::{CloneFlags, setns};

thread_local! {
    /// Where this thread belongs.
    static HOME: io::Result<File> = File::open("/proc/thread-self/ns/net");
}

/// Brings the thread home when dropped, also by a panic.
struct Visit<'a>(&'a File);

impl Drop for Visit<'_> {
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
    HOME.with(|home| {
        let home = home
            .as_ref()
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        setns(netns, CloneFlags::CLONE_NEWNET)?;
        let _visit = Visit(home);
        action()
    })
}
