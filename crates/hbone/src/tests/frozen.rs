//! A process that stands still while its peer answers it.

use std::thread;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use super::{Mesh, expect, run};
use crate::client;
use crate::server;
use crate::settings::Settings;

const PROBE: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(1);
/// So that chance does not hide it where one in three is given up.
const TUNNELS: usize = 8;

#[test]
fn an_answer_that_has_come_counts_however_late_it_is_read() {
    let mesh = Mesh::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    let certificate = mesh.server.clone();
    // It answers late and in time.
    thread::spawn(move || {
        run(async {
            listener.set_nonblocking(true).expect("socket");
            let listener = TcpListener::from_std(listener).expect("socket");
            for _ in 0..TUNNELS {
                let (tcp, _) = listener.accept().await.expect("accept");
                let config = certificate.server_config();
                let accepted = server::accept(tcp, config, &Settings::default()).await;
                let mut connection = accepted.expect("handshake");
                spawn_local(async move { while let Some(Ok(_)) = connection.next().await {} });
            }
            loop {
                tokio::time::sleep(PROBE).await;
                thread::sleep(PATIENCE / 2);
            }
        });
    });
    run(async {
        let settings = Settings {
            ping_interval: PROBE,
            ping_timeout: PATIENCE,
            ..Settings::default()
        };
        let config = mesh.client.client_config(&expect("server"));
        let mut tunnels = Vec::new();
        for _ in 0..TUNNELS {
            let tcp = TcpStream::connect(address).await.expect("connect");
            let tunnel = client::handshake(tcp, config.clone(), &settings).await;
            tunnels.push(tunnel.expect("a tunnel"));
        }
        for _ in 0..3 {
            // A probe leaves, and then its time goes by.
            tokio::time::sleep(PROBE * 2).await;
            thread::sleep(PATIENCE * 2);
            tokio::time::sleep(PROBE).await;
            assert!(tunnels.iter().all(client::Tunnel::is_usable));
        }
    });
}
