//! The namespaces of a machine: made by its launcher and by its first process.
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use crate::exit::{Exit, Failure, Result};

/// Children of this process, but not itself, are in a new PID namespace.
pub(super) fn new_pid_namespace() -> Result {
    let mut flags = CloneFlags::CLONE_NEWPID;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if !uid.is_root() {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(not_permitted)?;
    if !uid.is_root() {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    Ok(())
}

/// The machine's own steps, once forked: it dies with its launcher and sees nothing of the host's networks.
pub(super) fn enter(launcher: &UnixStream, log: &File) -> Result {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let _ = nix::sys::prctl::set_name(c"weft-machine");
    // Read byte by byte: what follows is not for this reader. A launcher that died before the
    // line above took effect has closed its end.
    let mut go = String::new();
    BufReader::with_capacity(1, launcher).read_line(&mut go)?;
    if go != "go\n" {
        return Err(Exit::Failed.because("the launcher is gone"));
    }
    // Ctrl-C goes to the whole foreground group; the launcher tells us instead.
    nix::unistd::setsid()?;
    let null = File::open("/dev/null")?;
    nix::unistd::dup2_stdin(null)?;
    nix::unistd::dup2_stdout(log)?;
    nix::unistd::dup2_stderr(log)?;
    unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC,
    )
    .map_err(not_permitted)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(not_permitted)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(|errno| {
        Exit::NotPermitted.because(format!(
            "can't mount /proc for the mesh's own processes ({}): in a container, its /proc must not be masked (--privileged)",
            errno.desc()
        ))
    })?;
    nix::unistd::sethostname("weft")?;
    Ok(())
}

fn not_permitted(errno: Errno) -> Failure {
    let how = match errno {
        Errno::ENOSPC | Errno::EUSERS => {
            "this machine's limit is reached: raise the sysctls user.max_user_namespaces, user.max_pid_namespaces and user.max_net_namespaces"
        }
        _ if nix::unistd::geteuid().is_root() => {
            "root lacks CAP_SYS_ADMIN here: in a container, start it with --privileged or --cap-add SYS_ADMIN,NET_ADMIN"
        }
        _ => {
            "run it as root, or allow unprivileged user namespaces: \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), kernel.unprivileged_userns_clone=1 (Debian)"
        }
    };
    Exit::NotPermitted.because(format!("can't make namespaces ({}): {how}", errno.desc()))
}
