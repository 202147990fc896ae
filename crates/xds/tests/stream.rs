//! Client and server over a real connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mesh::authorization::{Action, Authorization, Scope};
use mesh::request_authentication::RequestAuthentication;
use mesh::route::{Route, RouteKey, RouteKind, RouteRules};
use mesh::service::Service;
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::{Workload, WorkloadUid};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Endpoint;
use xds::client::{BoxError, Client, Config, Event, Subscription, Update};
use xds::node::{self, ProxyNode};
use xds::resource_type::{Layer, ResourceType};
use xds::server::{Admitted, Peers, ResourceSet, Server};

const PATIENCE: Duration = Duration::from_secs(60);

fn pod(name: &str, last_byte: u8) -> Change {
    let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
    workload.addresses = [[10, 0, 0, last_byte].into()].into_iter().collect();
    Change::Workload(workload)
}

fn removed(name: &str) -> Change {
    Change::RemoveAddress(format!("Kubernetes//Pod/shop/{name}").into())
}

/// A control plane on a port of its own.
struct ControlPlane {
    resources: watch::Sender<ResourceSet>,
    peers: Peers,
    address: SocketAddr,
    server: JoinHandle<()>,
}

impl ControlPlane {
    async fn start(changes: &[Change]) -> Self {
        let mut set = ResourceSet::default();
        set.apply(changes);
        let (resources, watched) = watch::channel(set);
        let peers = Peers::default();
        let authenticate = |metadata: &MetadataMap, node: &ProxyNode| {
            let token = metadata.get("authorization").map(|value| value.as_bytes());
            let until = match token {
                Some(b"Bearer good") => None,
                Some(b"Bearer short") => Some(SystemTime::now() + Duration::from_millis(300)),
                _ => return Err(tonic::Status::unauthenticated("the token is not good")),
            };
            let layer = match node.proxy_type.as_str() {
                node::WAYPOINT => Layer::L7,
                _ => Layer::L4,
            };
            Ok(Admitted { layer, until })
        };
        let service = Server::new(watched, peers.clone(), authenticate).into_service();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let router = tonic::transport::Server::builder().add_service(service);
            let incoming = TcpListenerStream::new(listener);
            router.serve_with_incoming(incoming).await.expect("serves");
        });
        Self {
            resources,
            peers,
            address,
            server,
        }
    }

    fn apply(&self, changes: &[Change]) {
        self.resources.send_if_modified(|set| set.apply(changes));
    }

    fn stop(self) {
        self.server.abort();
    }
}

/// A running client, and what it says.
struct Node {
    events: mpsc::UnboundedReceiver<Event>,
    control_plane: Arc<Mutex<SocketAddr>>,
    snapshot: Snapshot,
    client: JoinHandle<()>,
}

impl Node {
    fn start(control_plane: &ControlPlane, token: &'static str) -> Self {
        let metadata = [("NODE_NAME".to_owned(), "node-1".into())];
        let node = node::ztunnel("1.1.1.1", "ztunnel", "weft-system", metadata);
        Self::start_as(control_plane, node, Layer::L4, token)
    }

    fn waypoint(control_plane: &ControlPlane) -> Self {
        let node = node::waypoint("10.244.3.1", "waypoint-1", "shop", []);
        Self::start_as(control_plane, node, Layer::L7, "good")
    }

    fn start_as(
        control_plane: &ControlPlane,
        node: proto::discovery::Node,
        layer: Layer,
        token: &'static str,
    ) -> Self {
        let client = Client::new(Config {
            node,
            token: Arc::new(move || Ok(Some(token.to_owned()))),
            headers: Vec::new(),
            layer,
            addresses: Subscription::Wildcard,
        });
        let address = Arc::new(Mutex::new(control_plane.address));
        let (events, received) = mpsc::unbounded_channel();
        let dialled = address.clone();
        let client = tokio::spawn(async move {
            let connect = || {
                let address = *dialled.lock().expect("not poisoned");
                async move {
                    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
                    Ok::<_, BoxError>(endpoint.connect().await?)
                }
            };
            client
                .run(connect, |event| {
                    // The test may be over.
                    let _ = events.send(event);
                })
                .await;
        });
        Self {
            events: received,
            control_plane: address,
            snapshot: Snapshot::default(),
            client,
        }
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("in time").expect("running")
    }

