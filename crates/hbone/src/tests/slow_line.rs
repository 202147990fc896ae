//! Probes behind much that is to be sent, and before much that a peer's kernel takes.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::{Mesh, dial, request, run, send, serve};
use crate::server;
use crate::settings::Settings;
use crate::stream::Cut;

/// What the line carries in a [`TICK`].
const PORTION: usize = 16 << 10;
const TICK: Duration = Duration::from_millis(20);
/// Takes the line several times as long as a probe may stay unanswered.
const SIZE: usize = 2 << 20;

fn impatient() -> Settings {
    Settings {
        ping_interval: Duration::from_millis(20),
        ping_timeout: Duration::from_millis(500),
        ..Settings::default()
    }
}

/// A line to `server` that is slow towards it, and holds little.
async fn slow_line(server: SocketAddr) -> SocketAddr {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.set_recv_buffer_size(16 << 10).expect("set");
    let any = "127.0.0.1:0".parse().expect("address");
    socket.bind(any).expect("bind");
    let listener = socket.listen(1).expect("listen");
    let address = listener.local_addr().expect("address");
    spawn_local(async move {
        let (near, _) = listener.accept().await.expect("accept");
        let far = TcpStream::connect(server).await.expect("connect");
        let (mut from_client, mut to_client) = near.into_split();
        let (mut from_server, mut to_server) = far.into_split();
        spawn_local(async move { io::copy(&mut from_server, &mut to_client).await });
        let mut portion = vec![0; PORTION];
        while let Ok(amount @ 1..) = from_client.read(&mut portion).await {
            to_server
                .write_all(&portion[..amount])
                .await
                .expect("written");
            sleep(TICK).await;
        }
    });
    address
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
                while let Some(bytes) = std::future::poll_fn(|cx| stream.poll_receive(cx)).await {
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
    let (address_of, address) = mpsc::channel();
    let (over, test) = mpsc::channel::<()>();
    let certificate = mesh.server.clone();
    let frozen = thread::spawn(move || {
        run(async {
            let socket = TcpSocket::new_v4().expect("socket");
            // Not full before the test's time is over.
            socket.set_recv_buffer_size(4 << 20).expect("set");
            let any = "127.0.0.1:0".parse().expect("address");
            socket.bind(any).expect("bind");
            let listener: TcpListener = socket.listen(1).expect("listen");
            address_of
                .send(listener.local_addr().expect("address"))
                .expect("awaited");
            let (tcp, _) = listener.accept().await.expect("accept");
            let config = certificate.server_config();
            let accepted = server::accept(tcp, config, &Settings::default()).await;
            let mut connection = accepted.expect("handshake");
            let request = connection.next().await.expect("open").expect("request");
            let stream = request.accept(None).expect("accept");
            tokio::select! {
                _ = connection.next() => {}
                () = sleep(TICK) => {}
            }
            assert!(test.recv().is_err(), "it stands still until the end");
            drop(stream);
        });
    });
    run(async {
        let address = address.recv().expect("address");
        let tunnel = dial(&mesh, address, "server", &impatient()).await;
        let tunnel = tunnel.expect("tunnel");
        let mut stream = tunnel.open(request()).await.expect("stream");
        while send(&mut stream, vec![7]).await.is_ok() {
            sleep(TICK / 4).await;
        }
        assert_eq!(stream.cut(), Some(Cut::PeerLost));
    });
    drop(over);
    frozen.join().expect("it stood still");
}
