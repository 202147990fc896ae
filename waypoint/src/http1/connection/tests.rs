//! A client over an in-memory pipe, a pipeline that is a function.

mod slow;

use std::cell::Cell;
use std::time::Duration;

use http_body::{Body as _, Frame};
use runtime::drain::{self, Mode, Trigger};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time;

use super::*;
use crate::drain::Drain;
use crate::limits::Limits;
use crate::message::{
    Admission, Arrival, BodyError, ConnectionRoute, Downstream, Exchange, Refusal,
};
use crate::transport::Socket;

struct Answering<F> {
    answer: F,
    rejected: Rc<RefCell<Vec<StatusCode>>>,
}

impl<F, R> Exchange for Answering<F>
where
    F: Fn(Request<Body>, Interim) -> R,
    R: Future<Output = Response<Body>>,
{
    async fn exchange(
        &self,
        _: &Rc<Downstream>,
        request: Request<Body>,
        interim: &Interim,
    ) -> Response<Body> {
        (self.answer)(request, interim.clone()).await
    }
}

impl<F, R> Pipeline for Answering<F>
where
    F: Fn(Request<Body>, Interim) -> R,
    R: Future<Output = Response<Body>>,
{
    fn admit(&self, _: &Arrival<'_>) -> Result<Admission, Refusal> {
        Err(Refusal::NoIdentity)
    }

    async fn route_connection(&self, _: &Rc<Downstream>) -> Result<ConnectionRoute, String> {
        Err("not TCP".to_owned())
    }

    fn rejected(&self, _: &Rc<Downstream>, status: StatusCode, _: &str) {
        self.rejected.borrow_mut().push(status);
    }
}

struct Client {
    io: DuplexStream,
    drain: Trigger,
    rejected: Rc<RefCell<Vec<StatusCode>>>,
}

impl Client {
    fn new<F, R>(limits: Limits, answer: F) -> Self
    where
        F: Fn(Request<Body>, Interim) -> R + 'static,
        R: Future<Output = Response<Body>> + 'static,
    {
        let (io, server) = tokio::io::duplex(16 << 10);
        let (trigger, watch) = drain::channel();
        let rejected = Rc::default();
        let address = "10.0.0.1:80".parse().unwrap();
        let session = Session {
            pipeline: Rc::new(Answering {
                answer,
                rejected: Rc::clone(&rejected),
            }),
            downstream: Rc::new(Downstream {
                source_identity: None,
                source: address,
                destination: address,
                service: None,
                workload: None,
                opened: std::time::Instant::now(),
                remembered: Default::default(),
            }),
            drain: Drain::follow(watch, limits.drain_grace),
            limits: Rc::new(limits),
        };
        spawn_local(serve(Socket(server), Bytes::new(), session));
        Self {
            io,
            drain: trigger,
            rejected,
        }
    }

    async fn send(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    async fn read_until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let read = self.io.read(&mut byte).await.unwrap();
            assert!(read > 0, "{:?}", String::from_utf8_lossy(&text));
            text.extend_from_slice(&byte[..read]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Everything until the connection ends.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        self.io.read_to_end(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }
}

async fn collect(mut body: Body) -> Result<(Vec<u8>, Option<http::HeaderMap>), BodyError> {
    let mut data = Vec::new();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(chunk) => data.extend_from_slice(&chunk),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}

/// Answers with the request's line and body.
async fn echo(request: Request<Body>, _: Interim) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (data, _) = collect(body).await.unwrap_or_default();
    let data = String::from_utf8_lossy(&data).into_owned();
    let text = format!("{} {} [{data}]", parts.method, parts.uri);
    Response::new(Body::Full(text.into()))
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        time::timeout(Duration::from_secs(9999), test)
            .await
            .unwrap()
    })
}

struct Frames(std::vec::IntoIter<Frame<Bytes>>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.next().map(Ok))
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    run(async {
        let mut client = Client::new(Limits::default(), echo);
        client
            .send(
                "POST /1 HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nhost: a\r\n\r\n\
                 POST /3 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nc\r\n0\r\n\r\n\
                 GET /4 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            )
            .await;
        let rest = client.rest().await;
        let bodies: Vec<_> = ["POST /1 [ab]", "GET /2 []", "POST /3 [c]", "GET /4 []"]
            .iter()
            .map(|body| rest.find(body).unwrap())
            .collect();
        assert!(bodies.is_sorted(), "{rest}");
        assert_eq!(rest.matches("connection: close").count(), 1);
    });
}

