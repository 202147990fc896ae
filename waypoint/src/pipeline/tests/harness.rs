//! A small mesh, a scripted upstream, and requests made in one line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress};
use mesh::identity::Identity;
use mesh::route::{
    Backend, BackendRef, Filter, HttpMatch, HttpRule, PathMatch, Route, RouteKey, RouteKind,
    RouteParent, RouteRules,
};
use mesh::service::{AppProtocol, Port, Service};
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::{TunnelProtocol, Workload};
use runtime::environment::Environment;
use tokio::task::LocalSet;
use xds::state::State;

use crate::config::Config;
use crate::message::{
    Body, BodyError, Downstream, Endpoint, Exchange, Interim, Upstream, UpstreamError,
};
use crate::names::Names;
use crate::pipeline::WorkerPipeline;
use crate::shared::Shared;

pub(super) const VIP: &str = "10.1.0.1";
pub(super) const OTHER_VIP: &str = "10.1.0.2";

/// What an upstream got.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) workload: String,
    pub(super) target: String,
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) version: http::Version,
}

type Act = Box<dyn FnOnce(Seen) -> LocalBoxFuture<'static, Result<Response<Body>, UpstreamError>>>;

/// An upstream that does what it is told, in order, and after that answers 200.
#[derive(Clone, Default)]
pub(super) struct Fake(Rc<Script>);

#[derive(Default)]
struct Script {
    acts: RefCell<VecDeque<Act>>,
    seen: RefCell<Vec<Seen>>,
}

/// A pipeline in front of the mesh.
pub(super) struct Mesh {
    pub(super) snapshot: RefCell<Snapshot>,
    pub(super) state: Arc<State>,
    pub(super) shared: Arc<Shared>,
    pub(super) upstream: Fake,
    pub(super) pipeline: WorkerPipeline<Fake>,
}

/// What a client got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Vec<u8>, BodyError>,
    pub(super) trailers: Option<HeaderMap>,
}

pub(super) fn run(test: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    LocalSet::new().block_on(&runtime, test());
}

pub(super) fn config() -> Config {
    let settings = [
        ("POD_NAME", "waypoint-1"),
        ("POD_NAMESPACE", "shop"),
        ("GATEWAY_NAME", "waypoint"),
        ("INSTANCE_IP", "10.0.0.9"),
        ("XDS_ADDRESS", "cp:15012"),
        ("CA_ADDRESS", "cp:15012"),
    ];
    let environment: Environment = settings
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .collect();
    Config::parse(environment, 1).expect("valid")
}

pub(super) fn host(name: &str) -> NamespacedHostname {
    NamespacedHostname::new("shop", format!("{name}.shop.svc.cluster.local"))
}

pub(super) fn service(name: &str, vip: &str) -> Service {
    let mut service = Service::new(name, "shop", &host(name).hostname);
    service.addresses = vec![NetworkAddress::new("", vip.parse().expect("an address"))];
    service.ports = vec![Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: AppProtocol::Unknown,
    }];
    service.waypoint = Some(GatewayAddress {
        destination: GatewayDestination::Hostname(host("waypoint")),
        hbone_mtls_port: 15008,
    });
    service
}

pub(super) fn pod(name: &str, address: &str, services: &[&str]) -> Workload {
    let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
    workload.addresses = [address.parse().expect("an address")].into_iter().collect();
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    workload.canonical_name = name.into();
    workload.service_account = name.into();
    workload.services = services
        .iter()
        .map(|service| (host(service), Vec::new()))
        .collect();
    workload
}

/// `web` with two pods, `other` with one, a client.
pub(super) fn shop() -> Vec<Change> {
    vec![
        Change::Service(service("web", VIP)),
        Change::Service(service("other", OTHER_VIP)),
        Change::Workload(pod("web-0", "10.0.0.1", &["web"])),
        Change::Workload(pod("web-1", "10.0.0.2", &["web"])),
        Change::Workload(pod("other-0", "10.0.0.3", &["other"])),
        Change::Workload(pod("client", "10.0.0.7", &[])),
    ]
}

/// An HTTPRoute on `web`.
pub(super) fn route(rules: Vec<HttpRule>) -> Change {
    Change::Route(Route {
        key: RouteKey::new(RouteKind::Http, "shop", "web"),
        parents: vec![RouteParent {
            service: host("web"),
            port: None,
            clients: None,
        }],
        created: 0,
        rules: RouteRules::Http(rules),
    })
}

pub(super) fn rule(prefix: &str, backends: &[(&str, u32)], filters: Vec<Filter>) -> HttpRule {
    HttpRule {
        matches: vec![HttpMatch {
            path: Some(PathMatch::PathPrefix(prefix.into())),
            ..HttpMatch::default()
        }],
        filters,
        backends: backends
            .iter()
            .map(|(name, weight)| Backend {
                backend: to(name),
                weight: *weight,
                filters: Vec::new(),
            })
            .collect(),
        ..HttpRule::default()
    }
}

pub(super) fn to(name: &str) -> BackendRef {
    BackendRef::Service {
        service: host(name),
        port: 80,
        subset: None,
    }
}

pub(super) fn get(path: &str) -> Request<Body> {
    let request = Request::get(path).header("host", "web.shop");
    request.body(Body::Empty).expect("a request")
}

pub(super) fn post(path: &str, body: Body) -> Request<Body> {
    let request = Request::post(path).header("host", "web.shop");
    request.body(body).expect("a request")
}

