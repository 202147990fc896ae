//! What a confined process can't do any more. Each test runs itself again as the process that
//! gives something up, which can't be undone.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use runtime::confinement::{self, capabilities, system_calls};

/// Set in the process that is confined.
const CONFINED: &str = "CONFINED";

/// Runs the test `name` in a process of its own.
fn confined(name: &str, body: fn()) -> Option<ExitStatus> {
    if std::env::var_os(CONFINED).is_some() {
        body();
        return None;
    }
    let status = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", name])
        .env(CONFINED, "1")
        .status();
    Some(status.expect("runs"))
}

fn status_line(name: &str) -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a line")
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

#[test]
fn nothing_of_the_process_is_dumped() {
    let status = confined("nothing_of_the_process_is_dumped", || {
        confinement::without_core_dumps().expect("needs no privilege");
        assert_eq!(nix::sys::prctl::get_dumpable(), Ok(false));
        let limits = std::fs::read_to_string("/proc/self/limits").expect("proc");
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        let core: Vec<_> = core.expect("a line").split_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"]);
    });
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn capabilities_that_are_not_kept_are_gone_for_good() {
    let status = confined("capabilities_that_are_not_kept_are_gone_for_good", || {
        let before = u64::from_str_radix(&status_line("CapEff"), 16).expect("a mask");
        let kept = [capabilities::Capability::CAP_NET_ADMIN];
        capabilities::keep(&kept).expect("may always be given up");
        let left = before & (1 << kept[0].index());
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(status_line(set), format!("{left:016x}"), "{set}");
        }
        assert_eq!(status_line("CapInh"), format!("{:016x}", 0));
        assert_eq!(status_line("NoNewPrivs"), "1");
        // A program that root runs would get everything back.
        let child = Command::new("cat").arg("/proc/self/status").output();
        let child = String::from_utf8(child.expect("runs").stdout).expect("text");
        let held = child.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let held = u64::from_str_radix(held.expect("a line").trim(), 16).expect("a mask");
        assert_eq!(held & !left, 0);
    });
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn a_call_that_no_proxy_makes_is_refused() {
    let status = confined("a_call_that_no_proxy_makes_is_refused", || {
        capabilities::keep(&[]).expect("given up");
        system_calls::leave_to_proxies().expect("installed");
        let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        assert_eq!(unshared, Err(Errno::EPERM));
        // Threads that come later are bound by it as well; files, sockets and sleep go on.
        std::thread::spawn(|| {
            assert_eq!(nix::unistd::setsid(), Err(Errno::EPERM));
            std::fs::read("/proc/self/status").expect("reads");
            std::net::TcpListener::bind("127.0.0.1:0").expect("listens");
        })
        .join()
        .expect("a thread");
    });
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn running_a_program_ends_the_process() {
    let status = confined("running_a_program_ends_the_process", || {
        capabilities::keep(&[]).expect("given up");
        system_calls::leave_to_proxies().expect("installed");
        use std::os::unix::process::CommandExt;
        let error = Command::new("true").exec();
        panic!("still here: {error}");
    });
    let killed = Some(Signal::SIGSYS as i32);
    assert!(status.is_none_or(|status| status.signal() == killed));
}

#[test]
fn a_waypoint_changes_no_file_and_makes_no_other_sockets() {
    let status = confined(
        "a_waypoint_changes_no_file_and_makes_no_other_sockets",
        || {
            use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
            capabilities::keep(&[]).expect("given up");
            let folder = std::env::temp_dir();
            let pid = nix::unistd::getpid();
            system_calls::leave_to_waypoints().expect("installed");
            std::fs::read("/proc/self/status").expect("reads");
            std::net::TcpStream::connect("127.0.0.1:1").expect_err("nobody listens");
            std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
            std::thread::spawn(|| {}).join().expect("a thread");
            let refused = |error: std::io::Error| {
                assert_eq!(error.raw_os_error(), Some(Errno::EPERM as i32));
            };
            refused(std::fs::write(folder.join("confined"), "").expect_err("a file"));
            let open = std::fs::File::options().append(true).open("/dev/null");
            refused(open.expect_err("to write"));
            refused(std::fs::remove_file(folder.join("confined")).expect_err("a file"));
            refused(std::net::TcpListener::bind("127.0.0.1:0").expect_err("listens"));
            let raw = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::empty(),
                None,
            );
            assert_eq!(raw.expect_err("netlink"), Errno::EPERM);
            let own = std::fs::File::open("/proc/self/ns/net").expect("its own");
            let entered = nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET);
            assert_eq!(entered, Err(Errno::EPERM));
            assert_eq!(nix::sys::signal::kill(pid, None), Err(Errno::EPERM));
        },
    );
    assert!(status.is_none_or(|status| status.success()));
}

#[test]
fn a_control_plane_writes_and_watches_files_and_enters_no_namespace() {
    let status = confined(
        "a_control_plane_writes_and_watches_files_and_enters_no_namespace",
        || {
            capabilities::keep(&[]).expect("given up");
            let folder = std::env::temp_dir();
            let names = ["written", "kept"].map(|name| format!("{name}-{}", std::process::id()));
            let [written, kept] = names.map(|name| folder.join(name));
            system_calls::leave_to_control_planes().expect("installed");
            std::fs::write(&written, "").expect("writes");
            std::fs::rename(&written, &kept).expect("renames");
            let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(&kept, private).expect("changes");
            std::fs::remove_file(&kept).expect("removes");
            let own = std::fs::File::open("/proc/self/ns/net").expect("its own");
            let entered = nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET);
            assert_eq!(entered, Err(Errno::EPERM));
            std::net::TcpListener::bind("127.0.0.1:0").expect_err("listens");
        },
    );
    assert!(status.is_none_or(|status| status.success()));
}
