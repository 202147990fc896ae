//! Endpoints and clients that say how many streams they admit, and mean none.

use std::cell::{Cell, RefCell};

use tokio::sync::Notify;

use super::frames::{END_HEADERS, END_STREAM, GO_AWAY, HEADERS, SETTINGS, frame};
use super::*;

/// `:status: 200` (RFC 7541 Appendix A).
const OK: &[u8] = &[0x88];

type Io = Stream<hbone::stream::Stream>;

/// What an endpoint that writes its own frames has got.
#[derive(Clone, Default)]
struct Endpoints {
    /// All that were made.
    connections: Rc<Cell<usize>>,
    open: Rc<Cell<usize>>,
    requests: Rc<Cell<usize>>,
}

/// One connection to such an endpoint.
struct Raw {
    io: Io,
    received: Vec<u8>,
    endpoints: Endpoints,
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
fn admits(streams: u32) -> Vec<u8> {
    let setting = [&[0, 3][..], &streams.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &setting)
}

// === impl Endpoints ===

impl Endpoints {
    /// Its next connection, the client's preface read.
    async fn begin(&self, mut io: Io) -> Raw {
        self.connections.set(self.connections.get() + 1);
        self.open.set(self.open.get() + 1);
        let mut received = vec![0; crate::sniff::HTTP2_PREFACE.len()];
        io.read_exact(&mut received).await.unwrap();
        assert_eq!(received, crate::sniff::HTTP2_PREFACE);
        Raw {
            io,
            received: Vec::new(),
            endpoints: self.clone(),
        }
    }

