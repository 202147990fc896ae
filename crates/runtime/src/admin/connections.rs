//! Serves the connections of one listener, within bounds: whoever reaches a port that is on every address
//! could hold any number of them for ever, and with them the descriptors that the process's work needs. Of
//! the last descriptors ([`crate::descriptors`]) few are for such a port.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::counter;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time;
use tower::ServiceExt;

use super::protection::Ends;
use crate::descriptors;

/// Open at most; for one more the oldest is closed, so that whoever holds many can't lock others out.
const MOST: usize = 256;
/// The same where the one more has a reserved descriptor, at a port that anybody reaches: whoever has used
/// up the others would get the reserve here. Enough for a probe and some scrapers.
const FEW: usize = 8;
/// How long a client may take for the head of a request, and leave the connection unused before it.
/// Scrapers ask more often.
const QUIET: Duration = Duration::from_secs(90);
/// A client that is gone, or that takes nothing of its answer, is given up after so many seconds.
const SILENCE: u32 = 60;
/// When descriptors are short the next attempt would fail as well.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Who may connect to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// People on this machine: the reserve is theirs.
    Loopback,
    Anybody,
}

/// Connections that may still run, the oldest first.
#[derive(Default)]
struct Open(VecDeque<JoinHandle<()>>);

/// Until dropped. What is open then runs to its end.
pub(super) async fn serve(
    server: &'static str,
    listener: TcpListener,
    reach: Reach,
    router: Router,
) {
    let mut open = Open::default();
    loop {
        let (tcp, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(server, %error, "can't accept");
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let closed = open.make_room(reach.most(&tcp)).await;
        if closed > 0 {
            counter!("weft_server_connections_closed_total", "server" => server).increment(closed);
        }
        notice_silence(&tcp);
        let ends = Ends {
            client,
            server: tcp.local_addr().ok(),
        };
        let connection = tokio::spawn(serve_one(tcp, ends, router.clone()));
        open.0.push_back(connection);
    }
}

async fn serve_one(tcp: TcpStream, ends: Ends, router: Router) {
    let answer = move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(ends));
        router.clone().oneshot(request)
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(QUIET)
        .serve_connection(TokioIo::new(tcp), service_fn(answer));
    if let Err(error) = serving.await {
        tracing::debug!(client = %ends.client, %error, "connection ended");
    }
}

/// They fail only on a connection that is already gone.
fn notice_silence(tcp: &TcpStream) {
    let _ = setsockopt(tcp, sockopt::KeepAlive, &true);
    let _ = setsockopt(tcp, sockopt::TcpKeepIdle, &(SILENCE / 2));
    let _ = setsockopt(tcp, sockopt::TcpKeepInterval, &(SILENCE / 6));
    let _ = setsockopt(tcp, sockopt::TcpKeepCount, &3);
    let _ = setsockopt(tcp, sockopt::TcpUserTimeout, &(SILENCE * 1000));
}

// === impl Reach ===

impl Reach {
    /// How many may be open with this one.
    fn most(self, accepted: &TcpStream) -> usize {
        match self {
            Self::Anybody if descriptors::is_reserved(accepted) => FEW,
            Self::Anybody | Self::Loopback => MOST,
        }
    }
}

// === impl Open ===

impl Open {
    /// Closes the oldest until one more makes no more than `most`, and returns how many that took.
    async fn make_room(&mut self, most: usize) -> u64 {
        if self.0.len() >= most {
            self.0.retain(|connection| !connection.is_finished());
        }
        let mut closed = 0;
        while self.0.len() >= most
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
            // Its descriptor is free only then, and others may be waiting to take the next.
            let _ = oldest.await;
            closed += 1;
        }
        closed
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Listeners;
    use super::*;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    /// A server, and connections to it.
    async fn connected(count: usize) -> (std::net::SocketAddr, Vec<TcpStream>) {
        let listeners = Listeners::localhost(0).expect("binds");
        let address = listeners.addresses()[0];
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(listeners.serve("test", router));
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(TcpStream::connect(address).await.expect("connects"));
        }
        (address, clients)
    }

    async fn ask(client: &mut TcpStream) {
        client.write_all(REQUEST).await.expect("writes");
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            let read = client.read_buf(&mut answer).await.expect("reads");
            assert_ne!(read, 0, "ended");
        }
    }

    /// It can say no more than that: nothing has been asked.
    async fn ends(client: &mut TcpStream) {
        let mut nothing = Vec::new();
        let ended = time::timeout(QUIET * 2, client.read_to_end(&mut nothing)).await;
        // A reset is an end, too.
        let _ = ended.expect("it ends");
        assert!(nothing.is_empty());
    }

    #[tokio::test]
    async fn whoever_holds_many_connections_locks_nobody_out() {
        let (address, mut clients) = connected(MOST).await;
        let mut last = TcpStream::connect(address).await.expect("connects");
        ask(&mut last).await;
        ends(&mut clients[0]).await;
        // And no more than had to.
        ask(&mut clients[1]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_nothing_is_given_up() {
        let (_, mut clients) = connected(3).await;
        ask(&mut clients[1]).await;
        clients[2].write_all(&REQUEST[..20]).await.expect("writes");
        for client in &mut clients {
            ends(client).await;
        }
    }
}
