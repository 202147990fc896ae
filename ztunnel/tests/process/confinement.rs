//! What the process keeps of root's powers, and who may give it orders.

use std::fs;
use std::process::{Child, Command, Stdio};

use super::{alone, ask, stop, text, until};

const UNIT: &str = include_str!("../../../manifests/systemd/ztunnel.service");

/// What the unit says for a key of a section; none where it is not said just once.
fn of_unit(section: &str, key: &str) -> Option<&'static str> {
    let (_, text) = UNIT.split_once(&format!("\n[{section}]\n"))?;
    let lines = text.lines().take_while(|line| !line.starts_with('['));
    let mut values = lines.filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.next().filter(|_| values.next().is_none())
}

#[test]
fn the_unit_never_gives_up_and_writes_no_key() {
    for (section, key, value) in [
        ("Unit", "StartLimitIntervalSec", "0"),
        ("Service", "Restart", "always"),
        ("Service", "MemorySwapMax", "0"),
        ("Service", "LimitCORE", "0"),
    ] {
        assert_eq!(of_unit(section, key), Some(value), "{section}: {key}");
    }
}

/// The tunnel of a node, run by a root that has these capabilities and no other.
fn with_capabilities(capabilities: &[&str]) -> Command {
    let bounds = capabilities.iter().map(|one| format!(",+{one}"));
    let bounds = format!("-all{}", bounds.collect::<String>());
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set", &bounds, "--"])
        .arg(env!("CARGO_BIN_EXE_ztunnel"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs([("XDS_ADDRESS", ""), ("CA_ADDRESS", "")])
        .env("INPOD_UDS", "/nonexistent/ztunnel.sock")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it and waits until it looks for the agent, with all else done.
fn started(mut command: Command) -> Child {
    let child = command.spawn().expect("setpriv is installed");
    until(|| {
        ask("GET", 15021, "/healthz/ready").filter(|answer| answer.contains("pending:\n- work"))
    });
    child
}

/// A line of the process's status, past its name.
fn status_of(child: &Child, name: &str) -> String {
    let path = format!("/proc/{}/status", child.id());
    let status = fs::read_to_string(path).expect("runs");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("a line")
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

#[test]
fn two_capabilities_are_enough_and_no_more_are_kept() {
    const NET_ADMIN: u64 = 1 << 12;
    const SYS_ADMIN: u64 = 1 << 21;
    let unit = of_unit("Service", "CapabilityBoundingSet").expect("said");
    let unit = unit.to_lowercase().replace("cap_", "");
    for more in [&[][..], &["chown", "kill"]] {
        let unit = unit.clone();
        alone(move || {
            let given: Vec<_> = unit.split(' ').chain(more.iter().copied()).collect();
            let mut child = started(with_capabilities(&given));
            // System calls are given up last.
            until(|| (status_of(&child, "Seccomp") == "2").then_some(()));
            for set in ["CapEff", "CapPrm"] {
                let kept = u64::from_str_radix(&status_of(&child, set), 16).expect("a mask");
                assert_eq!(kept, NET_ADMIN | SYS_ADMIN, "{set}");
            }
            assert_eq!(status_of(&child, "NoNewPrivs"), "1");
            let limits = fs::read_to_string(format!("/proc/{}/limits", child.id()));
            let limits = limits.expect("runs");
            let core = limits
                .lines()
                .find(|line| line.starts_with("Max core file size"));
            let core: Vec<_> = core.expect("a line").split_whitespace().collect();
            assert_eq!(core[4..6], ["0", "0"], "{limits}");
            assert_eq!(stop(&mut child).code(), Some(0));
        });
    }
}

#[test]
fn each_capability_is_needed_and_missed_by_name() {
    for (given, missing) in [
        ("net_admin", "CAP_SYS_ADMIN"),
        ("sys_admin", "CAP_NET_ADMIN"),
    ] {
        alone(move || {
            let output = with_capabilities(&[given]).output().expect("setpriv");
            assert_eq!(output.status.code(), Some(1));
            let stderr = text(&output.stderr);
            assert!(stderr.contains(missing), "{stderr}");
        });
    }
}

/// The status line of the admin server's answer to `user`.
fn order(user: &str, request: &str) -> String {
    let script = "exec 3<>/dev/tcp/127.0.0.1/15000; printf \"$1\" >&3; head -1 <&3";
    let output = Command::new("setpriv")
        .args([&format!("--reuid={user}"), "--clear-groups", "--"])
        .args(["bash", "-c", script, "bash", request])
        .output()
        .expect("setpriv and bash are installed");
    text(&output.stdout).trim().to_owned()
}

#[test]
fn orders_are_taken_from_root_alone_and_from_no_page() {
    const END: &str = "\\r\\nconnection: close\\r\\n\\r\\n";
    alone(|| {
        let mut child = started(with_capabilities(&["net_admin", "sys_admin"]));
        let post = |user: &str, headers: &str| {
            order(
                user,
                &format!("POST /logging?level=info HTTP/1.1{headers}{END}"),
            )
        };
        let here = "\\r\\nhost: localhost:15000";
        assert_eq!(post("0", here), "HTTP/1.1 200 OK");
        assert_eq!(post("65534", here), "HTTP/1.1 403 Forbidden");
        let page = format!("{here}\\r\\norigin: http://localhost:15000");
        assert_eq!(post("0", &page), "HTTP/1.1 403 Forbidden");
        let rebound = "\\r\\nhost: rebound.example:15000";
        assert_eq!(post("0", rebound), "HTTP/1.1 403 Forbidden");
        let reading = format!("GET /config_dump HTTP/1.1{here}{END}");
        assert_eq!(order("65534", &reading), "HTTP/1.1 200 OK");
        assert_eq!(stop(&mut child).code(), Some(0));
    });
}