/// A body of several frames.
pub(crate) fn frames(parts: &[&'static [u8]]) -> Body {
    struct Frames(VecDeque<Bytes>);
    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = BodyError;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
            let frame = self.0.pop_front().map(http_body::Frame::data).map(Ok);
            std::task::Poll::Ready(frame)
        }
    }
    Body::stream(Frames(
        parts.iter().map(|part| Bytes::from_static(part)).collect(),
    ))
}

pub(crate) async fn read(body: Body) -> (Result<Vec<u8>, BodyError>, Option<HeaderMap>) {
    let mut body = body;
    let mut read = Vec::new();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => read.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Err(error) => return (Err(error), trailers),
        }
    }
    (Ok(read), trailers)
}

// === impl Fake ===

impl Fake {
    fn then(&self, act: Act) -> &Self {
        self.0.acts.borrow_mut().push_back(act);
        self
    }

    pub(super) fn responds(&self, status: u16) -> &Self {
        self.respond(move || {
            let mut response = Response::new(Body::Full(Bytes::from_static(b"scripted")));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            response
        })
    }

    pub(super) fn respond(&self, make: impl FnOnce() -> Response<Body> + 'static) -> &Self {
        self.then(Box::new(|_| Box::pin(async move { Ok(make()) })))
    }

    pub(super) fn fails(&self, error: UpstreamError) -> &Self {
        self.then(Box::new(|_| Box::pin(async move { Err(error) })))
    }

    pub(super) fn takes(&self, time: Duration) -> &Self {
        self.then(Box::new(move |_| {
            Box::pin(async move {
                tokio::time::sleep(time).await;
                Ok(Response::new(Body::Full(Bytes::from_static(b"late"))))
            })
        }))
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.0.seen.borrow().clone()
    }

    pub(super) fn last(&self) -> Seen {
        self.seen().pop().expect("something was sent")
    }
}

impl Upstream for Fake {
    async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        _: &Interim,
    ) -> Result<Response<Body>, UpstreamError> {
        let act = self.0.acts.borrow_mut().pop_front();
        let (parts, body) = request.into_parts();
        let (body, _) = read(body).await;
        let seen = Seen {
            workload: endpoint.hop.workload.name().to_owned(),
            target: endpoint.hop.target.to_string(),
            method: parts.method,
            uri: parts.uri.to_string(),
            headers: parts.headers,
            version: parts.version,
            body: body.map_err(UpstreamError::RequestBody)?,
        };
        self.0.seen.borrow_mut().push(seen.clone());
        match act {
            Some(act) => act(seen).await,
            None => Ok(Response::new(Body::Full(Bytes::from_static(b"ok")))),
        }
    }
}

// === impl Mesh ===

impl Mesh {
    pub(super) fn new(more: Vec<Change>) -> Self {
        Self::with(config(), more)
    }

    pub(super) fn with(config: Config, more: Vec<Change>) -> Self {
        Self::naming(Names::default(), config, more)
    }

    /// Where names come to what `names` says.
    pub(super) fn naming(names: Names, config: Config, more: Vec<Change>) -> Self {
        let mut snapshot = Snapshot::default();
        snapshot.apply(shop());
        snapshot.apply(more);
        let state = Arc::new(State::new(snapshot.clone()));
        let shared = Arc::new(Shared::new(config, state.clone()));
        let upstream = Fake::default();
        Self {
            snapshot: RefCell::new(snapshot),
            state,
            pipeline: WorkerPipeline::with_names(shared.clone(), upstream.clone(), names),
            shared,
            upstream,
        }
    }

    pub(super) fn apply(&self, changes: Vec<Change>) {
        let mut snapshot = self.snapshot.borrow_mut();
        snapshot.apply(changes);
        self.state.publish(snapshot.clone());
    }

    pub(super) fn downstream(&self) -> Rc<Downstream> {
        self.downstream_of("client")
    }

    pub(super) fn downstream_of(&self, account: &str) -> Rc<Downstream> {
        Rc::new(Downstream {
            source_identity: Some(Identity::new("cluster.local", "shop", account)),
            source: SocketAddr::from(([10, 0, 0, 7], 40_000)),
            destination: SocketAddr::new(VIP.parse().expect("an address"), 80),
            service: Some(host("web")),
            workload: None,
            opened: std::time::Instant::now(),
            remembered: Default::default(),
        })
    }

    pub(super) async fn start(&self, request: Request<Body>) -> Response<Body> {
        let interim = Interim(Rc::new(|_| {}));
        let downstream = self.downstream();
        self.pipeline.exchange(&downstream, request, &interim).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Got {
        let (parts, body) = self.start(request).await.into_parts();
        let (body, trailers) = read(body).await;
        Got {
            status: parts.status,
            headers: parts.headers,
            body,
            trailers,
        }
    }

    /// The lines of the metrics about a family.
    pub(super) fn metrics(&self, name: &str) -> Vec<String> {
        let mut exposition = runtime::metrics::Exposition::default();
        self.shared.registry.render(&mut exposition);
        let text = exposition.into_text();
        let lines = text.lines().filter(|line| line.starts_with(name));
        lines.map(str::to_owned).collect()
    }
}

// === impl Got ===

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn text(&self) -> String {
        let body = self.body.clone().expect("a whole body");
        String::from_utf8(body).expect("text")
    }
}
