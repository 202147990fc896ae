//! Tests.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::transport::Socket;

#[tokio::test(start_paused = true)]
async fn half_closes_pass_and_bytes_that_came_first_go_first() {
    let (mut client, client_end) = tokio::io::duplex(64);
    let (mut server, server_end) = tokio::io::duplex(64);
    let idle = Duration::from_secs(60);
    let received = Bytes::from("first ");
    let relayed = relay(
        Socket(client_end),
        received,
        Socket(server_end),
        &Uncounted,
        idle,
    );
    let talk = async {
        client.write_all(b"second").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "first second");
        server.write_all(b"answer").await.unwrap();
        server.shutdown().await.unwrap();
        text.clear();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
    };
    let (relayed, ()) = tokio::join!(relayed, talk);
    relayed.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends() {
    let (_client, client_end) = tokio::io::duplex(64);
    let (_server, server_end) = tokio::io::duplex(64);
    let idle = Duration::from_secs(60);
    let relayed = relay(
        Socket(client_end),
        Bytes::new(),
        Socket(server_end),
        &Uncounted,
        idle,
    );
    assert!(matches!(relayed.await, Err(RelayError::Idle)));
}