    async fn until_closed(&self) {
        while self.open.get() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

// === impl Raw ===

impl Raw {
    async fn say(&mut self, frames: &[u8]) {
        if self.io.write_all(frames).await.is_ok() {
            let _ = self.io.flush().await;
        }
    }

    /// The stream of the next frame of this kind; none at the end.
    async fn next(&mut self, wanted: u8) -> Option<u32> {
        loop {
            if let [a, b, c, kind, _, d, e, f, g, payload @ ..] = &self.received[..] {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if payload.len() >= length {
                    let (kind, stream) = (*kind, u32::from_be_bytes([*d, *e, *f, *g]));
                    self.received.drain(..9 + length);
                    if kind == HEADERS {
                        let requests = &self.endpoints.requests;
                        requests.set(requests.get() + 1);
                    }
                    if kind == wanted {
                        return Some(stream);
                    }
                    continue;
                }
            }
            match self.io.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Answers every request, to the end.
    async fn serve(&mut self) {
        while let Some(stream) = self.next(HEADERS).await {
            self.answer(stream).await;
        }
    }

    async fn answer(&mut self, stream: u32) {
        let flags = END_HEADERS | END_STREAM;
        self.say(&frame(HEADERS, flags, stream, OK)).await;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let open = &self.endpoints.open;
        open.set(open.get() - 1);
    }
}

/// A waypoint before such an endpoint, and the tunnel to it.
async fn scene<F>(serve: impl Fn(Raw, usize) -> F + Clone + 'static) -> (Endpoints, Workers, Tunnel)
where
    F: Future<Output = ()> + 'static,
{
    let mut fixture = Fixture::new();
    fixture.limits.http2.no_streams_timeout = Duration::from_millis(50);
    let endpoints = Endpoints::default();
    let made = endpoints.clone();
    let node = fixture
        .node(move |io: Io| {
            let (made, serve) = (made.clone(), serve.clone());
            async move {
                let raw = made.begin(io).await;
                let index = made.connections.get() - 1;
                serve(raw, index).await;
            }
        })
        .await;
    let workers = fixture.start(node, Protocol::Http2, AppProtocol::Http11, 1);
    let tunnel = fixture.tunnel(workers.address()).await;
    (endpoints, workers, tunnel)
}

async fn get(tunnel: &Tunnel, end: &str) -> String {
    let mut client = open(tunnel).await;
    client.write_all(GET).await.unwrap();
    read_until(&mut client, end).await
}

const SERVED: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn cve_2021_32780_an_endpoint_that_admits_no_stream_is_given_up_and_closed() {
    run(async {
        let (endpoints, _workers, tunnel) = scene(|mut raw: Raw, _| async move {
            raw.say(&admits(0)).await;
            raw.serve().await;
        })
        .await;
        let why = "upstream connect error: the endpoint admits no streams";
        for made in 1..=3 {
            get(&tunnel, why).await;
            assert_eq!(endpoints.connections.get(), made);
        }
        // What waits together waits on one connection.
        let all = futures::future::join_all((0..10).map(|_| get(&tunnel, why)));
        assert_eq!(all.await.len(), 10);
        assert!(endpoints.connections.get() < 13);
        endpoints.until_closed().await;
        assert_eq!(endpoints.requests.get(), 0);
    });
}

#[test]
fn cve_2021_32780_an_endpoint_that_goes_away_and_admits_none_is_asked_anew() {
    run(async {
        let (endpoints, _workers, tunnel) = scene(|mut raw: Raw, index| async move {
            if index == 0 {
                let going_away = frame(GO_AWAY, 0, 0, &[0; 8]);
                raw.say(&[admits(0), going_away].concat()).await;
            } else {
                raw.say(&admits(100)).await;
            }
            raw.serve().await;
        })
        .await;
        let mut client = open(&tunnel).await;
        client.write_all(GET).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 502 "), "{answer:?}");
        assert!(get(&tunnel, "\r\n\r\n").await.starts_with(SERVED));
        assert_eq!(endpoints.requests.get(), 1);
    });
}

#[test]
fn an_endpoint_may_admit_streams_a_moment_later() {
    run(async {
        let (endpoints, _workers, tunnel) = scene(|mut raw: Raw, _| async move {
            raw.say(&admits(0)).await;
            // Its acknowledgement.
            while raw.next(SETTINGS).await.is_some() {
                raw.say(&admits(1)).await;
                raw.serve().await;
            }
        })
        .await;
        assert!(get(&tunnel, "\r\n\r\n").await.starts_with(SERVED));
        assert_eq!(endpoints.connections.get(), 1);
    });
}

#[test]
fn an_endpoint_that_takes_back_what_it_admitted_holds_nobody_up() {
    run(async {
        let (taken_back, released) = (Rc::<Notify>::default(), Rc::<Notify>::default());
        let (told, release) = (taken_back.clone(), released.clone());
        let (endpoints, _workers, tunnel) = scene(move |mut raw: Raw, index| {
            let (taken_back, released) = (taken_back.clone(), released.clone());
            async move {
                raw.say(&admits(100)).await;
                if index == 0 {
                    let stream = raw.next(HEADERS).await.unwrap();
                    raw.say(&admits(0)).await;
                    // Its acknowledgement.
                    raw.next(SETTINGS).await.unwrap();
                    taken_back.notify_one();
                    released.notified().await;
                    raw.answer(stream).await;
                }
                raw.serve().await;
            }
        })
        .await;
        let mut first = open(&tunnel).await;
        first.write_all(GET).await.unwrap();
        told.notified().await;
        for _ in 0..3 {
            assert!(get(&tunnel, "\r\n\r\n").await.starts_with(SERVED));
        }
        release.notify_one();
        let answer = read_until(&mut first, "\r\n\r\n").await;
        assert!(answer.starts_with(SERVED), "{answer}");
        // The first, which admits none, is closed once nothing runs there.
        assert!(get(&tunnel, "\r\n\r\n").await.starts_with(SERVED));
        while endpoints.open.get() > 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(endpoints.connections.get(), 2);
    });
}

/// The limit is for what the other side begins: a waypoint begins nothing at a client's.
#[test]
fn cve_2021_32780_a_client_that_admits_no_stream_is_answered() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Http2, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let (requests, connection) = {
            let mut builder = h2::client::Builder::new();
            builder.max_concurrent_streams(0);
            let shaken = builder.handshake::<_, bytes::Bytes>(open(&tunnel).await);
            shaken.await.unwrap()
        };
        let driven = RefCell::new(Some(spawn_local(async move {
            let _ = connection.await;
        })));
        let mut requests = requests.ready().await.unwrap();
        let request = Request::get("http://web/").body(()).unwrap();
        let (response, _) = requests.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(receive(&mut response.into_body()).await, "hello");
        drop((requests, driven.take()));
    });
}
