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

/// Denied when its signal is given.
#[derive(Default)]
struct Denying {
    denied: std::cell::Cell<bool>,
    waker: std::cell::RefCell<Option<std::task::Waker>>,
}

impl Count for Denying {
    fn received(&self, _: u64) {}

    fn sent(&self, _: u64) {}

    fn poll_denied(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.denied.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn a_denied_connection_is_cut_also_while_it_is_silent() {
    let (mut client, client_end) = tokio::io::duplex(64);
    let (mut server, server_end) = tokio::io::duplex(64);
    let denying = Denying::default();
    let relayed = relay(
        Socket(client_end),
        Bytes::new(),
        Socket(server_end),
        &denying,
        Duration::from_secs(60),
    );
    let talk = async {
        client.write_all(b"passes").await.unwrap();
        let mut text = [0; 6];
        server.read_exact(&mut text).await.unwrap();
        tokio::task::yield_now().await;
        denying.denied.set(true);
        denying.waker.take().unwrap().wake();
    };
    let began = tokio::time::Instant::now();
    let (relayed, ()) = tokio::join!(relayed, talk);
    assert!(matches!(relayed, Err(RelayError::Denied)), "{relayed:?}");
    assert_eq!(began.elapsed(), Duration::ZERO);
    drop(relayed);
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
}
