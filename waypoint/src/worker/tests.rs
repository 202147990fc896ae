//! The whole path in one process: a node's tunnel in, a waypoint, a tunnel to an endpoint's node.

mod frames;

mod revocation;

mod stream_limits;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use hbone::client::{ConnectError, ConnectRequest, OpenError, Tunnel};
use http::{HeaderMap, Request, Response, StatusCode};
use identity::WorkloadCertificate;
use identity::authority::Signer;
use mesh::destination::{Authority, Hop, Transport as HopTransport};
use mesh::identity::Identity;
use mesh::service::AppProtocol;
use mesh::workload::Workload;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::*;
use crate::limits::Capacity;
use crate::message::{
    Admission, Arrival, Body, ConnectionMeter, ConnectionRoute, Downstream, Endpoint, Exchange,
    Interim, Protocol, Refusal, Upstream, UpstreamError,
};
use crate::transport::Stream;

const DAY: Duration = Duration::from_secs(86_400);

/// Everything goes to one endpoint.
struct Fixed {
    upstream: Connections,
    endpoint: Endpoint,
    protocol: AppProtocol,
    rejected: Arc<Mutex<Vec<StatusCode>>>,
    /// The worker of each connection that was let in.
    admitted: Arc<Mutex<Vec<String>>>,
}

struct Unmeasured;

