//! The whole control plane on loopback: files in, a ztunnel's own client on the other end.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boring::ec::{EcGroup, EcKey};
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use clap::Parser;
use identity::grpc::{Config, ControlPlane as Channel, Roots, Token};
use mesh::snapshot::Change;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use xds::client::{Client, Event, Subscription};
use xds::resource_type::Layer;

use super::*;

mod strangers;

/// Far beyond what is promised, so that a loaded machine fails no test.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough that something wrong would have happened.
const QUIET: Duration = Duration::from_millis(300);

/// A folder of state, as the machine has it, and the control plane over it.
struct Stage {
    folder: TempDir,
    issuer: PKey<Private>,
    running: Option<Running>,
}

struct Running {
    address: SocketAddr,
    public: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Failure>>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let issuer = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let stage = Self {
            folder,
            issuer,
            running: None,
        };
        for name in ["user", "cluster"] {
            fs::create_dir(stage.path(name)).expect("a folder");
        }
        let public = stage.issuer.public_key_to_pem().expect("PEM");
        fs::write(stage.path("issuer.pem"), public).expect("written");
        let ztunnel = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "ztunnel-node-1", "namespace": "weft-system", "uid": "uid-1"},
            "spec": {"nodeName": "node-1", "serviceAccountName": "ztunnel", "hostNetwork": true,
                     "containers": [{"name": "ztunnel", "image": "ztunnel"}]},
            "status": {"phase": "Running"},
        });
        stage.write(
            "cluster/Pod.weft-system.ztunnel-node-1.json",
            &ztunnel.to_string(),
        );
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn args(&self) -> Args {
        let path = |name: &str| self.path(name).to_string_lossy().into_owned();
        Args::parse_from([
            "control-plane".to_owned(),
            format!("--folder={}", path("user")),
            format!("--cluster={}", path("cluster")),
            format!("--ca-dir={}", path("state/ca")),
            format!("--token-issuer={}", path("issuer.pem")),
            format!("--api-socket={}", path("run/api.sock")),
            "--xds-listen=127.0.0.1:0".to_owned(),
            "--metrics-listen=127.0.0.1:0".to_owned(),
            "--san=127.0.0.1".to_owned(),
        ])
    }

    async fn start(&mut self) {
        let control_plane = ControlPlane::open(self.args()).await.expect("opens");
        let address = control_plane.xds_address().expect("bound");
        let public = control_plane.metrics.addresses()[0];
        let shutdown = Shutdown::new();
        let task = tokio::spawn(control_plane.run(None, shutdown.clone()));
        self.running = Some(Running {
            address,
            public,
            shutdown,
            task,
        });
    }

    async fn stop(&mut self) {
        let running = self.running.take().expect("runs");
        running.shutdown.request("test");
        let ended = tokio::time::timeout(PATIENCE, running.task).await;
        ended
            .expect("drains in time")
            .expect("does not panic")
            .expect("ends well");
    }

    fn token(&self, account: &str, pod_uid: &str) -> String {
        self.token_of("weft-system", account, ("ztunnel-node-1", pod_uid))
    }

    fn token_of(&self, namespace: &str, account: &str, (pod, uid): (&str, &str)) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        let claims = json!({
            "iss": "weft",
            "aud": ["istio-ca"],
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "exp": now.as_secs() + 3600,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": "a"},
                "pod": {"name": pod, "uid": uid},
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

    fn channel(&self, token: &str) -> Channel {
        let address = self.running.as_ref().expect("runs").address;
        Channel::new(&Config {
            address: format!("https://{address}"),
            roots: Roots::File(self.path("state/ca/root-cert.pem")),
            alternate_name: None,
            token: Some(Token::parse(token)),
            headers: Vec::new(),
        })
        .expect("a channel")
    }

    /// A ztunnel of node-1, which says it is of `namespace`.
    fn ztunnel(&self, namespace: &str, token: &str) -> Ztunnel {
        let metadata = [("NODE_NAME".to_owned(), json!("node-1"))];
        let node = xds::node::ztunnel("127.0.0.1", "ztunnel-node-1", namespace, metadata);
        self.client(node, Layer::L4, token)
    }

    /// A waypoint on node-1, which says it is of `namespace`.
    fn waypoint(&self, namespace: &str, token: &str) -> Ztunnel {
        let metadata = [("NODE_NAME".to_owned(), json!("node-1"))];
        let node = xds::node::waypoint("10.244.3.1", "waypoint-1", namespace, metadata);
        self.client(node, Layer::L7, token)
    }

    fn client(&self, node: proto::discovery::Node, layer: Layer, token: &str) -> Ztunnel {
        let client = Client::new(xds::client::Config {
            node,
            token: Arc::new(|| Ok(None)),
            headers: Vec::new(),
            layer,
            addresses: Subscription::Wildcard,
        });
        let (sender, events) = mpsc::unbounded_channel();
        let channel = self.channel(token);
        let task = tokio::spawn(async move {
            let connect = move || {
                let channel = channel.clone();
                async move { Ok(channel) }
            };
            client
                .run(connect, move |event| drop(sender.send(event)))
                .await;
        });
        Ztunnel { events, task }
    }

    async fn api(&self, path: &str) -> Value {
        let stream = UnixStream::connect(self.path("run/api.sock"))
            .await
            .expect("connects");
        let answer = get(stream, path).await;
        let (_, body) = answer.split_once("\r\n\r\n").expect("a response");
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{answer}"))
    }

    async fn status_until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let status = self.api("/api/v1/status").await;
            if holds(&status) {
                return status;
            }
            assert!(tokio::time::Instant::now() < deadline, "{status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The whole answer to a request for `path`.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    answer
}

/// What a connected client is told.
struct Ztunnel {
    events: mpsc::UnboundedReceiver<Event>,
    task: JoinHandle<()>,
}

impl Ztunnel {
    async fn next(&mut self) -> Event {
        tokio::time::timeout(PATIENCE, self.events.recv())
            .await
            .expect("something happens in time")
            .expect("the client runs")
    }

    /// The changes up to the end of the first synchronisation, by name.
    async fn sync(&mut self) -> BTreeMap<String, Change> {
        let mut received = BTreeMap::new();
        loop {
            match self.next().await {
                Event::Update(update) => {
                    assert!(update.rejections.is_empty(), "{:?}", update.rejections);
                    received.extend(update.changes.into_iter().map(named));
                }
                Event::Synced => return received,
                Event::Connected => {}
                Event::Disconnected { reason } => panic!("disconnected: {reason}"),
            }
        }
    }

    /// The names of the next changes.
    async fn changes(&mut self) -> Vec<String> {
        loop {
            if let Event::Update(update) = self.next().await
                && !update.changes.is_empty()
            {
                return update
                    .changes
                    .into_iter()
                    .map(|change| named(change).0)
                    .collect();
            }
        }
    }

    /// What comes in a while in which nothing should.
    async fn rest(&mut self) -> Vec<String> {
        let mut changes = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(QUIET, self.events.recv()).await {
            if let Event::Update(update) = event {
                changes.extend(update.changes.into_iter().map(|change| named(change).0));
            }
        }
        changes
    }

    async fn refused(&mut self) -> String {
        loop {
            match self.next().await {
                Event::Disconnected { reason } => return reason,
                Event::Update(update) => panic!("it was given {:?}", update.changes),
                Event::Connected | Event::Synced => {}
            }
        }
    }
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn named(change: Change) -> (String, Change) {
    let name = match &change {
        Change::Workload(workload) => workload.uid.to_string(),
        Change::Service(service) => service.key().to_string(),
        Change::Authorization(policy) => format!("policy {}", policy.key()),
        Change::RemoveAddress(name) => format!("no {name}"),
        Change::RemoveAuthorization(key) => format!("no policy {key}"),
        other => format!("{other:?}"),
    };
    (name, change)
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.{}, ports: [{{port: {port}}}]}}\n",
        name.len()
    )
}