#[test]
fn what_follows_a_smuggled_request_is_never_read() {
    run(async {
        for (hazard, fields) in [
            (
                "length and coding",
                "content-length: 4\r\ntransfer-encoding: chunked\r\n",
            ),
            ("two lengths", "content-length: 4\r\ncontent-length: 5\r\n"),
            ("coding not final", "transfer-encoding: chunked, x\r\n"),
            ("folded coding", "transfer-encoding:\r\n chunked\r\n"),
            ("space before colon", "transfer-encoding : chunked\r\n"),
            ("two hosts", "host: b\r\n"),
        ] {
            let mut client = Client::new(Limits::default(), echo);
            let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
            let text = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n{smuggled}");
            client.send(&text).await;
            let rest = client.rest().await;
            assert!(rest.starts_with("HTTP/1.1 400 "), "{hazard}: {rest}");
            assert!(rest.contains("connection: close"), "{hazard}: {rest}");
            assert_eq!(rest.matches("HTTP/1.1").count(), 1, "{hazard}: {rest}");
        }
    });
}

#[test]
fn a_malformed_chunk_breaks_the_connection() {
    run(async {
        let mut client = Client::new(Limits::default(), |request, interim| async move {
            let (parts, body) = request.into_parts();
            match collect(body).await {
                Ok(_) => echo(Request::from_parts(parts, Body::Empty), interim).await,
                Err(error) => {
                    assert!(matches!(error, BodyError::Protocol(_)));
                    let mut response = Response::new(Body::Empty);
                    *response.status_mut() = StatusCode::BAD_REQUEST;
                    response
                }
            }
        });
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
            .await;
        client
            .send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        let rest = client.rest().await;
        assert_eq!(rest.matches("HTTP/1.1").count(), 1, "{rest}");
    });
}

