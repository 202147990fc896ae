//! Both ends over loopback, with certificates made in the process.

mod abandoned;
mod frozen;
mod nested;
mod sharing;
mod slow_line;
mod stale;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use identity::WorkloadCertificate;
use identity::authority::Signer;
use mesh::identity::Identity;
use mesh::workload::WorkloadUid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::client::{self, ConnectError, ConnectRequest, OpenError, Tunnel};
use crate::copy::{self, CopyError, Meter, Side};
use crate::pool::{Key, Opened, Pool};
use crate::server;
use crate::settings::Settings;
use crate::stream::Stream;

const HALF_CLOSED: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Count {
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Meter for Count {
    fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
    }

    fn sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
    }
}

/// A CA with a client and a server of its trust domain.
struct Mesh {
    client: WorkloadCertificate,
    server: Arc<WorkloadCertificate>,
}

fn identity_of(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn expect(account: &str) -> Arc<[Identity]> {
    Arc::new([identity_of(account)])
}

impl Mesh {
    fn new() -> Self {
        let now = SystemTime::now();
        let day = Duration::from_secs(86_400);
        let signer = Signer::self_signed("test", day, now).expect("root");
        let certificate = |account| {
            signer
                .workload_certificate(&identity_of(account), day / 2, now)
                .expect("certificate")
        };
        Self {
            client: certificate("client"),
            server: Arc::new(certificate("server")),
        }
    }
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    LocalSet::new().block_on(&runtime, async {
        timeout(Duration::from_secs(120), test)
            .await
            .expect("in time")
    })
}

/// Lets both ends say all they have to say: turns for their tasks, which a busy machine may take from
/// any time that is slept.
async fn settle() {
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("connect"), server.expect("accept").0)
}

/// Sockets that hold little between them, so that what is sent waits behind them.
async fn narrow_pair() -> (TcpStream, TcpStream) {
    let narrow = || {
        let socket = TcpSocket::new_v4().expect("socket");
        socket.set_send_buffer_size(16 << 10).expect("set");
        socket.set_recv_buffer_size(16 << 10).expect("set");
        socket
    };
    let listening = narrow();
    let any = "127.0.0.1:0".parse().expect("address");
    listening.bind(any).expect("bind");
    let listener = listening.listen(1).expect("listen");
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(narrow().connect(address), listener.accept());
    (client.expect("connect"), server.expect("accept").0)
}

/// A server that hands each request to `handle`, each connection on its own.
async fn serve<H, F>(mesh: &Mesh, settings: Settings, handle: H) -> std::net::SocketAddr
where
    H: Fn(server::Request) -> F + Clone + 'static,
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let certificate = mesh.server.clone();
    spawn_local(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (config, settings, handle) = (
                certificate.server_config(),
                settings.clone(),
                handle.clone(),
            );
            spawn_local(async move {
                let Ok(mut connection) = server::accept(tcp, config, &settings).await else {
                    return;
                };
                assert_eq!(connection.peer(), Some(&identity_of("client")));
                while let Some(Ok(request)) = connection.next().await {
                    spawn_local(handle(request));
                }
            });
        }
    });
    address
}

async fn dial(
    mesh: &Mesh,
    address: std::net::SocketAddr,
    expected: &str,
    settings: &Settings,
) -> Result<Tunnel, ConnectError> {
    let tcp = TcpStream::connect(address).await.expect("connect");
    client::handshake(tcp, mesh.client.client_config(&expect(expected)), settings).await
}

async fn send(stream: &mut Stream, data: Vec<u8>) -> Result<(), h2::Error> {
    let mut data = data.into();
    std::future::poll_fn(|cx| stream.poll_send(cx, &mut data)).await
}

fn request() -> ConnectRequest {
    ConnectRequest::to("10.0.0.1:80".parse().expect("address"), HeaderMap::new())
}

