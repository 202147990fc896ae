//! System calls that each program needs (seccomp(2)); every other one fails with EPERM, and one
//! that only an intruder makes ends the process.

use std::collections::BTreeMap;

use libc as sys;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Why system calls could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("system calls of the architecture {0} are not known")]
    Architecture(&'static str),
    #[error("can't build the filter of system calls: {0}")]
    Build(#[from] seccompiler::BackendError),
    #[error("can't install the filter of system calls: {0}")]
    Install(#[from] seccompiler::Error),
}

const READING: &[i64] = &[
    sys::SYS_read,
    // Descriptors may be sockets.
    sys::SYS_write,
    sys::SYS_readv,
    sys::SYS_writev,
    sys::SYS_pread64,
    sys::SYS_preadv,
    sys::SYS_preadv2,
    sys::SYS_close,
    sys::SYS_close_range,
    sys::SYS_fstat,
    sys::SYS_newfstatat,
    sys::SYS_statx,
    sys::SYS_statfs,
    sys::SYS_fstatfs,
    sys::SYS_faccessat,
    sys::SYS_faccessat2,
    sys::SYS_lseek,
    sys::SYS_getdents64,
    sys::SYS_readlinkat,
    sys::SYS_dup,
    sys::SYS_dup3,
    sys::SYS_fcntl,
    sys::SYS_ioctl,
    sys::SYS_pipe2,
    sys::SYS_splice,
    sys::SYS_getcwd,
];

const OPENING: &[i64] = &[sys::SYS_openat, sys::SYS_openat2];

const WRITING: &[i64] = &[
    sys::SYS_pwrite64,
    sys::SYS_pwritev,
    sys::SYS_pwritev2,
    sys::SYS_fsync,
    sys::SYS_fdatasync,
    sys::SYS_ftruncate,
    sys::SYS_fallocate,
    sys::SYS_fchmod,
    sys::SYS_fchmodat,
    sys::SYS_renameat,
    sys::SYS_renameat2,
    sys::SYS_unlinkat,
    sys::SYS_mkdirat,
    sys::SYS_flock,
    sys::SYS_umask,
];

const WATCHING: &[i64] = &[
    sys::SYS_inotify_init1,
    sys::SYS_inotify_add_watch,
    sys::SYS_inotify_rm_watch,
];

const EVENTS: &[i64] = &[
    sys::SYS_ppoll,
    sys::SYS_pselect6,
    sys::SYS_epoll_create1,
    sys::SYS_epoll_ctl,
    sys::SYS_epoll_pwait,
    sys::SYS_epoll_pwait2,
    sys::SYS_eventfd2,
    sys::SYS_signalfd4,
    sys::SYS_timerfd_create,
    sys::SYS_timerfd_settime,
    sys::SYS_timerfd_gettime,
];

const SOCKETS: &[i64] = &[
    sys::SYS_bind,
    sys::SYS_accept,
    sys::SYS_accept4,
    sys::SYS_connect,
    sys::SYS_shutdown,
    sys::SYS_getsockname,
    sys::SYS_getpeername,
    sys::SYS_getsockopt,
    sys::SYS_setsockopt,
    sys::SYS_sendto,
    sys::SYS_recvfrom,
    sys::SYS_sendmsg,
    sys::SYS_recvmsg,
    sys::SYS_sendmmsg,
    sys::SYS_recvmmsg,
];

/// Sockets of any kind, and for others to connect to.
const ANY_SOCKET: &[i64] = &[sys::SYS_socket, sys::SYS_socketpair, sys::SYS_listen];

/// A pod's network namespace is entered to make sockets there.
const NAMESPACES: &[i64] = &[sys::SYS_setns];

const MEMORY: &[i64] = &[
    sys::SYS_brk,
    sys::SYS_mmap,
    sys::SYS_munmap,
    sys::SYS_mremap,
    sys::SYS_mprotect,
    sys::SYS_madvise,
    sys::SYS_mincore,
    sys::SYS_mlock,
    sys::SYS_munlock,
    sys::SYS_membarrier,
];

const THREADS: &[i64] = &[
    sys::SYS_clone,
    sys::SYS_clone3,
    sys::SYS_futex,
    sys::SYS_set_robust_list,
    sys::SYS_get_robust_list,
    sys::SYS_set_tid_address,
    sys::SYS_rseq,
    sys::SYS_gettid,
    sys::SYS_getpid,
    sys::SYS_getppid,
    sys::SYS_prctl,
    sys::SYS_sched_yield,
    sys::SYS_sched_getaffinity,
    sys::SYS_sched_setaffinity,
    sys::SYS_sched_getparam,
    sys::SYS_sched_getscheduler,
    sys::SYS_getcpu,
    sys::SYS_exit,
    sys::SYS_exit_group,
    sys::SYS_restart_syscall,
];

const SIGNALS: &[i64] = &[
    sys::SYS_rt_sigaction,
    sys::SYS_rt_sigprocmask,
    sys::SYS_rt_sigreturn,
    sys::SYS_rt_sigpending,
    sys::SYS_rt_sigsuspend,
    sys::SYS_rt_sigtimedwait,
    sys::SYS_sigaltstack,
    sys::SYS_tgkill,
];

const OTHER_PROCESSES: &[i64] = &[
    sys::SYS_kill,
    sys::SYS_pidfd_open,
    sys::SYS_pidfd_send_signal,
];

const TIME_AND_SELF: &[i64] = &[
    sys::SYS_clock_gettime,
    sys::SYS_clock_getres,
    sys::SYS_clock_nanosleep,
    sys::SYS_nanosleep,
    sys::SYS_gettimeofday,
    sys::SYS_times,
    sys::SYS_getitimer,
    sys::SYS_setitimer,
    sys::SYS_getuid,
    sys::SYS_geteuid,
    sys::SYS_getgid,
    sys::SYS_getegid,
    sys::SYS_getgroups,
    sys::SYS_capget,
    sys::SYS_uname,
    sys::SYS_sysinfo,
    sys::SYS_prlimit64,
    sys::SYS_getrusage,
    sys::SYS_getrandom,
];

/// What newer architectures no longer have, and the C library of this one still calls.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[i64] = &[
    sys::SYS_stat,
    sys::SYS_lstat,
    sys::SYS_access,
    sys::SYS_readlink,
    sys::SYS_dup2,
    sys::SYS_pipe,
    sys::SYS_poll,
    sys::SYS_select,
    sys::SYS_epoll_create,
    sys::SYS_epoll_wait,
    sys::SYS_time,
    sys::SYS_arch_prctl,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[i64] = &[];

#[cfg(target_arch = "x86_64")]
const LEGACY_WRITING: &[i64] = &[
    sys::SYS_open,
    sys::SYS_chmod,
    sys::SYS_rename,
    sys::SYS_unlink,
    sys::SYS_mkdir,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY_WRITING: &[i64] = &[];

/// What every program makes.
const ALL: [&[i64]; 8] = [
    READING,
    EVENTS,
    SOCKETS,
    MEMORY,
    THREADS,
    SIGNALS,
    TIME_AND_SELF,
    LEGACY,
];

/// What no program of the mesh does by mistake.
const HOSTILE: &[i64] = &[
    sys::SYS_execve,
    sys::SYS_execveat,
    sys::SYS_ptrace,
    sys::SYS_process_vm_readv,
    sys::SYS_process_vm_writev,
    sys::SYS_init_module,
    sys::SYS_finit_module,
    sys::SYS_delete_module,
    sys::SYS_kexec_load,
    sys::SYS_mount,
    sys::SYS_umount2,
    sys::SYS_pivot_root,
    sys::SYS_chroot,
    sys::SYS_reboot,
    sys::SYS_swapon,
    sys::SYS_keyctl,
    sys::SYS_userfaultfd,
];

/// What is left of each call: always, or under one of these conditions.
type Left = BTreeMap<i64, Vec<SeccompRule>>;

/// Leaves every thread of the process, and all that it starts, what a tunnel of a node needs.
///
/// Other calls fail with EPERM; those that run or inspect programs, mount, or change the kernel
/// kill the process (SIGSYS).
pub fn leave_to_proxies() -> Result<(), FilterError> {
    leave(always(&[
        OPENING,
        WRITING,
        LEGACY_WRITING,
        WATCHING,
        ANY_SOCKET,
        NAMESPACES,
        OTHER_PROCESSES,
    ]))
}

/// As [`leave_to_proxies`], for a waypoint that serves: it opens files to read them only, makes
/// sockets of the Internet and of this host only, listens nowhere else, and signals nobody.
pub fn leave_to_waypoints() -> Result<(), FilterError> {
    let mut left = always(&[]);
    left.extend([
        (sys::SYS_openat, vec![to_read(2)?]),
        (sys::SYS_socket, of_families()?),
    ]);
    #[cfg(target_arch = "x86_64")]
    left.insert(sys::SYS_open, vec![to_read(1)?]);
    leave(left)
}

/// As [`leave_to_proxies`], for a control plane that serves: folders are watched and written, and
/// sockets are as a waypoint's.
pub fn leave_to_control_planes() -> Result<(), FilterError> {
    let mut left = always(&[OPENING, WRITING, LEGACY_WRITING, WATCHING]);
    left.insert(sys::SYS_socket, of_families()?);
    leave(left)
}

fn always(besides: &[&[i64]]) -> Left {
    let calls = ALL.iter().chain(besides).copied().flatten();
    calls.map(|call| (*call, Vec::new())).collect()
}

/// Only where the flags, which are this argument, neither make nor change a file.
fn to_read(argument: u8) -> Result<SeccompRule, seccompiler::BackendError> {
    let changing = sys::O_ACCMODE | sys::O_CREAT | sys::O_TRUNC;
    let unset = SeccompCmpOp::MaskedEq(u64::from(changing.unsigned_abs()));
    let flags = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, unset, 0)?;
    SeccompRule::new(vec![flags])
}

fn of_families() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let family = |family: i32| {
        let family = u64::from(family.unsigned_abs());
        let same = SeccompCmpOp::Eq;
        let first = SeccompCondition::new(0, SeccompCmpArgLen::Dword, same, family)?;
        SeccompRule::new(vec![first])
    };
    [sys::AF_INET, sys::AF_INET6, sys::AF_UNIX]
        .into_iter()
        .map(family)
        .collect()
}

fn leave(mut left: Left) -> Result<(), FilterError> {
    let architecture = std::env::consts::ARCH;
    let architecture =
        TargetArch::try_from(architecture).map_err(|_| FilterError::Architecture(architecture))?;
    // The other filter is for these: of several the harshest answer counts.
    left.extend(HOSTILE.iter().map(|call| (*call, Vec::new())));
    let eperm = SeccompAction::Errno(sys::EPERM.unsigned_abs());
    let needed = filter(left, eperm, SeccompAction::Allow, architecture)?;
    let (allow, kill) = (SeccompAction::Allow, SeccompAction::KillProcess);
    let hostile = HOSTILE.iter().map(|call| (*call, Vec::new())).collect();
    let hostile = filter(hostile, allow, kill, architecture)?;
    for filter in [hostile, needed] {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(())
}

fn filter(
    rules: Left,
    others: SeccompAction,
    these: SeccompAction,
    architecture: TargetArch,
) -> Result<BpfProgram, FilterError> {
    let filter = SeccompFilter::new(rules, others, these, architecture)?;
    Ok(filter.try_into()?)
}