#[test]
fn a_100_is_forwarded_before_the_body_comes() {
    run(async {
        let mut client = Client::new(
            Limits::default(),
            |request: Request<Body>, interim: Interim| async move {
                let mut proceed = Response::new(());
                *proceed.status_mut() = StatusCode::CONTINUE;
                (interim.0)(proceed);
                echo(request, interim).await
            },
        );
        client
            .send("PUT /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .await;
        assert_eq!(
            client.read_until("\r\n\r\n").await,
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        client.send("ok").await;
        client.read_until("PUT /x [ok]").await;
        client.send("GET /y HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.read_until("100 Continue\r\n\r\n").await;
        client.read_until("GET /y []").await;
    });
}

#[test]
fn a_final_response_to_an_expectation_ends_the_connection() {
    run(async {
        let refuse = |_, _| async { Response::new(Body::Full("no".into())) };
        let mut client = Client::new(Limits::default(), refuse);
        client
            .send("PUT /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .await;
        let rest = client.rest().await;
        assert!(
            rest.contains("connection: close") && rest.ends_with("no"),
            "{rest}"
        );
    });
}

/// CVE-2025-4366: what is left of a body is no request.
#[test]
fn a_small_unread_body_is_drained_and_a_large_one_ends_the_connection() {
    run(async {
        let early = |_, _| async { Response::new(Body::Full("early".into())) };
        let mut client = Client::new(Limits::default(), early);
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\nabc")
            .await;
        client.read_until("early").await;
        client.send("defGET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.read_until("early").await;
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999\r\n\r\nabc")
            .await;
        client.read_until("early").await;
        client
            .send("GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn trailers_go_to_who_asked_for_them() {
    run(async {
        let answer = |_, _| async {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            trailers.insert("content-length", http::HeaderValue::from_static("7"));
            let frames = vec![Frame::data(Bytes::from("x")), Frame::trailers(trailers)];
            Response::new(Body::stream(Frames(frames.into_iter())))
        };
        let mut client = Client::new(Limits::default(), answer);
        client
            .send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\n\r\n")
            .await;
        client
            .read_until("1\r\nx\r\n0\r\ngrpc-status: 0\r\n\r\n")
            .await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        client.read_until("1\r\nx\r\n0\r\n\r\n").await;
    });
}

#[test]
fn http_1_0_gets_no_chunks_and_closes_unless_asked_to_keep() {
    run(async {
        let answer = |_, _| async {
            let frames = vec![Frame::data(Bytes::from("streamed"))];
            Response::new(Body::stream(Frames(frames.into_iter())))
        };
        let mut client = Client::new(Limits::default(), answer);
        client
            .send("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .await;
        let rest = client.rest().await;
        assert!(rest.ends_with("\r\n\r\nstreamed"), "{rest}");
        assert!(rest.contains("connection: close"), "{rest}");
        let mut client = Client::new(Limits::default(), echo);
        client
            .send("GET /1 HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
            .await;
        let first = client.read_until("GET /1 []").await;
        assert!(first.contains("connection: keep-alive"), "{first}");
        client.send("GET /2 HTTP/1.0\r\n\r\n").await;
        assert!(client.rest().await.ends_with("GET /2 []"));
    });
}

#[test]
fn head_and_304_have_no_body_and_keep_their_length() {
    run(async {
        let answer = |request: Request<Body>, _| async move {
            let mut response = Response::new(Body::Empty);
            response.headers_mut().insert("content-length", 7.into());
            if request.uri() == "/304" {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
            }
            response
        };
        let mut client = Client::new(Limits::default(), answer);
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            client
                .read_until("\r\n\r\n")
                .await
                .contains("content-length: 7")
        );
        client.send("GET /304 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            client
                .read_until("\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 304")
        );
        client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(
            client
                .read_until("\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 200")
        );
    });
}

#[test]
fn a_slow_head_times_out_and_an_idle_connection_ends() {
    run(async {
        let mut client = Client::new(Limits::default(), echo);
        client.send("GET / HT").await;
        assert!(client.rest().await.starts_with("HTTP/1.1 408 "));
        let mut client = Client::new(Limits::default(), echo);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn a_client_that_leaves_ends_its_exchange() {
    run(async {
        let dropped = Rc::new(Cell::new(false));
        struct Flag(Rc<Cell<bool>>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let seen = dropped.clone();
        let mut client = Client::new(Limits::default(), move |_, _| {
            let flag = Flag(seen.clone());
            async move {
                let _flag = flag;
                std::future::pending().await
            }
        });
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        tokio::task::yield_now().await;
        drop(client);
        while !dropped.get() {
            tokio::task::yield_now().await;
        }
    });
}

/// CVE-2020-8661.
#[test]
fn a_client_that_does_not_read_is_sent_no_more_than_is_bounded() {
    run(async {
        struct Endless(Rc<Cell<usize>>);
        impl http_body::Body for Endless {
            type Data = Bytes;
            type Error = BodyError;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
                self.0.set(self.0.get() + 1);
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 16 << 10])))))
            }
        }
        let taken = Rc::new(Cell::new(0));
        let counter = taken.clone();
        let mut client = Client::new(Limits::default(), move |_, _| {
            let body = Body::stream(Endless(counter.clone()));
            async { Response::new(body) }
        });
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        time::sleep(Duration::from_secs(1)).await;
        assert!(
            (1..8).contains(&taken.get()),
            "{} chunks of 16 KiB",
            taken.get()
        );
        // Who takes nothing for long is cut.
        time::sleep(Duration::from_secs(400)).await;
        let mut rest = Vec::new();
        let _ = (&mut client.io).take(1 << 20).read_to_end(&mut rest).await;
        assert!(rest.len() < 64 << 10, "{}", rest.len());
    });
}

#[test]
fn a_slow_body_is_read_only_as_it_is_used() {
    run(async {
        let stuck = |_request: Request<Body>, _| async move {
            let _request = _request;
            std::future::pending().await
        };
        let mut client = Client::new(Limits::default(), stuck);
        client
            .send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999\r\n\r\n")
            .await;
        let mut sent = 0;
        while let Ok(written) =
            time::timeout(Duration::from_secs(1), client.io.write(&[0; 4096])).await
        {
            sent += written.unwrap();
        }
        // The pipe itself holds 16 KiB; we have read no more than one buffer of it.
        assert!(sent <= 64 << 10, "{sent}");
    });
}

#[test]
fn a_switch_happens_only_where_it_was_asked_for() {
    run(async {
        let answer = |_, _| async {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            spawn_local(async move {
                let mut said = [0; 5];
                theirs.read_exact(&mut said).await.unwrap();
                theirs.write_all(&said).await.unwrap();
            });
            let mut response = Response::new(Body::Upgraded(Box::pin(ours)));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert("upgrade", http::HeaderValue::from_static("echo"));
            response
        };
        let mut client = Client::new(Limits::default(), answer);
        client
            .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nhel")
            .await;
        let head = client.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.contains("connection: upgrade") && head.contains("upgrade: echo"),
            "{head}"
        );
        client.send("lo").await;
        assert_eq!(client.rest().await, "hello");
        let mut client = Client::new(Limits::default(), answer);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\nhello").await;
        assert!(
            client
                .read_until("\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 502 ")
        );
    });
}

#[test]
fn a_200_to_an_upgrade_stays_http() {
    run(async {
        let mut client = Client::new(Limits::default(), echo);
        client
            .send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n")
            .await;
        client.read_until("GET / []").await;
        client.read_until("GET /2 []").await;
    });
}

#[test]
fn a_drain_announces_the_end_and_closes_who_idles() {
    run(async {
        let mut busy = Client::new(Limits::default(), echo);
        busy.send("GET /1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        busy.read_until("GET /1 []").await;
        busy.drain.signal(Mode::Graceful);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        busy.send("GET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let last = busy.rest().await;
        assert!(last.contains("connection: close"), "{last}");
        let mut idle = Client::new(Limits::default(), echo);
        idle.drain.signal(Mode::Graceful);
        assert_eq!(idle.rest().await, "");
        drop(idle.io);
        idle.drain.drained().await;
    });
}

#[test]
fn connect_is_refused() {
    run(async {
        let mut client = Client::new(Limits::default(), echo);
        client
            .send("CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\nsmuggled")
            .await;
        let rest = client.rest().await;
        assert!(rest.starts_with("HTTP/1.1 405 "), "{rest}");
    });
}