/// The application's side of one tunnelled connection at each end.
async fn tunnelled(mesh: &Mesh) -> (TcpStream, TcpStream, Rc<Count>) {
    let (server_app, server_end) = pair().await;
    let server_end = Rc::new(RefCell::new(Some(server_end)));
    let address = serve(mesh, Settings::default(), move |request| {
        let tcp = server_end.borrow_mut().take();
        async move {
            let mut tcp = tcp.expect("one stream");
            let mut stream = request.accept(None).expect("accept");
            let count = Count::default();
            let _ = copy::tunnel(&mut tcp, &mut stream, Side::Server, HALF_CLOSED, &count).await;
        }
    })
    .await;
    let tunnel = dial(mesh, address, "server", &Settings::default())
        .await
        .expect("tunnel");
    assert_eq!(tunnel.key_exchange(), "X25519MLKEM768");
    let (client_app, mut client_end) = pair().await;
    let count = Rc::new(Count::default());
    let counted = count.clone();
    spawn_local(async move {
        let mut stream = tunnel.open(request()).await.expect("stream");
        let _ = copy::tunnel(
            &mut client_end,
            &mut stream,
            Side::Client,
            HALF_CLOSED,
            &*counted,
        )
        .await;
    });
    (client_app, server_app, count)
}

#[test]
fn half_close_passes_both_ways() {
    run(async {
        let (mut client, mut server, _) = tunnelled(&Mesh::new()).await;
        client.write_all(b"question").await.expect("write");
        client.shutdown().await.expect("shutdown");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("read");
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.expect("write");
        server.shutdown().await.expect("shutdown");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"answer");
    });
}

#[test]
fn a_server_may_speak_and_close_first() {
    run(async {
        let (mut client, mut server, count) = tunnelled(&Mesh::new()).await;
        server.write_all(b"greeting").await.expect("write");
        server.shutdown().await.expect("shutdown");
        let mut greeting = Vec::new();
        client.read_to_end(&mut greeting).await.expect("read");
        client.write_all(b"bye").await.expect("write");
        client.shutdown().await.expect("shutdown");
        let mut bye = Vec::new();
        server.read_to_end(&mut bye).await.expect("read");
        assert_eq!((greeting, bye), (b"greeting".to_vec(), b"bye".to_vec()));
        assert_eq!((count.received.get(), count.sent.get()), (3, 8));
    });
}

