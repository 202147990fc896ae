//! The program as it is started and stopped: its servers, its exit codes, its errors.

#[path = "process/confinement.rs"]
mod confinement;

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

/// The program with nothing in its environment but `variables`.
fn ztunnel(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ztunnel"));
    command
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a test in a network namespace of its own, so that no port is anybody else's.
fn alone(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs CAP_SYS_ADMIN");
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip is installed").success());
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).status();
    assert!(status.expect("sh is installed").success(), "{script}");
}

fn ask(method: &str, port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within 60 s");
        thread::sleep(Duration::from_millis(10));
    }
}

fn stop(child: &mut Child) -> ExitStatus {
    let pid = i32::try_from(child.id()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("signals");
    until(|| child.try_wait().expect("waits"))
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn mistakes_are_told_together_with_exit_code_2() {
    let Output { status, stderr, .. } = ztunnel(&[("SECRET_TTL", "x"), ("IPV6_ENABLED", "x")])
        .output()
        .expect("runs");
    assert_eq!(status.code(), Some(2));
    let stderr = text(&stderr);
    assert!(
        stderr.contains("SECRET_TTL") && stderr.contains("IPV6_ENABLED"),
        "{stderr}"
    );

    let unknown = ztunnel(&[]).arg("frobnicate").output().expect("runs");
    assert_eq!(unknown.status.code(), Some(2));
    let version = ztunnel(&[]).arg("version").output().expect("runs");
    assert!(text(&version.stdout).starts_with("ztunnel "));
}

#[test]
fn it_serves_and_stops_when_told() {
    alone(|| {
        let directory = tempfile::tempdir().expect("temporary directory");
        let socket = directory.path().join("ztunnel.sock");
        let mut child = ztunnel(&[
            ("XDS_ADDRESS", ""),
            ("CA_ADDRESS", ""),
            ("INPOD_UDS", socket.to_str().expect("text")),
        ])
        .spawn()
        .expect("starts");
        // There is no agent, so it waits for one.
        let waiting = until(|| {
            ask("GET", 15021, "/healthz/ready").filter(|answer| answer.contains("pending:\n- work"))
        });
        assert!(waiting.contains("500 Internal Server Error"), "{waiting}");
        assert!(waiting.ends_with("- workload proxy manager\n"), "{waiting}");
        let metrics = ask("GET", 15020, "/stats/prometheus").expect("answers");
        assert!(
            metrics.contains("istio_build{component=\"ztunnel\""),
            "{metrics}"
        );
        assert!(metrics.contains("tokio_num_workers 1"), "{metrics}");
        let dump = ask("GET", 15000, "/config_dump").expect("answers");
        assert!(dump.contains("\"workloadState\": {}"), "{dump}");
        let levels = ask("POST", 15000, "/logging?level=access:off,xds:debug").expect("answers");
        assert!(
            levels.ends_with("current log level is access=off,xds=debug,info\n"),
            "{levels}"
        );
        let levels = ask("POST", 15000, "/logging?reset").expect("answers");
        assert!(levels.ends_with("current log level is info\n"), "{levels}");
        assert_eq!(stop(&mut child).code(), Some(0));
        let mut log = String::new();
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_to_string(&mut log).expect("reads");
        assert!(
            log.contains("\tinfo\tapp\tshutting down\treason=\"SIGTERM\""),
            "{log}"
        );
        let ordered = |order: &str, levels: &str| {
            let text = format!("user=0 order=\"{order}\" levels=\"{levels}\"");
            assert!(log.contains(&text), "{text}: {log}");
        };
        ordered("/logging?level=access:off,xds:debug", "info");
        ordered("/logging?reset", "access=off,xds=debug,info");
    });
}

#[test]
fn a_dedicated_tunnel_needs_no_agent() {
    alone(|| {
        let mut child = ztunnel(&[
            ("XDS_ADDRESS", ""),
            ("CA_ADDRESS", ""),
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
            ("LOG_FORMAT", "json"),
        ])
        .spawn()
        .expect("starts");
        until(|| ask("GET", 15021, "/healthz/ready").filter(|a| a.ends_with("\r\n\r\nready\n")));
        for port in [15001, 15006, 15008, 15053] {
            TcpStream::connect(("127.0.0.1", port)).expect("listens");
        }
        let quit = ask("POST", 15000, "/quitquitquit").expect("answers");
        assert!(quit.ends_with("shutting down\n"), "{quit}");
        let status = until(|| child.try_wait().expect("waits"));
        assert_eq!(status.code(), Some(0));
    });
}

#[test]
fn a_mesh_of_one_file_and_a_ca_of_its_own_need_no_control_plane() {
    alone(|| {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("mesh.yaml");
        let mesh = "workloads: [{uid: Kubernetes//Pod/shop/web-0, name: web-0, namespace: shop, \
                    serviceAccount: web, protocol: HBONE, workloadIps: [127.0.0.1]}]";
        std::fs::write(&path, mesh).expect("writes");
        let mut child = ztunnel(&[
            ("XDS_ADDRESS", ""),
            ("CA_ADDRESS", ""),
            ("FAKE_CA", "true"),
            ("LOCAL_XDS_PATH", path.to_str().expect("text")),
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
        ])
        .spawn()
        .expect("starts");
        let dump = until(|| {
            ask("GET", 15000, "/config_dump").filter(|dump| dump.contains("\"Available\""))
        });
        for text in [
            "\"uid\": \"Kubernetes//Pod/shop/web-0\"",
            "\"identity\": \"spiffe://cluster.local/ns/shop/sa/web\"",
        ] {
            assert!(dump.contains(text), "{text}: {dump}");
        }
        assert_eq!(stop(&mut child).code(), Some(0));
        std::fs::write(&path, "workloads: {}").expect("writes");
        let variables = [("LOCAL_XDS_PATH", path.to_str().expect("text"))];
        let output = ztunnel(&variables).output().expect("runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("LOCAL_XDS_PATH"));
    });
}

/// The value of a series, found by its name and a label.
fn series(name: &str, label: &str) -> Option<f64> {
    let metrics = ask("GET", 15020, "/metrics")?;
    let line = metrics
        .lines()
        .find(|line| line.starts_with(name) && line.contains(label))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn idle_series_are_dropped_and_those_of_open_connections_count_on() {
    alone(|| {
        // What the CNI agent's rules do, for one port.
        let rules = "add table ip test; \
                     add chain ip test output { type nat hook output priority -100 ; }; \
                     add rule ip test output tcp dport 8080 meta mark != 1337 redirect to :15001";
        let applied = Command::new("nft").arg(rules).status();
        assert!(applied.expect("nft is installed").success());
        let mut child = ztunnel(&[
            ("XDS_ADDRESS", ""),
            ("CA_ADDRESS", ""),
            (
                "LOCAL_XDS",
                "workloads: [{uid: Kubernetes//Pod/shop/web-0, name: web-0, namespace: shop, \
                 serviceAccount: web, protocol: HBONE, workloadIps: [127.0.0.1]}]",
            ),
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
            ("PACKET_MARK", "1337"),
            ("METRICS_IDLE_TIMEOUT", "1s"),
        ])
        .spawn()
        .expect("starts");
        until(|| ask("GET", 15021, "/healthz/ready").filter(|a| a.ends_with("ready\n")));
        let server = std::net::TcpListener::bind("127.0.0.2:8080").expect("binds");
        let mut client = TcpStream::connect("127.0.0.2:8080").expect("connects");
        let (mut server, _) = server.accept().expect("accepts");
        let mut word = || {
            client.write_all(b"word").expect("sends");
            let mut read = [0; 4];
            server.read_exact(&mut read).expect("arrives");
        };
        word();
        // Nobody listens there.
        let mut refused = TcpStream::connect("127.0.0.3:8080").expect("captured");
        let _ = refused.read(&mut [0; 1]);

        let (opened, received) = (
            "istio_tcp_connections_opened_total",
            "istio_tcp_received_bytes_total",
        );
        let (open, failed) = ("response_flags=\"-\"", "response_flags=\"CONNECT\"");
        assert_eq!(until(|| series(opened, failed)), 1.0);
        until(|| series(opened, failed).is_none().then_some(()));
        assert_eq!(series(opened, open), Some(1.0));
        word();
        until(|| (series(received, open) == Some(8.0)).then_some(()));
        assert_eq!(stop(&mut child).code(), Some(0));
    });
}

#[test]
fn a_control_plane_that_does_not_answer_makes_what_is_known_stale() {
    alone(|| {
        let mut child = ztunnel(&[
            ("XDS_ADDRESS", "https://127.0.0.1:9"),
            ("XDS_ROOT_CA", "SYSTEM"),
            ("CA_ADDRESS", ""),
            ("PROXY_MODE", "dedicated"),
            ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
        ])
        .spawn()
        .expect("starts");
        let dump = until(|| ask("GET", 15000, "/config_dump"));
        assert!(dump.contains("\"staleSince\": \"20"), "{dump}");
        assert_eq!(stop(&mut child).code(), Some(0));
    });
}

/// Whether a socket that would share the port may have it.
fn can_share(port: u16) -> bool {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("an option");
    socket.set_reuse_address(true).expect("an option");
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    socket.bind(&address.into()).is_ok()
}

#[test]
fn ports_are_shared_with_the_next_process_unless_told_otherwise() {
    for port_reuse in ["true", "false"] {
        alone(move || {
            let mut child = ztunnel(&[
                ("XDS_ADDRESS", ""),
                ("CA_ADDRESS", ""),
                ("PROXY_MODE", "dedicated"),
                ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
                ("ZTUNNEL_WORKER_THREADS", "2"),
                ("INPOD_PORT_REUSE", port_reuse),
            ])
            .spawn()
            .expect("starts");
            until(|| ask("GET", 15021, "/healthz/ready").filter(|a| a.ends_with("ready\n")));
            for port in [15001, 15006, 15008] {
                TcpStream::connect(("127.0.0.1", port)).expect("listens");
                assert_eq!(can_share(port), port_reuse == "true", "{port}");
            }
            assert_eq!(stop(&mut child).code(), Some(0));
        });
    }
}

#[test]
fn a_port_in_use_is_named() {
    alone(|| {
        let _taken = std::net::TcpListener::bind("127.0.0.1:15000").expect("binds");
        let output = ztunnel(&[("XDS_ADDRESS", ""), ("CA_ADDRESS", "")])
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("127.0.0.1:15000"), "{stderr}");
    });
}

/// Settings of a tunnel that needs nobody, and can be replaced.
fn replaceable(folder: &std::path::Path) -> Vec<(String, String)> {
    let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let mesh = "workloads: [{uid: Kubernetes//Pod/shop/web-0, name: web-0, namespace: shop, \
                serviceAccount: web, protocol: HBONE, workloadIps: [127.0.0.1]}]";
    [
        ("XDS_ADDRESS", ""),
        ("CA_ADDRESS", ""),
        ("FAKE_CA", "true"),
        ("LOCAL_XDS", mesh),
        ("PROXY_MODE", "dedicated"),
        ("PROXY_WORKLOAD_INFO", "shop/web-0/web"),
        ("ZTUNNEL_HANDOVER_UDS", &path("handover.sock")),
        ("NOTIFY_SOCKET", &path("notify.sock")),
        ("RUST_LOG", "warn,access=off"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The program at a path of its own, so that another can be put there.
fn installed(folder: &std::path::Path, settings: &[(String, String)]) -> Command {
    let path = folder.join("ztunnel");
    if !path.exists() {
        // By another process: what another test starts meanwhile would inherit the descriptor that
        // writes, and a file that is being written can't be run.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_ztunnel"))
            .arg(&path)
            .status();
        assert!(copied.expect("cp runs").success());
    }
    let mut command = Command::new(path);
    command
        .env_clear()
        .envs(settings.iter().cloned())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The pid of the main process, as a service manager is told it.
fn main_pid(manager: &std::os::unix::net::UnixDatagram) -> u32 {
    let mut state = [0; 4096];
    let timeout = Some(Duration::from_secs(60));
    manager.set_read_timeout(timeout).expect("an option");
    loop {
        let length = manager.recv(&mut state).expect("told");
        let state = String::from_utf8_lossy(&state[..length]).into_owned();
        if state.starts_with("READY=1\n") {
            let pid = state.lines().find_map(|line| line.strip_prefix("MAINPID="));
            return pid.expect("a pid").parse().expect("a number");
        }
    }
}

/// Runs `ztunnel upgrade`. Its output goes to files, for the successor keeps it open.
fn upgrade(folder: &std::path::Path, settings: &[(String, String)]) -> Output {
    let path = |name: &str| folder.join(name);
    let create = |name: &str| std::fs::File::create(path(name)).expect("created");
    let read = |name: &str| std::fs::read(path(name)).expect("read");
    let status = installed(folder, settings)
        .arg("upgrade")
        .stdout(create("upgrade.out"))
        .stderr(create("upgrade.err"))
        .status();
    Output {
        status: status.expect("runs"),
        stdout: read("upgrade.out"),
        stderr: read("upgrade.err"),
    }
}

/// The sockets, by their inodes, on which a port is listened to.
fn listening(port: u16) -> Vec<String> {
    let filter = format!("sport = :{port}");
    let output = Command::new("ss").args(["-Hltne", &filter]).output();
    let output = text(&output.expect("ss is installed").stdout);
    let words = output.split_whitespace();
    let mut all: Vec<_> = words
        .filter(|word| word.starts_with("ino:"))
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}

/// What `systemctl reload` does with the unit of manifests/systemd.
#[test]
fn an_upgrade_by_command_starts_what_is_installed_and_serves_all_the_while() {
    alone(|| {
        let folder = tempfile::tempdir().expect("temporary directory");
        let folder = folder.path();
        let mut settings = replaceable(folder);
        settings.push(("UNSTABLE_ENABLE_SOCKS5".to_owned(), "true".to_owned()));
        let manager = std::os::unix::net::UnixDatagram::bind(folder.join("notify.sock"));
        let manager = manager.expect("binds");
        let mut first = installed(folder, &settings).spawn().expect("starts");
        assert_eq!(main_pid(&manager), first.id());
        let of_pod = || [15001, 15006, 15008, 15080].map(listening);
        let sockets = of_pod();

        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = done.clone();
        let connecting = thread::spawn(move || {
            // Threads keep the namespace of the one that made them.
            let mut connected = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for port in [15001, 15006, 15008, 15053, 15080, 15000, 15020, 15021] {
                    TcpStream::connect(("127.0.0.1", port)).expect("never refused");
                    connected += 1;
                }
                thread::sleep(Duration::from_millis(1));
            }
            connected
        });
        let done_by = upgrade(folder, &settings);
        assert!(done_by.status.success(), "{}", text(&done_by.stderr));
        let second = main_pid(&manager);
        assert_ne!(second, first.id());
        assert!(text(&done_by.stdout).contains(&second.to_string()));
        let dump = until(|| ask("GET", 15000, "/config_dump"));
        assert!(dump.contains("\"Available\""), "{dump}");
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(connecting.join().expect("never refused") > 0);
        // What it accepted has ended.
        let status = until(|| first.try_wait().expect("waits"));
        assert_eq!(status.code(), Some(0));
        assert!(sockets.iter().all(|sockets| !sockets.is_empty()));
        assert_eq!(of_pod(), sockets);

        // One whose mesh can't be read ends before it serves: the second serves on, and the
        // command says why.
        let mut broken = settings.clone();
        broken.push(("LOCAL_XDS_PATH".to_owned(), "/nonexistent".to_owned()));
        broken.retain(|(name, _)| name != "LOCAL_XDS");
        let refused = upgrade(folder, &broken);
        assert_eq!(refused.status.code(), Some(1));
        let stderr = text(&refused.stderr);
        assert!(
            stderr.contains("serves on") && stderr.contains("exit status: 1"),
            "{stderr}"
        );
        ask("GET", 15021, "/healthz/ready").expect("answers");
        let pid = Pid::from_raw(i32::try_from(second).expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("signals");
        until(|| {
            TcpStream::connect(("127.0.0.1", 15021))
                .is_err()
                .then_some(())
        });
    });
}

/// Listens like an agent or a former process.
fn listen_for_packets(path: &std::path::Path) -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
    let address = socket2::SockAddr::unix(path).expect("an address");
    socket.bind(&address).expect("binds");
    socket.listen(1).expect("listens");
    socket
}

fn hear<M: prost::Message + Default>(socket: &mut Socket) -> M {
    let mut packet = [0; 4096];
    let length = socket.read(&mut packet).expect("reads");
    M::decode(&packet[..length]).expect("a message")
}

fn say(socket: &mut Socket, message: &impl prost::Message) {
    let packet = message.encode_to_vec();
    socket.write_all(&packet).expect("writes");
}

fn answer(socket: &mut Socket, payload: proto::handover::reply::Payload) {
    let payload = Some(payload);
    say(socket, &proto::handover::Reply { payload });
}

/// Welcomes a successor and lends it nothing, until it is ready.
fn lend_nothing(former: &Socket) -> Socket {
    use proto::handover::{Request, Sockets, VERSION, Welcome, reply, request};
    let (mut successor, _) = former.accept().expect("accepts");
    let _: Request = hear(&mut successor);
    let welcome = Welcome {
        version: VERSION,
        ..Default::default()
    };
    answer(&mut successor, reply::Payload::Welcome(welcome));
    loop {
        let request: Request = hear(&mut successor);
        match request.payload.expect("a request") {
            request::Payload::Ready(_) => return successor,
            request::Payload::Sockets(_) => {
                let none = Sockets { more: false };
                answer(&mut successor, reply::Payload::Sockets(none));
            }
            request::Payload::Hello(_) => panic!("once"),
        }
    }
}

/// Its readiness does not follow any more, and whoever started it must not think it failed.
#[test]
fn who_has_taken_over_says_so_though_the_agent_is_gone_by_then() {
    use proto::zds::{SnapshotSent, WorkloadRequest, ZdsHello, workload_request};
    alone(|| {
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| folder.path().join(name);
        let manager = std::os::unix::net::UnixDatagram::bind(path("notify.sock"));
        let manager = manager.expect("binds");
        let former = listen_for_packets(&path("handover.sock"));
        let agent = listen_for_packets(&path("agent.sock"));
        let mut settings = replaceable(folder.path());
        settings.retain(|(name, _)| !name.starts_with("PROXY_"));
        let socket = path("agent.sock").to_str().expect("text").to_owned();
        settings.push(("INPOD_UDS".to_owned(), socket));
        let mut child = installed(folder.path(), &settings).spawn().expect("starts");
        let lending = thread::spawn(move || lend_nothing(&former));
        let (mut asking, _) = agent.accept().expect("accepts");
        let _: ZdsHello = hear(&mut asking);
        let snapshot_sent = workload_request::Payload::SnapshotSent(SnapshotSent {});
        let payload = Some(snapshot_sent);
        say(&mut asking, &WorkloadRequest { payload });
        let mut successor = lending.join().expect("ready");
        drop((asking, agent));
        until(|| {
            ask("GET", 15021, "/healthz/ready").filter(|a| a.contains("workload proxy manager"))
        });
        let released = proto::handover::Released { connections: 0 };
        let released = proto::handover::reply::Payload::Released(released);
        answer(&mut successor, released);
        assert_eq!(main_pid(&manager), child.id());
        assert_eq!(stop(&mut child).code(), Some(0));
    });
}

/// A former process that hands nothing over still has the ports for people.
#[test]
fn beside_a_process_that_hands_nothing_over_it_listens_and_waits_for_ports() {
    alone(|| {
        let folder = tempfile::tempdir().expect("temporary directory");
        let settings = replaceable(folder.path());
        let manager = std::os::unix::net::UnixDatagram::bind(folder.path().join("notify.sock"));
        let manager = manager.expect("binds");
        let former = listen_for_packets(&folder.path().join("handover.sock"));
        let taken = std::net::TcpListener::bind("0.0.0.0:15020").expect("binds");
        let refusing = thread::spawn(move || {
            let (mut successor, _) = former.accept().expect("accepts");
            let _: proto::handover::Request = hear(&mut successor);
            let welcome = proto::handover::Welcome {
                refusal: "of another time".to_owned(),
                version: 77,
                release: String::new(),
            };
            let welcome = proto::handover::reply::Payload::Welcome(welcome);
            answer(&mut successor, welcome);
            successor
        });
        let mut child = installed(folder.path(), &settings).spawn().expect("starts");
        let _successor = refusing.join().expect("refused");
        assert_eq!(main_pid(&manager), child.id());
        TcpStream::connect(("127.0.0.1", 15008)).expect("listens");
        drop(taken);
        until(|| ask("GET", 15020, "/metrics").filter(|metrics| metrics.contains("refused")));
        assert_eq!(stop(&mut child).code(), Some(0));
        let mut log = String::new();
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_to_string(&mut log).expect("reads");
        assert!(log.contains("of another time"), "{log}");
    });
}
