//! The raw system calls of this crate, the only place with `unsafe`.
#![expect(
    unsafe_code,
    reason = "forking, and what happens between fork and exec, have no safe wrapper"
)]
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{ForkResult, Pid};

/// Which namespaces a process starts in.
pub(crate) struct Namespaces {
    /// Joined.
    pub(crate) join: Vec<(OwnedFd, CloneFlags)>,
    /// Made for this process alone.
    pub(crate) make: CloneFlags,
}

/// Where children's pids are counted: see [`spawn_in_pid_namespace`].
pub(crate) enum PidNamespace<'a> {
    New,
    Join(BorrowedFd<'a>),
}

/// Takes over a descriptor just received with `SCM_RIGHTS`.
pub(crate) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel installed it in our table for us alone; nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// Must be called while the process has one thread.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: with one thread no lock can be held by another one at the time of the fork,
    // so that the child may go on as an ordinary process.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Must be called while the process has one thread.
pub(crate) fn set_env(name: &str, value: &std::ffi::OsStr) {
    // SAFETY: nobody else can read the environment meanwhile: there is one thread.
    unsafe { std::env::set_var(name, value) }
}

/// The child enters the namespaces before its program starts. The namespaces' order is kept.
pub(crate) fn enter_before_exec(command: &mut Command, namespaces: Namespaces) {
    // SAFETY: the closure only makes system calls; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            for (namespace, kind) in &namespaces.join {
                setns(namespace, *kind)?;
            }
            if !namespaces.make.is_empty() {
                unshare(namespaces.make)?;
            }
            Ok(())
        });
    }
}

/// The child, in a mount namespace of its own, finds `source` at `target`. Call after [`enter_before_exec`].
pub(crate) fn bind_before_exec(
    command: &mut Command,
    source: std::ffi::CString,
    target: std::ffi::CString,
) {
    use nix::mount::{MsFlags, mount};
    // SAFETY: the closure only makes system calls with strings made before; `mount` copies
    // C strings nowhere.
    unsafe {
        command.pre_exec(move || {
            mount(
                None::<&std::ffi::CStr>,
                c"/",
                None::<&std::ffi::CStr>,
                MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                None::<&std::ffi::CStr>,
            )?;
            mount(
                Some(source.as_c_str()),
                target.as_c_str(),
                None::<&std::ffi::CStr>,
                MsFlags::MS_BIND,
                None::<&std::ffi::CStr>,
            )?;
            Ok(())
        });
    }
}

/// The child leads a session of its own, on the terminal that is its standard input.
pub(crate) fn take_terminal_before_exec(command: &mut Command) {
    // SAFETY: two system calls on a descriptor that is open at that time.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Errno::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
            Ok(())
        });
    }
}

/// Runs `spawn` such that the process it starts on this thread is in another PID namespace.
///
/// A PID namespace can't be entered, only given to children, and the setting stays with the
/// thread: so it is put back.
pub(crate) fn spawn_in_pid_namespace<T>(
    namespace: PidNamespace<'_>,
    spawn: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    let ours = std::fs::File::open("/proc/self/ns/pid")?;
    match namespace {
        PidNamespace::New => unshare(CloneFlags::CLONE_NEWPID)?,
        PidNamespace::Join(descriptor) => setns(descriptor, CloneFlags::CLONE_NEWPID)?,
    }
    let spawned = spawn();
    setns(ours, CloneFlags::CLONE_NEWPID)?;
    spawned
}

/// A descriptor that becomes readable when the process is gone for good.
pub(crate) fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers, gives a new descriptor or an error.
    let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    Ok(own(RawFd::try_from(descriptor).map_err(io::Error::other)?))
}

/// Through a pidfd, so that never another process with the same number is hit.
pub(crate) fn kill_by_pidfd(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    // SAFETY: takes numbers and a null pointer, which means "as kill(2) does".
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// The terminal's size follows the user's.
pub(crate) fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    // SAFETY: a zeroed winsize is a valid one.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: both calls get a valid pointer to a winsize that outlives them.
    unsafe {
        if libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &mut size) == 0 {
            libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &size);
        }
    }
}