impl ConnectionMeter for Unmeasured {
    fn connected(&self, _: &Hop, _: Result<(), &UpstreamError>) {}
    fn received(&self, _: u64) {}
    fn sent(&self, _: u64) {}
    fn poll_denied(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    fn closed(&self, _: Option<&str>) {}
}

impl Exchange for Fixed {
    async fn exchange(
        &self,
        _: &Rc<Downstream>,
        request: Request<Body>,
        interim: &Interim,
    ) -> Response<Body> {
        let sent = self.upstream.send(&self.endpoint, request, interim).await;
        sent.unwrap_or_else(|error| {
            let mut response = Response::new(Body::Full(error.to_string().into()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
    }
}

impl Pipeline for Fixed {
    fn admit(&self, arrival: &Arrival<'_>) -> Result<Admission, Refusal> {
        let Authority::Address(destination) = arrival.authority else {
            return Err(Refusal::Unknown("a hostname".to_owned()));
        };
        if destination.port() == 1 {
            return Err(Refusal::NotInFront(destination.to_string()));
        }
        let worker = thread::current().name().unwrap().to_owned();
        self.admitted.lock().unwrap().push(worker);
        Ok(Admission {
            downstream: Downstream {
                source_identity: arrival.peer_identity.cloned(),
                source: arrival.peer_address,
                destination,
                service: None,
                workload: None,
                opened: Instant::now(),
                remembered: Default::default(),
            },
            protocol: self.protocol,
        })
    }

    async fn route_connection(&self, _: &Rc<Downstream>) -> Result<ConnectionRoute, String> {
        Ok(ConnectionRoute {
            hops: vec![self.endpoint.hop.clone()],
            meter: Rc::new(Unmeasured),
        })
    }

    fn rejected(&self, _: &Rc<Downstream>, status: StatusCode, _: &str) {
        self.rejected.lock().unwrap().push(status);
    }
}

struct Fixture {
    signer: Signer,
    client: Arc<WorkloadCertificate>,
    waypoint: Arc<WorkloadCertificate>,
    server: Arc<WorkloadCertificate>,
    limits: Limits,
    rejected: Arc<Mutex<Vec<StatusCode>>>,
    admitted: Arc<Mutex<Vec<String>>>,
}

struct Always(Arc<WorkloadCertificate>);

impl Certificates for Always {
    fn current(&self) -> Result<Arc<WorkloadCertificate>, String> {
        Ok(self.0.clone())
    }
}

fn identity_of(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn issued(signer: &Signer, account: &str) -> WorkloadCertificate {
    let issued = signer.workload_certificate(&identity_of(account), DAY / 2, SystemTime::now());
    issued.unwrap()
}

impl Fixture {
    fn new() -> Self {
        let signer = Signer::self_signed("test", DAY, SystemTime::now()).unwrap();
        let certificate = |account: &str| Arc::new(issued(&signer, account));
        Self {
            client: certificate("client"),
            waypoint: certificate("waypoint"),
            server: certificate("server"),
            limits: Limits::default(),
            rejected: Arc::default(),
            admitted: Arc::default(),
            signer,
        }
    }

    fn start(
        &self,
        node: SocketAddr,
        protocol: Protocol,
        inside: AppProtocol,
        workers: usize,
    ) -> Workers {
        let hop = Hop {
            workload: Arc::new(Workload::new("Kubernetes//Pod/shop/web", "web", "shop")),
            target: "10.0.0.1:8080".parse().unwrap(),
            transport: HopTransport::Hbone {
                address: node,
                expected: Arc::new([identity_of("server")]),
            },
        };
        let endpoint = Endpoint { hop, protocol };
        let setup = Setup {
            listen: "127.0.0.1:0".parse().unwrap(),
            limits: self.limits.clone(),
            tunnel: tunnel_settings(),
            certificates: Arc::new(Always(self.waypoint.clone())),
            connect_headers: HeaderMap::new(),
        };
        let (rejected, admitted) = (self.rejected.clone(), self.admitted.clone());
        Workers::start(workers, Arc::new(setup), move |upstream| Fixed {
            rejected: rejected.clone(),
            admitted: admitted.clone(),
            upstream,
            endpoint: endpoint.clone(),
            protocol: inside,
        })
        .unwrap()
    }

    /// The endpoint's node: every CONNECT is handed to `application`.
    async fn node<F>(
        &self,
        application: impl Fn(Stream<hbone::stream::Stream>) -> F + Clone + 'static,
    ) -> SocketAddr
    where
        F: Future<Output = ()> + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = self.server.clone();
        spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (tls, application) = (certificate.server_config(), application.clone());
                spawn_local(async move {
                    let settings = Settings::default();
                    let accepted = hbone::server::accept(tcp, tls, &settings).await;
                    let Ok(mut connection) = accepted else { return };
                    assert_eq!(connection.peer(), Some(&identity_of("waypoint")));
                    while let Some(Ok(request)) = connection.next().await {
                        // The waypoint gives up what its client broke off.
                        let Ok(stream) = request.accept(None) else {
                            continue;
                        };
                        let stream = Stream::new(stream, Default::default());
                        spawn_local(application(stream));
                    }
                });
            }
        });
        address
    }

    /// The client's node.
    async fn tunnel(&self, waypoint: SocketAddr) -> Tunnel {
        self.try_tunnel(waypoint).await.unwrap()
    }

    async fn try_tunnel(&self, waypoint: SocketAddr) -> Result<Tunnel, ConnectError> {
        let tcp = TcpStream::connect(waypoint).await.unwrap();
        let expected: Arc<[Identity]> = Arc::new([identity_of("waypoint")]);
        let tls = self.client.client_config(&expected);
        hbone::client::handshake(tcp, tls, &Settings::default()).await
    }
}

async fn open(tunnel: &Tunnel) -> Stream<hbone::stream::Stream> {
    let target = "10.1.0.1:80".parse().unwrap();
    let request = ConnectRequest::to(target, HeaderMap::new());
    Stream::new(tunnel.open(request).await.unwrap(), Default::default())
}

/// Answers every request without a body.
async fn hello(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = Vec::new();
    while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
        while let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            if stream.write_all(answer).await.is_err() {
                return;
            }
            stream.flush().await.unwrap();
        }
    }
}

/// Reads until what has been read ends in `end`.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let read = stream.read_buf(&mut text).await.unwrap();
        assert!(read > 0, "{:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8(text).unwrap()
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        time::timeout(Duration::from_secs(60), test).await.unwrap()
    })
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";

#[test]
fn a_request_goes_through_both_tunnels() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Unknown, 2);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut client = open(&tunnel).await;
        for _ in 0..3 {
            client.write_all(GET).await.unwrap();
            let answer = read_until(&mut client, "hello").await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        drop(client);
        workers.drain(Duration::from_secs(5)).await;
    });
}

#[test]
fn a_tunnel_to_what_the_pipeline_does_not_admit_is_refused_with_its_status() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Unknown, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let target = "10.1.0.1:1".parse().unwrap();
        let refused = tunnel
            .open(ConnectRequest::to(target, HeaderMap::new()))
            .await;
        assert!(matches!(
            refused,
            Err(OpenError::Status(StatusCode::FORBIDDEN))
        ));
    });
}

