//! Work inside another network namespace, on a thread of its own: a caller never moves.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::sync::oneshot;

/// Makes a namespace that lives as long as a descriptor of it, or a process inside it.
pub fn create() -> io::Result<OwnedFd> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        current()
    })?
}

/// The namespace of the calling thread.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `job` inside `netns` and waits for it, blocking the calling thread.
pub fn run_blocking<T: Send>(netns: impl AsFd, job: impl FnOnce() -> T + Send) -> io::Result<T> {
    let netns = netns.as_fd();
    on_thread(move || enter(netns).map(|()| job()))?
}

/// Runs `job`, which may block, inside `netns`.
pub async fn run<T: Send + 'static>(
    netns: impl AsFd,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let netns = netns.as_fd().try_clone_to_owned()?;
    let (tx, rx) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || {
            let result = enter(netns.as_fd()).map(|()| job());
            // The caller may have stopped waiting.
            let _ = tx.send(result);
        })?;
    rx.await
        .unwrap_or_else(|_| Err(io::Error::other("the work inside the namespace panicked")))
}

/// A route netlink handle that speaks to `netns`; sockets stay in the namespace they were made in.
///
/// Must be called inside a Tokio runtime, which drives the connection until the handle is dropped.
pub fn netlink(netns: impl AsFd) -> io::Result<rtnetlink::Handle> {
    let runtime = tokio::runtime::Handle::current();
    let (connection, handle, _) = run_blocking(netns, || {
        let _reactor = runtime.enter();
        rtnetlink::new_connection()
    })??;
    runtime.spawn(connection);
    Ok(handle)
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setns(netns, CloneFlags::CLONE_NEWNET)?)
}

fn on_thread<T: Send>(job: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, job)?
            .join()
            .map_err(|_| io::Error::other("the work inside the namespace panicked"))
    })
}
