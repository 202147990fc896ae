//! Probes behind much that is to be sent, and before much that a peer's kernel takes.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::{Count, HALF_CLOSED, Mesh, dial, expect, pair, request, run, send, serve};
use crate::client;
use crate::copy::{self, CopyError, Side};
use crate::server;
use crate::settings::Settings;
use crate::stream::Cut;

/// What the line carries in a [`TICK`].
const PORTION: usize = 16 << 10;
const TICK: Duration = Duration::from_millis(20);
/// Takes the line several times as long as a probe may stay unanswered.
const SIZE: usize = 4 << 20;

fn impatient() -> Settings {
    Settings {
        ping_interval: Duration::from_millis(20),
        ping_timeout: Duration::from_secs(1),
        ..Settings::default()
    }
}

/// Listens with little room for what is not read yet.
fn narrow() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(16 << 10).expect("set");
    let any = "127.0.0.1:0".parse().expect("address");
    socket.bind(any).expect("bind");
    socket.listen(1).expect("listen")
}

/// A line to `server` that is slow towards it, and holds little.
async fn slow_line(server: SocketAddr) -> SocketAddr {
    let listener = narrow();
    let address = listener.local_addr().expect("address");
    spawn_local(async move {
        let (near, _) = listener.accept().await.expect("accept");
        let far = TcpStream::connect(server).await.expect("connect");
        let (mut from_client, mut to_client) = near.into_split();
        let (mut from_server, mut to_server) = far.into_split();
        spawn_local(async move { io::copy(&mut from_server, &mut to_client).await });
        let mut portion = vec![0; PORTION];
        while let Ok(amount @ 1..) = from_client.read(&mut portion).await {
            let portion = &portion[..amount];
            to_server.write_all(portion).await.expect("written");
            sleep(TICK).await;
        }
    });
    address
}

/// Runs an end of a tunnel on a thread of its own, which stands still from when it is `ready` until
/// what is returned first is dropped.
fn standing_still<F: Future<Output = T>, T>(
    ready: impl FnOnce() -> F + Send + 'static,
) -> (mpsc::Sender<()>, JoinHandle<()>) {
    let (over, test) = mpsc::channel();
    let thread = thread::spawn(move || {
        run(async {
            let end = ready().await;
            // What it has said leaves.
            super::settle().await;
            test.recv().expect_err("nothing is ever sent");
            drop(end);
        });
    });
    (over, thread)
}

#[test]
fn a_peer_is_not_lost_while_what_was_sent_before_a_probe_arrives() {
    run(async {
        let mesh = Mesh::new();
        let (arrived, mut all) = tokio::sync::mpsc::channel(1);
        let server = serve(&mesh, Settings::default(), move |request| {
            let arrived = arrived.clone();
            async move {
                let mut stream = request.accept(None).expect("accept");
                let mut amount = 0;
                while let Some(bytes) = poll_fn(|cx| stream.poll_receive(cx)).await {
                    amount += bytes.expect("nothing is cut").len();
                }
                arrived.send(amount).await.expect("awaited");
            }
        })
        .await;
        let line = slow_line(server).await;
        let tunnel = dial(&mesh, line, "server", &impatient()).await;
        let tunnel = tunnel.expect("tunnel");
        let mut stream = tunnel.open(request()).await.expect("stream");
        send(&mut stream, vec![7; SIZE]).await.expect("sent");
        stream.finish().expect("finished");
        assert_eq!(all.recv().await, Some(SIZE));
        assert!(tunnel.is_usable());
    });
}

#[test]
fn a_peer_that_stands_still_is_lost_while_its_kernel_still_takes_what_it_is_sent() {
    let mesh = Mesh::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let certificate = mesh.server.clone();
    let (over, thread) = standing_still(move || async move {
        listener.set_nonblocking(true).expect("socket");
        let listener = TcpListener::from_std(listener).expect("socket");
        let (tcp, _) = listener.accept().await.expect("accept");
        let config = certificate.server_config();
        let accepted = server::accept(tcp, config, &Settings::default()).await;
        let mut connection = accepted.expect("handshake");
        let request = connection.next().await.expect("open").expect("request");
        let stream = request.accept(None).expect("accept");
        let driven = spawn_local(async move { while connection.next().await.is_some() {} });
        (stream, driven)
    });
    run(async {
        let tunnel = dial(&mesh, address, "server", &impatient()).await;
        let tunnel = tunnel.expect("tunnel");
        let mut stream = tunnel.open(request()).await.expect("stream");
        // Far less than its kernel has room for.
        let trickle = async {
            while send(&mut stream, vec![7]).await.is_ok() {
                sleep(TICK).await;
            }
        };
        timeout(Duration::from_secs(20), trickle)
            .await
            .expect("lost");
        assert_eq!(stream.cut(), Some(Cut::PeerLost));
    });
    drop(over);
    thread.join().expect("it stood still");
}

/// The client has said all it had to say, and answers nothing any more.
#[test]
fn an_answer_to_a_lost_client_is_cut_and_not_discarded() {
    let mesh = Mesh::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let config = mesh.client.client_config(&expect("server"));
    let (over, thread) = standing_still(move || async move {
        let tcp = TcpStream::connect(address).await.expect("connect");
        let tunnel = client::handshake(tcp, config, &Settings::default()).await;
        let tunnel = tunnel.expect("tunnel");
        let mut stream = tunnel.open(request()).await.expect("stream");
        stream.finish().expect("finished");
        (stream, tunnel)
    });
    run(async {
        listener.set_nonblocking(true).expect("socket");
        let listener = TcpListener::from_std(listener).expect("socket");
        let (tcp, _) = listener.accept().await.expect("accept");
        let config = mesh.server.server_config();
        let accepted = server::accept(tcp, config, &impatient()).await;
        let mut connection = accepted.expect("handshake");
        let request = connection.next().await.expect("open").expect("request");
        let mut stream = request.accept(None).expect("accept");
        let (mut application, mut end) = pair().await;
        let copying = spawn_local(async move {
            let count = Count::default();
            copy::tunnel(&mut end, &mut stream, Side::Server, HALF_CLOSED, &count).await
        });
        assert!(connection.next().await.is_none());
        assert_eq!(connection.cut(), Some(Cut::PeerLost));
        drop(connection);
        // Whatever it still says, it hears that nobody listens.
        while application.write_all(b"answer").await.is_ok() {
            sleep(TICK).await;
        }
        let copied = copying.await.expect("ended");
        assert!(matches!(copied, Err(CopyError::Tunnel(_))), "{copied:?}");
    });
    drop(over);
    thread.join().expect("it stood still");
}
