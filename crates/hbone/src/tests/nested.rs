//! A tunnel in a tunnel, through a gateway that reads the outer one only.

use std::net::SocketAddr;

use http::HeaderValue;

use super::*;
use crate::client::handshake_within;
use crate::headers::BAGGAGE;

/// Ends tunnels and passes what is in their streams on to `to`.
async fn gateway(mesh: &Mesh, to: SocketAddr) -> SocketAddr {
    serve(mesh, Settings::default(), move |request| async move {
        let mut onward = TcpStream::connect(to).await.expect("connect");
        let mut stream = request.accept(None).expect("accept");
        let count = Count::default();
        let _ = copy::tunnel(&mut onward, &mut stream, Side::Server, HALF_CLOSED, &count).await;
    })
    .await
}

async fn nested(mesh: &Mesh, gateway: SocketAddr, expected: &str) -> Result<Tunnel, ConnectError> {
    let outer = dial(mesh, gateway, "server", &Settings::default()).await?;
    let stream = outer.open(request()).await.expect("the gateway's stream");
    let tls = mesh.client.client_config(&expect(expected));
    handshake_within(stream, gateway, tls, &Settings::default()).await
}

#[test]
fn bytes_half_closes_and_the_answer_pass_a_gateway() {
    const SIZE: usize = 8 << 20;
    run(async {
        let mesh = Mesh::new();
        let far = serve(&mesh, Settings::default(), |request| async {
            let (mut app, mut end) = pair().await;
            spawn_local(async move {
                let mut all = Vec::new();
                app.read_to_end(&mut all).await.expect("read");
                app.write_all(&all).await.expect("write");
            });
            let baggage = HeaderValue::from_static("service.name=web");
            let mut stream = request.accept(Some(baggage)).expect("accept");
            let count = Count::default();
            let copied = copy::tunnel(&mut end, &mut stream, Side::Server, HALF_CLOSED, &count);
            copied.await.expect("in order");
        })
        .await;
        let gateway = gateway(&mesh, far).await;
        let tunnel = nested(&mesh, gateway, "server").await.expect("tunnel");
        assert_eq!(tunnel.peer(), Some(identity_of("server")));
        assert_eq!(tunnel.key_exchange(), "X25519MLKEM768");
        let (mut stream, headers) = tunnel.open_described(request()).await.expect("stream");
        assert_eq!(headers[BAGGAGE], "service.name=web");
        drop(tunnel);
        let (mut app, mut end) = pair().await;
        let copying = spawn_local(async move {
            let count = Count::default();
            let copied = copy::tunnel(&mut end, &mut stream, Side::Client, HALF_CLOSED, &count);
            copied.await.expect("in order");
            (count.received.get(), count.sent.get())
        });
        let sent: Vec<u8> = (0..SIZE)
            .map(|index| ((index * index) >> 7) as u8)
            .collect();
        app.write_all(&sent).await.expect("write");
        app.shutdown().await.expect("shutdown");
        let mut received = Vec::new();
        app.read_to_end(&mut received).await.expect("read");
        assert!(received == sent, "{} bytes", received.len());
        let size = SIZE as u64;
        assert_eq!(copying.await.expect("copied"), (size, size));
    });
}

#[test]
fn someone_else_behind_the_gateway_is_refused() {
    run(async {
        let mesh = Mesh::new();
        let far = serve(&mesh, Settings::default(), |_| async {}).await;
        let gateway = gateway(&mesh, far).await;
        let error = nested(&mesh, gateway, "other").await.expect_err("wrong");
        assert!(matches!(error, ConnectError::PeerIdentity(_)), "{error}");
    });
}

#[test]
fn a_gateway_that_breaks_off_ends_the_connection() {
    run(async {
        let mesh = Mesh::new();
        let far = serve(&mesh, Settings::default(), |request| async {
            let stream = request.accept(None).expect("accept");
            std::future::pending::<()>().await;
            drop(stream);
        })
        .await;
        // It is there for the handshakes, and then no more.
        let listening = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let between = listening.local_addr().expect("address");
        let cut = Rc::new(tokio::sync::Notify::new());
        let cutting = cut.clone();
        spawn_local(async move {
            let (mut near, _) = listening.accept().await.expect("accept");
            let mut onward = TcpStream::connect(far).await.expect("connect");
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut onward) => {}
                () = cutting.notified() => {}
            }
        });
        let gateway = gateway(&mesh, between).await;
        let tunnel = nested(&mesh, gateway, "server").await.expect("tunnel");
        let mut stream = tunnel.open(request()).await.expect("stream");
        let (_app, mut end) = pair().await;
        cut.notify_one();
        let count = Count::default();
        let error = copy::tunnel(&mut end, &mut stream, Side::Client, HALF_CLOSED, &count).await;
        assert!(matches!(error, Err(CopyError::Tunnel(_))), "{error:?}");
    });
}