const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                      metadata: {name: none, namespace: shop}\nspec: {}\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_ztunnel_gets_what_the_files_say_and_then_only_what_changed() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.write("user/store.yaml", &service("store", 80));
    stage.write("user/policy.yaml", POLICY);
    stage.start().await;
    let mut ztunnel = stage.ztunnel("weft-system", &stage.token("ztunnel", "uid-1"));
    let received = ztunnel.sync().await;
    let names: Vec<&str> = received.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "policy shop/none",
            "shop/store.shop.svc.cluster.local",
            "shop/web.shop.svc.cluster.local",
        ]
    );

    stage.write("user/web.yaml", &service("web", 8080));
    assert_eq!(ztunnel.changes().await, ["shop/web.shop.svc.cluster.local"]);
    fs::remove_file(stage.path("user/store.yaml")).expect("removed");
    assert_eq!(
        ztunnel.changes().await,
        ["no shop/store.shop.svc.cluster.local"]
    );

    let status = stage
        .status_until(|status| {
            let types = &status["proxies"][0]["types"];
            let types = types.as_object().expect("types");
            types.len() == 2 && types.values().all(|one| one["acked"] == one["sent"])
        })
        .await;
    assert_eq!(status["proxies"][0]["node"], "node-1");
    assert_eq!(status["resources"]["services"], 1);
    let policy = stage.api("/api/v1/objects/ap/shop/none").await;
    assert_eq!(
        policy["status"]["conditions"][0]["type"], "ZtunnelAccepted",
        "{policy:#}"
    );
    let condition = &policy["status"]["conditions"][0];
    assert_eq!(policy["metadata"]["generation"], 1, "{policy:#}");
    assert_eq!(condition["observedGeneration"], 1, "{policy:#}");
    assert!(condition["lastTransitionTime"].is_string(), "{policy:#}");
    assert_eq!(
        stage.api("/api/v1/debug/snapshot").await["policies"][0]["name"],
        "none"
    );
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_told_with_its_line_and_changes_nothing() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.start().await;
    let mut ztunnel = stage.ztunnel("weft-system", &stage.token("ztunnel", "uid-1"));
    ztunnel.sync().await;
    stage.write(
        "user/web.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: [\n",
    );
    let status = stage
        .status_until(|status| status.to_string().contains("errors"))
        .await;
    let objects = status["objects"].as_array().expect("objects");
    let wrong = objects.iter().find(|object| !object["errors"].is_null());
    let wrong = wrong.expect("an entry with the error");
    assert!(
        wrong["file"]
            .as_str()
            .expect("a file")
            .ends_with("web.yaml")
    );
    assert!(wrong["line"].as_u64().expect("a line") >= 3);
    assert_eq!(ztunnel.rest().await, [""; 0]);
    assert_eq!(status["resources"]["services"], 1);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_gone_is_told_and_changes_nothing() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.start().await;
    let mut ztunnel = stage.ztunnel("weft-system", &stage.token("ztunnel", "uid-1"));
    ztunnel.sync().await;
    fs::remove_dir_all(stage.path("user")).expect("removed");
    let status = stage
        .status_until(|status| status["problems"] != json!([]))
        .await;
    let problem = status["problems"][0].as_str().expect("a text");
    assert!(problem.contains("user can't be read"), "{problem}");
    assert_eq!(ztunnel.rest().await, [""; 0]);
    assert_eq!(status["resources"]["services"], 1);
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_nothing_that_is_known_is_sent_again() {
    use proto::discovery::{AggregatedDiscoveryServiceClient, DeltaDiscoveryRequest};
    use xds::resource_type::ResourceType;

    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.write("user/store.yaml", &service("store", 80));
    let token = stage.token("ztunnel", "uid-1");
    let mut known = BTreeMap::new();
    for (round, expected) in [(0, 2), (1, 0), (2, 1)] {
        if round == 2 {
            stage.write("user/web.yaml", &service("web", 8080));
        }
        stage.start().await;
        let (requests, outgoing) = mpsc::channel(4);
        let request = DeltaDiscoveryRequest {
            node: Some(xds::node::ztunnel(
                "127.0.0.1",
                "ztunnel-node-1",
                "weft-system",
                [],
            )),
            type_url: ResourceType::Address.url().to_owned(),
            initial_resource_versions: known.clone(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(request).await.expect("open");
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let mut client = AggregatedDiscoveryServiceClient::new(stage.channel(&token));
        let answer = tokio::time::timeout(PATIENCE, async {
            let responses = client.delta_aggregated_resources(outgoing).await;
            responses.expect("admitted").into_inner().message().await
        });
        let response = answer
            .await
            .expect("in time")
            .expect("open")
            .expect("a response");
        assert_eq!(response.resources.len(), expected, "round {round}");
        assert_eq!(response.removed_resources, [""; 0]);
        let versions = response.resources.into_iter();
        known.extend(versions.map(|resource| (resource.name, resource.version)));
        stage.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_nodes_own_proxy_gets_resources() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.start().await;
    let good = stage.token("ztunnel", "uid-1");
    let mut cut = good.clone();
    cut.truncate(good.len() - 4);
    for (namespace, token) in [
        ("weft-system", cut),
        ("weft-system", stage.token("other", "uid-1")),
        ("weft-system", stage.token("ztunnel", "uid-2")),
        ("shop", good.clone()),
    ] {
        let mut client = stage.ztunnel(namespace, &token);
        client.refused().await;
    }
    stage.ztunnel("weft-system", &good).sync().await;
    stage.stop().await;
}

/// Puts pods of the namespace shop on node-1.
fn write_pods(stage: &Stage, pods: &[(&str, Value)]) {
    for (name, labels) in pods {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels},
            "spec": {"nodeName": "node-1", "serviceAccountName": name,
                     "containers": [{"name": "app", "image": "app"}]},
            "status": {"phase": "Running", "podIP": "10.244.3.1"},
        });
        stage.write(&format!("cluster/Pod.shop.{name}.json"), &pod.to_string());
    }
}

