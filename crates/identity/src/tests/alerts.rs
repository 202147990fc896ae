//! Alerts that no specification knows (CVE-2021-28683): a failed handshake like any other.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Fatal and warning, and one that is neither, with descriptions that mean nothing.
const UNKNOWN: [[u8; 7]; 3] = [
    [21, 3, 3, 0, 2, 2, 254],
    [21, 3, 3, 0, 2, 1, 254],
    [21, 3, 3, 0, 2, 77, 255],
];

#[tokio::test]
async fn cve_2021_28683_servers_refuse_alerts_that_they_do_not_know() {
    let signer = signer();
    let api = certificate(&signer, &identity("api"));
    for alert in UNKNOWN {
        let (mut client, server) = tokio::io::duplex(4096);
        client.write_all(&alert).await.expect("written");
        drop(client);
        let accepted = TlsAcceptor::from(api.server_config()).accept(server).await;
        accepted.expect_err("no handshake");
    }
}

#[tokio::test]
async fn cve_2021_28683_clients_refuse_alerts_that_they_do_not_know() {
    let signer = signer();
    let config = certificate(&signer, &identity("web")).client_config(&[identity("api")].into());
    for alert in UNKNOWN {
        let (client, mut server) = tokio::io::duplex(4096);
        let answer = async move {
            server.read_exact(&mut [0]).await.expect("a hello");
            server.write_all(&alert).await.expect("written");
            server.shutdown().await.expect("ended");
            // Held until the client is done, which may still be writing.
            let _ = server.read_to_end(&mut Vec::new()).await;
        };
        let connect = TlsConnector::from(config.clone()).connect(no_server_name(), client);
        let (connected, ()) = tokio::join!(connect, answer);
        connected.expect_err("no handshake");
    }
}
