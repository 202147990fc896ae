//! What the process keeps of root's powers, and who may give it orders.

use std::fs;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use super::{alone, ask, sh, stop, text, until};

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
fn without_a_data_path_system_calls_are_given_up_too() {
    alone(|| {
        let mut command = with_capabilities(&["net_admin", "sys_admin"]);
        let mut child = command.env("ENABLE_PROXY", "false").spawn();
        let child = child.as_mut().expect("setpriv is installed");
        until(|| (status_of(child, "Seccomp") == "2").then_some(()));
        // And what still runs can do without.
        until(|| ask("GET", 15020, "/metrics").filter(|answer| answer.contains("istio_build")));
        until(|| ask("GET", 15000, "/config_dump").filter(|answer| answer.contains("200 OK")));
        assert_eq!(stop(child).code(), Some(0));
    });
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

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const APPLICATION: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
/// Connections of this group are the sidecar's own.
const SIDECAR: u32 = 1337;

/// A sidecar that has these capabilities and no other; each of its settings comes on top of those
/// that it needs.
fn sidecar(capabilities: &[&str], settings: &[(&str, &str)]) -> Command {
    sh(
        "ip addr add 10.0.0.1/32 dev lo; ip addr add 10.0.0.2/32 dev lo; \
        nft add table ip test; \
        nft 'add chain ip test output { type nat hook output priority -100 ; }'; \
        nft add rule ip test output meta skgid 1337 return; \
        nft add rule ip test output tcp dport 8080 redirect to :15006",
    );
    let mut command = with_capabilities(capabilities);
    command.gid(SIDECAR).envs([
        ("PROXY_MODE", "dedicated"),
        ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
        (
            "LOCAL_XDS",
            "workloads: [{uid: Kubernetes//Pod/shop/web-0, name: web-0, namespace: shop, \
             serviceAccount: web, protocol: HBONE, workloadIps: [10.0.0.1]}]",
        ),
    ]);
    command.envs(settings.iter().copied());
    command
}

/// Whom the application sees when the client calls it.
fn caller() -> IpAddr {
    let to = SocketAddr::new(APPLICATION, 8080);
    let application = TcpListener::bind(to).expect("binds");
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    client
        .bind(&SocketAddr::new(CLIENT, 0).into())
        .expect("binds");
    client.connect(&to.into()).expect("connects");
    let (_, caller) = application.accept().expect("accepts");
    caller.ip()
}

#[test]
fn a_sidecar_without_its_capability_hides_clients_addresses_and_says_so() {
    for (given, seen, is_told) in [
        (&["net_admin"][..], CLIENT, false),
        (&[], APPLICATION, true),
    ] {
        alone(move || {
            let mut child = sidecar(given, &[]).spawn().expect("setpriv is installed");
            until(|| ask("GET", 15021, "/healthz/ready").filter(|a| a.ends_with("ready\n")));
            assert_eq!(caller(), seen, "{given:?}");
            assert_eq!(stop(&mut child).code(), Some(0));
            let mut log = String::new();
            let mut stdout = child.stdout.take().expect("piped");
            stdout.read_to_string(&mut log).expect("text");
            let told = log.contains("CAP_NET_ADMIN") && log.contains("instead of their clients'");
            assert_eq!(told, is_told, "{given:?}: {log}");
        });
    }
}

#[test]
fn a_sidecar_that_must_show_clients_addresses_does_not_start_without_its_capability() {
    alone(|| {
        let output = sidecar(&[], &[("ENABLE_ORIG_SRC", "true")]).output();
        let output = output.expect("setpriv is installed");
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        let is_told = stderr.contains("ENABLE_ORIG_SRC") && stderr.contains("CAP_NET_ADMIN");
        assert!(is_told, "{stderr}");
    });
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