fn waypoint_labels() -> Value {
    json!({
        "gateway.istio.io/managed": "istio.io-mesh-controller",
        "gateway.networking.k8s.io/gateway-name": "waypoint",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waypoint_and_nobody_else_gets_what_waypoints_enforce() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    let own_tunnel = json!({"networking.istio.io/tunnel": "http"});
    let pods = [
        ("waypoint", waypoint_labels()),
        ("own-tunnel", own_tunnel),
        ("web", json!({})),
    ];
    write_pods(&stage, &pods);
    stage.start().await;
    let token = |name: &str| stage.token_of("shop", name, (name, name));

    let mut waypoint = stage.waypoint("shop", &token("waypoint"));
    let received = waypoint.sync().await;
    assert!(received.contains_key("shop/web.shop.svc.cluster.local"));
    let status = stage
        .status_until(|status| {
            let types = &status["proxies"][0]["types"];
            types.as_object().is_some_and(|types| {
                types.len() == 4 && types.values().all(|one| one["acked"] == one["sent"])
            })
        })
        .await;
    assert_eq!(status["proxies"][0]["type"], "waypoint");
    let types = &status["proxies"][0]["types"];
    assert!(
        types["type.googleapis.com/weft.l7.Route"].is_object(),
        "{types:#}"
    );

    let node_proxy = stage.token("ztunnel", "uid-1");
    for (namespace, token) in [
        ("weft-system", node_proxy),
        ("shop", token("own-tunnel")),
        ("shop", token("web")),
        (
            "shop",
            stage.token_of("shop", "waypoint", ("waypoint", "another")),
        ),
        ("store", token("waypoint")),
    ] {
        let reason = stage.waypoint(namespace, &token).refused().await;
        assert!(reason.starts_with("PermissionDenied"), "{reason}");
    }
    // A waypoint has no business as a node's tunnel.
    stage.ztunnel("shop", &token("waypoint")).refused().await;
    stage.ztunnel("shop", &token("own-tunnel")).sync().await;
    stage.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_the_start_is_told_with_its_exit_code() {
    let mut stage = Stage::new();
    let failure = |args: Args| async {
        let failure = ControlPlane::open(args).await.err().expect("can't start");
        (failure.kind, failure.to_string())
    };

    let mut args = stage.args();
    args.folder = stage.path("nowhere");
    let (kind, message) = failure(args).await;
    assert_eq!(kind, Kind::BadInput, "{message}");
    assert!(message.contains("nowhere"), "{message}");

    let mut args = stage.args();
    args.cacerts = Some(stage.path("user"));
    let (kind, message) = failure(args).await;
    assert_eq!(kind, Kind::BadInput, "{message}");

    stage.start().await;
    let running = stage.running.as_ref().expect("runs");
    let mut args = stage.args();
    args.xds_listen = running.address;
    let (kind, message) = failure(args).await;
    assert_eq!(kind, Kind::Unavailable, "{message}");
    assert!(message.contains("already in use"), "{message}");
    let (kind, message) = failure(stage.args()).await;
    assert_eq!(kind, Kind::Unavailable, "{message}");
    assert!(message.contains("api.sock"), "{message}");
    stage.stop().await;
}