#[test]
fn sixty_four_mebibytes_arrive_unchanged_both_ways_at_once() {
    const SIZE: usize = 64 << 20;
    fn bytes(seed: u64, from: usize, amount: usize) -> Vec<u8> {
        let word = |index: usize| (index as u64 / 8 + seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (from..from + amount)
            .map(|index| (word(index) >> (index % 8 * 8)) as u8)
            .collect()
    }
    async fn exchange(tcp: TcpStream, send: u64, expect: u64) {
        let (mut reader, mut writer) = tcp.into_split();
        let sending = spawn_local(async move {
            for from in (0..SIZE).step_by(1 << 20) {
                writer
                    .write_all(&bytes(send, from, 1 << 20))
                    .await
                    .expect("write");
            }
            writer.shutdown().await.expect("shutdown");
        });
        let mut chunk = vec![0; 1 << 20];
        for from in (0..SIZE).step_by(1 << 20) {
            reader.read_exact(&mut chunk).await.expect("read");
            assert!(
                chunk == bytes(expect, from, 1 << 20),
                "differs after {from}"
            );
        }
        assert_eq!(reader.read(&mut chunk).await.expect("end"), 0);
        sending.await.expect("sent");
    }
    run(async {
        let (client, server, count) = tunnelled(&Mesh::new()).await;
        tokio::join!(exchange(client, 1, 2), exchange(server, 2, 1));
        assert_eq!(count.received.get(), SIZE as u64);
        assert_eq!(count.sent.get(), SIZE as u64);
    });
}

#[test]
fn a_reset_at_one_end_is_a_reset_at_the_other() {
    run(async {
        let (client, mut server, _) = tunnelled(&Mesh::new()).await;
        let mut byte = [0; 1];
        client.set_zero_linger().expect("linger");
        drop(client);
        let error = server.read(&mut byte).await.expect_err("reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    run(async {
        let (mut client, server, _) = tunnelled(&Mesh::new()).await;
        client.write_all(b"x").await.expect("write");
        server.readable().await.expect("arrived");
        server.set_zero_linger().expect("linger");
        drop(server);
        let error = client.read(&mut [0; 1]).await.expect_err("reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_peer_that_has_said_all_and_stops_reading_is_heard_to_the_end() {
    const SIZE: usize = 3 << 20;
    run(async {
        let mesh = Mesh::new();
        let address = serve(&mesh, Settings::default(), |request| async move {
            let mut stream = request.accept(None).expect("accept");
            send(&mut stream, vec![7; SIZE]).await.expect("send");
            stream.sender.finish().expect("finish");
            // All of it leaves before the reset does; h2 would drop what is queued.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            stream.stop_reading();
            std::future::pending::<()>().await;
        })
        .await;
        let tunnel = dial(&mesh, address, "server", &Settings::default())
            .await
            .expect("tunnel");
        let (mut client, mut end) = narrow_pair().await;
        let copied = spawn_local(async move {
            let mut stream = tunnel.open(request()).await.expect("stream");
            let count = Count::default();
            copy::tunnel(&mut end, &mut stream, Side::Client, HALF_CLOSED, &count).await
        });
        // Far more than the window and every buffer hold: this ends only once the reset is here,
        // while most of what the peer said still waits behind a socket that nobody reads.
        for _ in 0..256 {
            client.write_all(&[1; 64 << 10]).await.expect("taken");
        }
        client.shutdown().await.expect("taken");
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.expect("all of it");
        assert_eq!(received.len(), SIZE);
        copied.await.expect("no panic").expect("in order");
    });
}

#[test]
fn half_closed_and_silent_ends_at_the_deadline() {
    run(async {
        let (mut client_app, mut client_end) = pair().await;
        let (_server_app, mut server_end) = pair().await;
        client_app.shutdown().await.expect("shutdown");
        let result = copy::sockets(
            &mut client_end,
            &mut server_end,
            Duration::from_millis(20),
            &Count::default(),
        )
        .await;
        assert!(matches!(result, Err(CopyError::HalfClosed)));
    });
}

#[test]
fn applications_that_do_not_read_leave_their_siblings_alone() {
    const STALLED: usize = 16;
    run(async {
        let (mesh, settings) = (Mesh::new(), Settings::default());
        let requests = Rc::new(Cell::new(0));
        let address = serve(&mesh, settings.clone(), move |request| {
            let number = requests.replace(requests.get() + 1);
            async move {
                let mut stream = request.accept(None).expect("accept");
                if number < STALLED {
                    std::future::pending::<()>().await;
                }
                let (mut application, mut end) = pair().await;
                spawn_local(async move {
                    let (mut reader, mut writer) = application.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
                let count = Count::default();
                let _ =
                    copy::tunnel(&mut end, &mut stream, Side::Server, HALF_CLOSED, &count).await;
            }
        })
        .await;
        let tunnel = dial(&mesh, address, "server", &settings)
            .await
            .expect("tunnel");
        let mut stalled = Vec::new();
        for _ in 0..STALLED {
            let mut stream = tunnel.open(request()).await.expect("stream");
            let fill = vec![0; settings.stream_window as usize];
            let filled = timeout(Duration::from_secs(20), send(&mut stream, fill)).await;
            filled.expect("has a window of its own").expect("sends");
            stalled.push(stream);
        }
        let (mut client, mut end) = pair().await;
        spawn_local(async move {
            let mut stream = tunnel.open(request()).await.expect("stream");
            let count = Count::default();
            let _ = copy::tunnel(&mut end, &mut stream, Side::Client, HALF_CLOSED, &count).await;
        });
        let (mut reader, mut writer) = client.split();
        let sent = vec![7; 8 << 20];
        let mut received = vec![0; sent.len()];
        let (written, read) =
            tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
        written.expect("write");
        read.expect("echo");
        assert!(received == sent);
    });
}

#[test]
fn anything_but_200_is_reported_with_its_status() {
    run(async {
        let mesh = Mesh::new();
        let address = serve(&mesh, Settings::default(), |request| async {
            request.refuse(StatusCode::UNAUTHORIZED);
        })
        .await;
        let tunnel = dial(&mesh, address, "server", &Settings::default())
            .await
            .expect("tunnel");
        let error = tunnel.open(request()).await.expect_err("refused");
        assert!(matches!(error, OpenError::Status(StatusCode::UNAUTHORIZED)));
        assert_eq!(tunnel.streams(), 0);
    });
}

#[test]
fn a_server_that_is_someone_else_is_refused() {
    run(async {
        let mesh = Mesh::new();
        let address = serve(&mesh, Settings::default(), |_| async {}).await;
        let error = dial(&mesh, address, "other", &Settings::default())
            .await
            .expect_err("wrong identity");
        assert!(matches!(error, ConnectError::PeerIdentity(_)), "{error}");
    });
}

#[test]
fn a_handshake_that_stalls_times_out() {
    run(async {
        let mesh = Mesh::new();
        let settings = Settings {
            handshake_timeout: Duration::from_millis(20),
            ..Settings::default()
        };
        let (client, server) = pair().await;
        let error = client::handshake(
            client,
            mesh.client.client_config(&expect("server")),
            &settings,
        )
        .await
        .expect_err("silent server");
        assert!(matches!(error, ConnectError::HandshakeTimeout));
        drop(server);
        let (_client, server) = pair().await;
        let result = server::accept(server, mesh.server.server_config(), &settings).await;
        assert!(matches!(result, Err(server::AcceptError::Timeout)));
    });
}

#[test]
fn what_the_authority_says_reaches_the_judge_unharmed() {
    run(async {
        let mesh = Mesh::new();
        let seen = Rc::new(RefCell::new(Vec::new()));
        let record = seen.clone();
        let address = serve(&mesh, Settings::default(), move |request| {
            assert_eq!(request.method, Method::CONNECT);
            let authority = request.authority.as_ref().map(ToString::to_string);
            record.borrow_mut().push(authority.unwrap_or_default());
            request.refuse(StatusCode::BAD_REQUEST);
            async {}
        })
        .await;
        let tunnel = dial(&mesh, address, "server", &Settings::default())
            .await
            .expect("tunnel");
        for authority in ["10.0.0.1", "10.0.0.1:99999", "[::1]:80", "web.shop:80"] {
            let request = ConnectRequest {
                authority: authority.parse().expect("characters of an authority"),
                headers: HeaderMap::new(),
            };
            let error = tunnel.open(request).await.expect_err("refused");
            assert!(matches!(error, OpenError::Status(StatusCode::BAD_REQUEST)));
        }
        assert_eq!(
            *seen.borrow(),
            ["10.0.0.1", "10.0.0.1:99999", "[::1]:80", "web.shop:80"]
        );
    });
}

/// A pool against a server that keeps each stream open until it is reset.
struct Pooling {
    mesh: Mesh,
    pool: Pool,
    address: std::net::SocketAddr,
    settings: Settings,
    dials: Rc<Cell<usize>>,
}

impl Pooling {
    async fn new(streams: usize, idle: Duration) -> Self {
        let settings = Settings {
            client_streams: streams,
            ..Settings::default()
        };
        Self::with(settings, idle).await
    }

    async fn with(settings: Settings, idle: Duration) -> Self {
        let mesh = Mesh::new();
        let address = serve(&mesh, settings.clone(), |request| async move {
            let stream = request.accept(None).expect("accept");
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        Self {
            mesh,
            pool: Pool::new(idle),
            address,
            settings,
            dials: Rc::default(),
        }
    }

    fn key(&self) -> Key {
        Key {
            source: identity_of("client"),
            pod: "pod-1".into(),
            expected: expect("server"),
            workload: Some(WorkloadUid::new("Kubernetes//Pod/shop/server")),
            destination: self.address,
        }
    }

    async fn open_as(&self, key: &Key) -> Opened {
        self.try_open_as(key).await.expect("stream")
    }

    async fn try_open_as(&self, key: &Key) -> Result<Opened, OpenError> {
        self.try_open_within(key, None).await
    }

    async fn try_open_within(
        &self,
        key: &Key,
        patience: Option<Duration>,
    ) -> Result<Opened, OpenError> {
        let config = self.mesh.client.client_config(&key.expected);
        let connect = || self.connect(key);
        let pool = &self.pool;
        pool.open(key, &config, connect, request(), patience).await
    }

    fn connect(&self, key: &Key) -> impl Future<Output = Result<Tunnel, ConnectError>> + use<> {
        self.dials.set(self.dials.get() + 1);
        let config = self.mesh.client.client_config(&key.expected);
        let (settings, address) = (self.settings.clone(), self.address);
        async move {
            let tcp = TcpStream::connect(address).await.expect("connect");
            client::handshake(tcp, config, &settings).await
        }
    }

    async fn open(&self) -> Opened {
        self.open_as(&self.key()).await
    }
}

#[test]
fn many_at_once_share_one_handshake() {
    run(async {
        let pooling = Pooling::new(100, HALF_CLOSED).await;
        let opened = futures::future::join_all((0..50).map(|_| pooling.open())).await;
        assert_eq!((pooling.dials.get(), pooling.pool.tunnels()), (1, 1));
        drop(opened);
    });
}

#[test]
fn an_attempt_that_panics_fails_those_who_wait_and_no_later_one() {
    run(async {
        let pooling = Pooling::new(100, HALF_CLOSED).await;
        let key = pooling.key();
        let config = pooling.mesh.client.client_config(&key.expected);
        let connect = || async { panic!("as a bug would") };
        let attempts = (0..3).map(|_| pooling.pool.open(&key, &config, connect, request(), None));
        let failed = timeout(HALF_CLOSED, futures::future::join_all(attempts)).await;
        for attempt in failed.expect("told, not left waiting") {
            let error = attempt.expect_err("no tunnel");
            assert!(error.to_string().contains("ended early"), "{error}");
        }
        pooling.open().await;
    });
}

#[test]
fn a_full_tunnel_gets_company_and_serves_again_when_streams_end() {
    run(async {
        let pooling = Pooling::new(2, HALF_CLOSED).await;
        let mut opened = Vec::new();
        for _ in 0..5 {
            opened.push(pooling.open().await);
        }
        assert_eq!(pooling.pool.tunnels(), 3);
        opened.drain(..2);
        settle().await;
        opened.push(pooling.open().await);
        opened.push(pooling.open().await);
        assert_eq!(pooling.dials.get(), 3);
    });
}

#[test]
fn a_tunnel_that_a_crowd_left_behind_is_not_kept_by_who_comes_later() {
    run(async {
        let pooling = Pooling::new(3, HALF_CLOSED).await;
        let mut first = vec![pooling.open().await];
        first.push(pooling.open().await);
        first.push(pooling.open().await);
        let second = pooling.open().await;
        assert_eq!(pooling.pool.tunnels(), 2);
        first.pop();
        first.push(pooling.open().await);
        drop(second);
        pooling.pool.release_idle();
        assert_eq!(pooling.pool.tunnels(), 1);
    });
}

/// A peer gives it the widest windows.
#[test]
fn the_oldest_tunnel_with_room_is_used_even_where_another_is_busier() {
    run(async {
        let pooling = Pooling::new(2, HALF_CLOSED).await;
        let mut oldest = vec![pooling.open().await];
        oldest.push(pooling.open().await);
        let _other = pooling.open().await;
        oldest.clear();
        settle().await;
        let _later = pooling.open().await;
        pooling.pool.release_idle();
        assert_eq!(pooling.pool.tunnels(), 2);
    });
}

#[test]
fn a_peer_that_admits_no_stream_is_not_given_tunnel_after_tunnel() {
    run(async {
        let settings = Settings {
            server_streams: 0,
            response_timeout: Duration::from_secs(2),
            ..Settings::default()
        };
        let pooling = Pooling::with(settings, HALF_CLOSED).await;
        let config = pooling.mesh.client.client_config(&pooling.key().expected);
        let connect = || {
            pooling.dials.set(pooling.dials.get() + 1);
            let (config, settings) = (config.clone(), pooling.settings.clone());
            let address = pooling.address;
            async move {
                let tcp = TcpStream::connect(address).await.expect("connect");
                let tunnel = client::handshake(tcp, config, &settings).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(tunnel)
            }
        };
        let key = pooling.key();
        let opened = pooling
            .pool
            .open(&key, &config, connect, request(), None)
            .await;
        assert!(matches!(opened, Err(OpenError::ResponseTimeout)));
        assert_eq!(pooling.dials.get(), 1);
    });
}

#[test]
fn an_idle_tunnel_is_released() {
    run(async {
        let pooling = Pooling::new(100, Duration::from_millis(40)).await;
        drop(pooling.open().await);
        assert_eq!(pooling.pool.tunnels(), 1);
        while pooling.pool.tunnels() > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn after_goaway_streams_go_on_and_new_ones_get_a_new_tunnel() {
    run(async {
        let mesh = Mesh::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let certificate = mesh.server.clone();
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let config = certificate.server_config();
                spawn_local(async move {
                    let settings = Settings::default();
                    let mut connection = server::accept(tcp, config, &settings)
                        .await
                        .expect("accept");
                    while let Some(Ok(request)) = connection.next().await {
                        connection.graceful_shutdown();
                        spawn_local(async move {
                            let mut stream = request.accept(None).expect("accept");
                            let (mut app, mut end) = pair().await;
                            spawn_local(async move {
                                let mut byte = [0];
                                while app.read_exact(&mut byte).await.is_ok() {
                                    app.write_all(&byte).await.expect("echo");
                                }
                            });
                            let count = Count::default();
                            let _ = copy::tunnel(
                                &mut end,
                                &mut stream,
                                Side::Server,
                                HALF_CLOSED,
                                &count,
                            )
                            .await;
                        });
                    }
                });
            }
        });
        let pooling = Pooling {
            mesh,
            pool: Pool::new(HALF_CLOSED),
            address,
            settings: Settings::default(),
            dials: Rc::default(),
        };
        let first = pooling.open().await;
        settle().await;
        let second = pooling.open().await;
        assert_eq!(pooling.dials.get(), 2);
        for mut opened in [first, second] {
            let (mut app, mut end) = pair().await;
            spawn_local(async move {
                let count = Count::default();
                let _ = copy::tunnel(
                    &mut end,
                    &mut opened.stream,
                    Side::Client,
                    HALF_CLOSED,
                    &count,
                )
                .await;
            });
            app.write_all(b"x").await.expect("write");
            let mut byte = [0];
            app.read_exact(&mut byte).await.expect("echo");
            assert_eq!(&byte, b"x");
        }
    });
}

#[test]
fn a_tunnel_on_which_many_wait_is_given_no_more() {
    run(async {
        let settings = Settings {
            stream_window: 64 << 10,
            ..Settings::default()
        };
        // Its server takes nothing from any stream.
        let pooling = Pooling::with(settings, HALF_CLOSED).await;
        let mut stalled = Vec::new();
        for _ in 0..16 {
            let mut opened = pooling.open().await;
            let sending = send(&mut opened.stream, vec![0; 65 << 10]);
            assert!(timeout(Duration::from_millis(20), sending).await.is_err());
            stalled.push(opened);
        }
        assert_eq!(pooling.dials.get(), 1);
        let _elsewhere = pooling.open().await;
        assert_eq!(pooling.dials.get(), 2);
    });
}
