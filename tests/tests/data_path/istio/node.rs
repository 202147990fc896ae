//! A node of an Istio cluster: its node tunnel with the environment of Istio's DaemonSet, and the agent
//! and the control plane that it knows.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::agent::Agent;
use super::istiod::{self, Istiod};
use crate::lab::{Lab, PATIENCE};

pub(super) const XDS_PORT: u16 = 15012;

pub(super) struct Node {
    /// The pod whose namespace is the node's.
    place: String,
    folder: TempDir,
    pub(super) istiod: Istiod,
    pub(super) agent: Agent,
    pub(super) ztunnel: Child,
}

// === impl Node ===

impl Node {
    /// With a control plane of its own, and with `variables` besides those that Istio's chart sets.
    pub(super) fn start(
        lab: &Lab,
        place: &str,
        program: &Path,
        variables: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let istiod = Istiod::start(lab, place, XDS_PORT);
        // The default paths, relative to where it runs.
        for (file, text) in [
            ("var/run/secrets/istio/root-cert.pem", istiod.root()),
            ("var/run/secrets/tokens/istio-token", "t0ken"),
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("written");
        }
        let socket = folder.path().join("ztunnel.sock");
        let agent = Agent::listen(&socket);
        let ip = lab.ip(place).to_string();
        let address = format!("https://{ip}:{XDS_PORT}");
        let log = File::create(folder.path().join("ztunnel.log")).expect("a log");
        let mut command = Command::new(program);
        command
            .args(["proxy", "ztunnel"])
            .current_dir(folder.path())
            .env_clear()
            .envs([
                ("CA_ADDRESS", address.as_str()),
                ("XDS_ADDRESS", &address),
                ("ALT_XDS_HOSTNAME", istiod::NAME),
                ("ALT_CA_HOSTNAME", istiod::NAME),
                ("INPOD_UDS", &socket.to_string_lossy()),
                ("RUST_LOG", "info,access=debug"),
                ("RUST_BACKTRACE", "1"),
                ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
                ("ISTIO_META_DNS_PROXY_ADDR", "127.0.0.1:15053"),
                ("ISTIO_META_ENABLE_HBONE", "true"),
                ("ISTIO_METAJSON_LABELS", r#"{"app":"ztunnel"}"#),
                ("XDS_HEADER_x-tenant", "one"),
                ("CA_HEADER_x-tenant", "one"),
                ("TERMINATION_GRACE_PERIOD_SECONDS", "30"),
                ("ZTUNNEL_CPU_LIMIT", "2"),
                ("POD_NAME", "ztunnel-abcde"),
                ("POD_NAMESPACE", "istio-system"),
                ("NODE_NAME", "node-1"),
                ("INSTANCE_IP", &ip),
                ("SERVICE_ACCOUNT", "ztunnel"),
                ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let ztunnel = lab.within(place, || command.spawn()).expect("starts");
        Self {
            place: place.to_owned(),
            folder,
            istiod,
            agent,
            ztunnel,
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("ztunnel.log")).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the tunnel's own HTTP servers answer.
    pub(super) fn http(&self, lab: &Lab, method: &str, port: u16, path: &str) -> Option<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        http_from(lab, &self.place, address, &format!("{method} {path}"))
    }

    pub(super) fn is_ready(&self, lab: &Lab) -> bool {
        let answer = self.http(lab, "GET", 15021, "/healthz/ready");
        answer.is_some_and(|answer| answer.starts_with("HTTP/1.0 200"))
    }

    pub(super) fn dump(&self, lab: &Lab) -> Value {
        let answer = self
            .http(lab, "GET", 15000, "/config_dump")
            .expect("answers");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }

    /// The metrics, as text.
    pub(super) fn metrics(&self, lab: &Lab) -> String {
        self.http(lab, "GET", 15020, "/metrics").expect("answers")
    }

    pub(super) fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < end, "{what}: not in time\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What has ended already needs no end.
        let _ = self.ztunnel.kill();
        let _ = self.ztunnel.wait();
        if thread::panicking() {
            eprintln!("{}: {}", self.place, self.log());
        }
    }
}

/// What is answered from there, in one piece as HTTP/1.0 has it.
pub(super) fn http_from(
    lab: &Lab,
    place: &str,
    address: SocketAddr,
    request: &str,
) -> Option<String> {
    use std::io::{Read, Write};
    let connect = || std::net::TcpStream::connect_timeout(&address, PATIENCE);
    let mut stream = lab.within(place, connect).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head = format!("{request} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer).filter(|answer| !answer.is_empty())
}
