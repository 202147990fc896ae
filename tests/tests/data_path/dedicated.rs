//! Processes that are their own sidecars: one identity each, no agent, the real control plane.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use boring::ec::{EcGroup, EcKey};
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::lab::program;

use super::lab::{APPLICATION, Lab, PATIENCE};
use super::{close, echo};

/// The group whose connections the sidecars' rules leave alone, as Istio's sidecar has it.
const SIDECAR: u32 = 1337;

const RULES: &str = "nft -f - <<'EOF'
table inet sidecar {
  chain output {
    type nat hook output priority -100;
    meta skgid 1337 return
    oif lo return
    meta l4proto tcp redirect to :15001
  }
  chain prerouting {
    type nat hook prerouting priority -100;
    iif != lo tcp dport != 15008 redirect to :15006
  }
}
EOF";

/// Programs of one mesh, ended with it.
struct Mesh {
    lab: Lab,
    folder: TempDir,
    issuer: PKey<Private>,
    children: Vec<Child>,
}

impl Mesh {
    fn start(pods: &[&str]) -> Self {
        let mut lab = Lab::new();
        lab.bare_pod("control");
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let issuer = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let mut mesh = Self {
            lab,
            folder: tempfile::tempdir().expect("a folder"),
            issuer,
            children: Vec::new(),
        };
        for folder in ["objects", "cluster"] {
            fs::create_dir(mesh.path(folder)).expect("a folder");
        }
        for pod in pods {
            mesh.lab.bare_pod(pod);
            let object = mesh.object(pod);
            let file = format!("cluster/Pod.shop.{pod}.json");
            fs::write(mesh.path(&file), object.to_string()).expect("written");
        }
        let public = mesh.issuer.public_key_to_pem().expect("PEM");
        fs::write(mesh.path("issuer.pem"), public).expect("written");
        mesh.start_control_plane();
        for pod in pods {
            mesh.start_sidecar(pod);
        }
        mesh
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn object(&self, pod: &str) -> Value {
        let ip = self.lab.ip(pod).to_string();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": pod, "namespace": "shop", "uid": format!("uid-{pod}"),
                "labels": {"networking.istio.io/tunnel": "http"},
            },
            "spec": {"nodeName": "node-1", "serviceAccountName": pod,
                     "containers": [{"name": pod, "image": pod}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                       "conditions": [{"type": "Ready", "status": "True"}]},
        })
    }

    /// Runs a program in a pod's namespace; its log is `NAME.log`.
    fn spawn(&mut self, pod: &str, mut command: Command) {
        let log = File::create(self.path(&format!("{pod}.log"))).expect("a log");
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let child = self.lab.within(pod, || command.spawn());
        self.children.push(child.expect("starts"));
    }

    fn start_control_plane(&mut self) {
        let mut command = Command::new(program("control-plane"));
        command.args([
            format!("--folder={}", self.text("objects")),
            format!("--cluster={}", self.text("cluster")),
            format!("--ca-dir={}", self.text("ca")),
            format!("--token-issuer={}", self.text("issuer.pem")),
            format!("--api-socket={}", self.text("api.sock")),
            format!("--san={}", self.lab.ip("control")),
            "--xds-listen=0.0.0.0:15012".to_owned(),
        ]);
        self.spawn("control", command);
        let root = self.path("ca/root-cert.pem");
        self.until("the root certificate", || root.exists().then_some(()));
    }

    fn start_sidecar(&mut self, pod: &str) {
        fs::write(self.path(pod), self.token(pod)).expect("written");
        let control_plane = format!("https://{}:15012", self.lab.ip("control"));
        let root = self.text("ca/root-cert.pem");
        let mut command = Command::new(program("ztunnel"));
        command.gid(SIDECAR).env_clear().envs([
            ("PROXY_MODE", "dedicated".to_owned()),
            ("PROXY_WORKLOAD_INFO", format!("shop/{pod}/{pod}")),
            ("NODE_NAME", "node-1".to_owned()),
            ("XDS_ADDRESS", control_plane.clone()),
            ("CA_ADDRESS", control_plane),
            ("XDS_ROOT_CA", root.clone()),
            ("CA_ROOT_CA", root),
            ("AUTH_TOKEN", self.text(pod)),
            ("COMPLIANCE_POLICY", "pqc".to_owned()),
            // Answers to a client's own address would not pass the sidecar again.
            ("ENABLE_ORIG_SRC", "false".to_owned()),
        ]);
        self.lab.run(pod, RULES);
        self.spawn(pod, command);
    }

    /// What Kubernetes would give the pod.
    fn token(&self, pod: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let claims = json!({
            "iss": "weft",
            "aud": ["istio-ca"],
            "sub": format!("system:serviceaccount:shop:{pod}"),
            "exp": now.expect("after 1970").as_secs() + 3600,
            "kubernetes.io": {
                "namespace": "shop",
                "serviceaccount": {"name": pod, "uid": "a"},
                "pod": {"name": pod, "uid": format!("uid-{pod}")},
                "node": {"name": "node-1", "uid": "n"},
            },
        });
        let der = self.issuer.private_key_to_der_pkcs8().expect("DER");
        jsonwebtoken::encode(
            &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256),
            &claims,
            &jsonwebtoken::EncodingKey::from_ec_der(&der),
        )
        .expect("signed")
    }

    fn log(&self, pod: &str) -> String {
        fs::read_to_string(self.path(&format!("{pod}.log"))).unwrap_or_default()
    }

    fn until<T>(&self, what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = attempt() {
                return value;
            }
            if Instant::now() > end {
                for pod in ["control", "web", "api"] {
                    eprintln!("{pod}:\n{}", self.log(pod));
                }
                panic!("{what}: not in time");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        for child in &mut self.children {
            // What has ended already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn two_sidecars_talk_over_mutual_tls_and_take_plaintext_from_outside() {
    let mut mesh = Mesh::start(&["web", "api"]);
    mesh.lab.bare_pod("outsider");
    mesh.lab.serve("api");
    let target = SocketAddr::new(mesh.lab.ip("api"), APPLICATION);
    let (mut stream, _) = mesh.until("a connection", || mesh.lab.call("web", target).ok());
    echo(&mut stream);
    close(stream);
    for (pod, direction) in [("web", "outbound"), ("api", "inbound")] {
        mesh.until("the log line", || {
            let log = mesh.log(pod);
            let mut lines = log.lines().filter(|line| line.contains(direction));
            lines
                .any(|line| {
                    line.contains("spiffe://cluster.local/ns/shop/sa/web")
                        && line.contains("spiffe://cluster.local/ns/shop/sa/api")
                        && !line.contains("error")
                })
                .then_some(())
        });
    }
    let (mut plain, _) = mesh.lab.call("outsider", target).expect("plaintext");
    echo(&mut plain);
}