    /// Waits for the next event that `wanted` picks, applying updates on the way.
    async fn until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            let event = self.next().await;
            let found = wanted(&event);
            if let Event::Update(update) = event {
                self.snapshot.apply(update.changes);
            }
            if let Some(found) = found {
                return found;
            }
        }
    }

    async fn synced(&mut self) {
        self.until(|event| matches!(event, Event::Synced).then_some(()))
            .await;
    }

    async fn update(&mut self) -> Update {
        self.update_of(ResourceType::Address).await
    }

    async fn update_of(&mut self, resource_type: ResourceType) -> Update {
        self.until(|event| match event {
            Event::Update(update) if update.resource_type == resource_type => Some(update.clone()),
            _ => None,
        })
        .await
    }

    async fn disconnected(&mut self) -> String {
        self.until(|event| match event {
            Event::Disconnected { reason } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    fn has(&self, name: &str) -> bool {
        let uid = WorkloadUid::new(format!("Kubernetes//Pod/shop/{name}"));
        self.snapshot.workload(&uid).is_some()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.client.abort();
    }
}

#[tokio::test]
async fn a_change_brings_only_that_resource() {
    let control_plane = ControlPlane::start(&[pod("web", 1), pod("db", 2)]).await;
    let mut node = Node::start(&control_plane, "good");
    node.synced().await;
    assert!(node.has("web") && node.has("db"));

    control_plane.apply(&[pod("web", 3)]);
    assert_eq!(node.update().await.changes, [pod("web", 3)]);
    control_plane.apply(&[removed("db")]);
    assert_eq!(node.update().await.changes, [removed("db")]);
    assert!(!node.has("db"));
}

/// An L4 policy, a whole one, tokens and a route, all called `shop/NAME`.
fn policies(name: &str) -> [Change; 4] {
    let policy = Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules: Vec::new(),
    };
    let tokens = RequestAuthentication {
        namespace: "shop".into(),
        name: name.into(),
        scope: Scope::Namespace,
        targets: Vec::new(),
        rules: Vec::new(),
        unparsable: None,
    };
    let route = Route {
        key: RouteKey::new(RouteKind::Http, "shop", name),
        parents: Vec::new(),
        created: 7,
        rules: RouteRules::Http(Vec::new()),
    };
    [
        Change::Authorization(policy.clone()),
        Change::AuthorizationPolicy(policy),
        Change::RequestAuthentication(tokens),
        Change::Route(route),
    ]
}

#[tokio::test]
async fn each_gets_what_it_enforces() {
    let control_plane = ControlPlane::start(&policies("web")).await;
    control_plane.apply(&[pod("web", 1)]);
    let mut waypoint = Node::waypoint(&control_plane);
    waypoint.synced().await;
    assert!(waypoint.has("web"));
    let known = &waypoint.snapshot;
    assert_eq!(known.routes().count(), 1);
    assert_eq!(known.authorization_policies().count(), 1);
    assert_eq!(known.request_authentications().count(), 1);
    assert_eq!(known.policies().count(), 0);

    let mut ztunnel = Node::start(&control_plane, "good");
    ztunnel.synced().await;
    let known = &ztunnel.snapshot;
    assert_eq!(known.routes().count(), 0);
    assert_eq!(known.authorization_policies().count(), 0);
    assert_eq!(known.request_authentications().count(), 0);
    assert_eq!(known.policies().count(), 1);
}

#[tokio::test]
async fn a_waypoint_that_comes_back_is_told_only_what_changed() {
    let control_plane = ControlPlane::start(&policies("web")).await;
    let mut waypoint = Node::waypoint(&control_plane);
    waypoint.synced().await;

    let next = ControlPlane::start(&policies("web")).await;
    let [_, _, _, route] = policies("api");
    next.apply(std::slice::from_ref(&route));
    *waypoint.control_plane.lock().expect("not poisoned") = next.address;
    control_plane.stop();
    waypoint.disconnected().await;
    let policies = waypoint.update_of(ResourceType::AuthorizationPolicy).await;
    assert_eq!(policies.changes, []);
    let routes = waypoint.update_of(ResourceType::Route).await;
    assert_eq!(routes.changes, [route]);
    let key = RouteKey::new(RouteKind::Http, "shop", "api");
    next.apply(&[Change::RemoveRoute(key.clone())]);
    let routes = waypoint.update_of(ResourceType::Route).await;
    assert_eq!(routes.changes, [Change::RemoveRoute(key)]);
}

#[tokio::test]
async fn what_is_not_of_its_layer_is_refused_not_answered_with_nothing() {
    let control_plane = ControlPlane::start(&policies("web")).await;
    let ztunnel = node::ztunnel("1.1.1.1", "ztunnel", "weft-system", []);
    let mut client = Node::start_as(&control_plane, ztunnel, Layer::L7, "good");
    let reason = client.disconnected().await;
    assert!(reason.contains("resources of this type"), "{reason}");
    assert_eq!(client.snapshot.routes().count(), 0);
}

#[tokio::test]
async fn a_reconnect_brings_only_what_changed_meanwhile() {
    let control_plane = ControlPlane::start(&[pod("web", 1), pod("db", 2), pod("api", 3)]).await;
    let mut node = Node::start(&control_plane, "good");
    node.synced().await;

    let next = ControlPlane::start(&[pod("web", 1), pod("api", 9)]).await;
    *node.control_plane.lock().expect("not poisoned") = next.address;
    control_plane.stop();
    node.disconnected().await;
    assert_eq!(node.update().await.changes, [removed("db"), pod("api", 9)]);
    assert!(node.has("web") && !node.has("db"));
}

#[tokio::test]
async fn a_control_plane_that_stops_ends_its_streams() {
    let control_plane = ControlPlane::start(&[pod("web", 1)]).await;
    let mut node = Node::start(&control_plane, "good");
    node.synced().await;
    drop(control_plane.resources);
    let reason = node.disconnected().await;
    assert!(reason.contains("stopping"), "{reason}");
}

#[tokio::test]
async fn a_rejection_is_shown_with_its_client() {
    // A service without hostname can be sent and not be taken.
    let nameless = Change::Service(Service::new("web", "shop", ""));
    let control_plane = ControlPlane::start(&[nameless, pod("web", 1)]).await;
    let mut node = Node::start(&control_plane, "good");
    node.synced().await;
    assert!(node.has("web"));

    // The acknowledgement is on its way.
    let nack = async {
        loop {
            let peers = control_plane.peers.connected();
            let types = peers.first().map(|peer| &peer.types);
            let status = types.and_then(|types| types.get(&ResourceType::Address));
            if let Some(nack) = status.and_then(|status| status.nacks.back()) {
                return (peers[0].node.clone(), nack.message.clone());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (proxy, message) = tokio::time::timeout(PATIENCE, nack).await.expect("in time");
    assert_eq!(proxy.node_name, "node-1");
    assert_eq!(proxy.pod, "ztunnel");
    assert_eq!(message, "shop/: hostname is missing");
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_shown() {
    let control_plane = ControlPlane::start(&[pod("web", 1)]).await;
    let mut node = Node::start(&control_plane, "good");
    node.synced().await;
    assert_eq!(control_plane.peers.connected().len(), 1);
    drop(node);
    let gone = async {
        while !control_plane.peers.connected().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("in time");
}

#[tokio::test]
async fn a_bad_token_is_refused_with_the_reason() {
    let control_plane = ControlPlane::start(&[pod("web", 1)]).await;
    let mut node = Node::start(&control_plane, "bad");
    let reason = node.disconnected().await;
    assert!(reason.contains("the token is not good"), "{reason}");
    assert!(control_plane.peers.connected().is_empty());
}

#[tokio::test]
async fn a_stream_ends_with_the_token_it_was_opened_with() {
    let control_plane = ControlPlane::start(&[pod("web", 1)]).await;
    let mut node = Node::start(&control_plane, "short");
    node.synced().await;
    let reason = node.disconnected().await;
    assert!(reason.contains("token"), "{reason}");
    // It comes back with what it has, and is let in again.
    control_plane.apply(&[pod("api", 2)]);
    assert_eq!(node.update().await.changes, [pod("api", 2)]);
}

#[tokio::test]
async fn ten_thousand_pods_sync_in_time() {
    let pods: Vec<Change> = (0..10_000_u16)
        .map(|n| pod(&format!("web-{n}"), n.to_be_bytes()[1]))
        .collect();
    let control_plane = ControlPlane::start(&pods).await;
    let mut node = Node::start(&control_plane, "good");
    node.synced().await;
    assert!(node.has("web-0") && node.has("web-9999"));
}