#[test]
fn a_few_tunnels_are_spread_over_all_workers() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Http11, 2);
        let mut tunnels = Vec::new();
        for _ in 0..4 {
            let tunnel = fixture.tunnel(workers.address()).await;
            let mut client = open(&tunnel).await;
            client.write_all(GET).await.unwrap();
            read_until(&mut client, "hello").await;
            tunnels.push(tunnel);
        }
        let mut admitted = fixture.admitted.lock().unwrap().clone();
        admitted.sort();
        assert_eq!(admitted, ["worker-0", "worker-0", "worker-1", "worker-1"]);
        workers.drain(Duration::from_secs(5)).await;
    });
}

#[test]
fn what_is_beyond_the_capacity_is_turned_away_and_the_rest_goes_on() {
    run(async {
        let mut fixture = Fixture::new();
        fixture.limits.capacity = Capacity {
            tunnels: 1,
            connections: 1,
            ..Capacity::default()
        };
        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Http11, 2);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut first = open(&tunnel).await;
        let another = ConnectRequest::to("10.1.0.1:80".parse().unwrap(), HeaderMap::new());
        let refused = tunnel.open(another.clone()).await;
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        assert!(matches!(refused, Err(OpenError::Status(status)) if status == busy));
        assert!(fixture.try_tunnel(workers.address()).await.is_err());
        first.write_all(GET).await.unwrap();
        read_until(&mut first, "hello").await;
        drop(first);
        while tunnel.open(another.clone()).await.is_err() {
            tokio::task::yield_now().await;
        }
        drop(tunnel);
        while fixture.try_tunnel(workers.address()).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_server_that_begins_is_not_waited_for() {
    run(async {
        let fixture = Fixture::new();
        let greet = |mut stream: Stream<hbone::stream::Stream>| async move {
            stream.write_all(b"220 ready\r\n").await.unwrap();
            stream.flush().await.unwrap();
            let asked = read_until(&mut stream, "\r\n").await;
            stream.write_all(asked.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let node = fixture.node(greet).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Unknown, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut client = open(&tunnel).await;
        assert_eq!(read_until(&mut client, "\r\n").await, "220 ready\r\n");
        client.write_all(b"EHLO\r\n").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"EHLO\r\n");
    });
}

/// An endpoint that speaks HTTP/2: it answers with the request's body and a trailer.
async fn echo_http2(stream: Stream<hbone::stream::Stream>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        spawn_local(async move {
            let path = request.uri().path().to_owned();
            let mut body = request.into_body();
            let mut sender = respond.send_response(Response::new(()), false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                sender.send_data(data, false).unwrap();
            }
            sender.send_data(path.into(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            sender.send_trailers(trailers).unwrap();
        });
    }
}

async fn http2_client(tunnel: &Tunnel) -> h2::client::SendRequest<bytes::Bytes> {
    let (requests, connection) = h2::client::handshake(open(tunnel).await).await.unwrap();
    spawn_local(async move {
        let _ = connection.await;
    });
    requests
}

async fn receive(body: &mut h2::RecvStream) -> String {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn http2_goes_through_with_its_trailers() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(echo_http2).await;
        let workers = fixture.start(node, Protocol::Http2, AppProtocol::Unknown, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let requests = http2_client(&tunnel).await;
        for path in ["/1", "/2"] {
            let mut requests = requests.clone().ready().await.unwrap();
            let request = Request::post(format!("http://web{path}")).body(()).unwrap();
            let (response, mut sender) = requests.send_request(request, false).unwrap();
            sender.send_data("hello ".into(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(receive(&mut body).await, format!("hello {path}"));
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}

#[test]
fn versions_are_translated_both_ways() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(echo_http2).await;
        let workers = fixture.start(node, Protocol::Http2, AppProtocol::Http11, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut client = open(&tunnel).await;
        client
            .write_all(b"POST /x HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        let answer = read_until(&mut client, "0\r\n\r\n").await;
        assert!(
            answer.contains("2\r\nok\r\n") && answer.contains("2\r\n/x\r\n"),
            "{answer}"
        );

        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Grpc, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut requests = http2_client(&tunnel).await.ready().await.unwrap();
        let request = Request::get("http://web/").body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(receive(&mut response.into_body()).await, "hello");
    });
}

#[test]
fn rapid_resets_end_the_connection() {
    run(async {
        let fixture = Fixture::new();
        let silent = |mut stream: Stream<hbone::stream::Stream>| async move {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        };
        let node = fixture.node(silent).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Http2, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut requests = http2_client(&tunnel).await;
        let mut sent = 0;
        loop {
            requests = match requests.ready().await {
                Ok(requests) => requests,
                Err(_) => break,
            };
            let request = Request::get("http://web/").body(()).unwrap();
            let Ok((_, mut sender)) = requests.send_request(request, false) else {
                break;
            };
            sender.send_reset(h2::Reason::CANCEL);
            sent += 1;
            assert!(sent < 10_000, "never cut");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn http_of_either_version_comes_to_an_http_port_and_nothing_else() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(hello).await;
        for protocol in [AppProtocol::Http11, AppProtocol::Http2] {
            let workers = fixture.start(node, Protocol::Http1, protocol, 1);
            let tunnel = fixture.tunnel(workers.address()).await;
            let mut client = open(&tunnel).await;
            client.write_all(GET).await.unwrap();
            read_until(&mut client, "hello").await;
            let mut requests = http2_client(&tunnel).await.ready().await.unwrap();
            let request = Request::get("http://web/").body(()).unwrap();
            let (response, _) = requests.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status(), StatusCode::OK);
            let mut client = open(&tunnel).await;
            client.write_all(b"\x16\x03\x01\r\n\r\n").await.unwrap();
            let answer = read_until(&mut client, "\r\n\r\n").await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
    });
}

/// CVE-2020-12603: a body by the byte is a body like any other.
#[test]
fn an_http2_body_in_frames_of_one_byte_arrives() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(echo_http2).await;
        let workers = fixture.start(node, Protocol::Http2, AppProtocol::Http2, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut requests = http2_client(&tunnel).await.ready().await.unwrap();
        let request = Request::post("http://web/").body(()).unwrap();
        let (response, mut sender) = requests.send_request(request, false).unwrap();
        let sending = async {
            for _ in 0..5_000 {
                sender.reserve_capacity(1);
                let capacity = std::future::poll_fn(|cx| sender.poll_capacity(cx)).await;
                assert!(capacity.unwrap().unwrap() > 0);
                sender.send_data("x".into(), false).unwrap();
            }
            sender.send_data(Default::default(), true).unwrap();
        };
        let receiving = async { receive(&mut response.await.unwrap().into_body()).await };
        let ((), echoed) = tokio::join!(sending, receiving);
        assert_eq!(echoed, format!("{}/", "x".repeat(5_000)));
    });
}

/// CVE-2026-73548: nobody else's request goes where a switch was asked for, whatever came of it.
#[test]
fn an_upgrade_has_a_connection_of_its_own() {
    run(async {
        let fixture = Fixture::new();
        let connections = Rc::new(std::cell::Cell::new(0));
        let counted = connections.clone();
        let node = fixture
            .node(move |stream: Stream<hbone::stream::Stream>| {
                counted.set(counted.get() + 1);
                hello(stream)
            })
            .await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Http11, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let upgrade =
            b"GET / HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n";
        for (request, expected) in [(GET, 1), (&upgrade[..], 2), (GET, 2), (&upgrade[..], 3)] {
            let mut client = open(&tunnel).await;
            client.write_all(request).await.unwrap();
            read_until(&mut client, "hello").await;
            assert_eq!(connections.get(), expected);
        }
    });
}

/// An endpoint that only ever says that it will answer is given up.
#[test]
fn interim_responses_over_http2_are_bounded() {
    run(async {
        let fixture = Fixture::new();
        let hints = |stream: Stream<hbone::stream::Stream>| async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                for _ in 0..100 {
                    let mut early = Response::new(());
                    *early.status_mut() = StatusCode::EARLY_HINTS;
                    if respond.send_informational(early).is_err() {
                        break;
                    }
                }
            }
        };
        let node = fixture.node(hints).await;
        let workers = fixture.start(node, Protocol::Http2, AppProtocol::Http11, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut client = open(&tunnel).await;
        client.write_all(GET).await.unwrap();
        let answer = read_until(&mut client, "too many interim responses").await;
        let early = answer.matches("HTTP/1.1 103 ").count();
        assert_eq!(early, crate::http1::call::MOST_INTERIM);
    });
}
