//! An endpoint that answers with bytes of its choice: what its answer is taken for, and whether
//! its connection may carry another request.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::transport::Socket;

type Io = Socket<DuplexStream>;

/// Counts the connections that came back.
#[derive(Clone, Default)]
struct Kept(Rc<Cell<usize>>);

impl Recycle<Io> for Kept {
    fn recycle(&self, _: Wire<Io>) {
        self.0.set(self.0.get() + 1);
    }
}

/// What came of one request.
#[derive(Debug, PartialEq)]
enum Came {
    /// A status, and a body or why it broke off.
    Answer(u16, Result<String, BodyError>),
    /// 101, with what followed it at once.
    Switched(String),
    Failed(UpstreamError),
}

/// A request, and what an endpoint says once it has read this much of it.
struct Scene {
    request: http::request::Builder,
    body: Body,
    /// The end of what is read before the answer.
    read: &'static [u8],
    answer: Vec<u8>,
    then: Then,
}

/// What the endpoint does after its answer.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Wait,
    Close,
}

impl Scene {
    fn get(answer: &[u8]) -> Self {
        Self {
            request: Request::get("http://web/"),
            body: Body::Empty,
            read: b"\r\n\r\n",
            answer: answer.to_vec(),
            then: Then::Wait,
        }
    }

    fn closing(answer: &[u8]) -> Self {
        Self {
            then: Then::Close,
            ..Self::get(answer)
        }
    }

    /// What it came to, the interim responses, and whether the connection was kept.
    fn play(self) -> (Came, Vec<u16>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        LocalSet::new().block_on(&runtime, self.run())
    }

    async fn run(self) -> (Came, Vec<u16>, bool) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (read, answer, then) = (self.read, self.answer, self.then);
        let endpoint = spawn_local(async move {
            let mut received = Vec::new();
            while !received.ends_with(read) {
                if far.read_buf(&mut received).await.expect("reads") == 0 {
                    return None;
                }
            }
            far.write_all(&answer).await.expect("writes");
            (then == Then::Wait).then_some(far)
        });
        let interims = Rc::new(RefCell::new(Vec::new()));
        let seen = interims.clone();
        let interim = Interim(Rc::new(move |response: Response<()>| {
            seen.borrow_mut().push(response.status().as_u16());
        }));
        let kept = Kept::default();
        let wire = Wire::new(Socket(near), Bytes::new());
        let request = self.request.body(self.body).expect("a request");
        let limits = Rc::new(Limits::default());
        let sent = send(wire, request, &interim, kept.clone(), limits).await;
        // Everything that it has to say is there before the body is looked at.
        let _open = endpoint.await.expect("the endpoint");
        let came = match sent {
            Ok(Answer::Response(response)) => {
                let status = response.status().as_u16();
                Came::Answer(status, text(response.into_body()).await)
            }
            Ok(Answer::Switched(_, wire)) => {
                Came::Switched(String::from_utf8_lossy(&wire.input.pending).into_owned())
            }
            Err(error) => Came::Failed(error),
        };
        let interims = interims.take();
        (came, interims, kept.0.get() == 1)
    }
}

async fn text(mut body: Body) -> Result<String, BodyError> {
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            text.extend_from_slice(&data);
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn answer(status: u16, body: &str) -> Came {
    Came::Answer(status, Ok(body.to_owned()))
}

#[test]
fn a_connection_is_kept_only_where_nothing_is_left_on_it() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    for (what, response, kept) in [
        ("length", "content-length: 2\r\n\r\nhi", true),
        (
            "chunks",
            "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            true,
        ),
        ("more than stated", "content-length: 2\r\n\r\nhi!", false),
        (
            "another response",
            "content-length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        (
            "more than the last chunk",
            "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\nx",
            false,
        ),
        (
            "coding and length",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            false,
        ),
        (
            "close",
            "connection: close\r\ncontent-length: 2\r\n\r\nhi",
            false,
        ),
    ] {
        let scene = Scene::get(format!("{OK}{response}").as_bytes());
        let (came, _, is_kept) = scene.play();
        assert_eq!((came, is_kept), (answer(200, "hi"), kept), "{what}");
    }
    let until_closed = Scene::closing(b"HTTP/1.1 200 OK\r\n\r\nhi").play();
    assert_eq!((until_closed.0, until_closed.2), (answer(200, "hi"), false));
    let old = Scene::get(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi").play();
    assert_eq!((old.0, old.2), (answer(200, "hi"), false));
}

#[test]
fn what_has_no_body_is_read_as_having_none() {
    let length = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let head = Scene {
        request: Request::head("http://web/"),
        ..Scene::get(length)
    };
    assert_eq!(head.play(), (answer(200, ""), vec![], true));
    for status in ["204 No Content", "304 Not Modified"] {
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\n");
        let (came, _, kept) = Scene::get(response.as_bytes()).play();
        let code = status[..3].parse().expect("a number");
        assert_eq!((came, kept), (answer(code, ""), true), "{status}");
    }
    // A body all the same is excess.
    let lying = Scene {
        request: Request::head("http://web/"),
        ..Scene::get(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
    };
    assert_eq!(lying.play(), (answer(200, ""), vec![], false));
}

#[test]
fn a_response_that_can_be_read_in_two_ways_is_none() {
    for (what, response) in [
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nhi",
        ),
        (
            "signed length",
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nhi",
        ),
        (
            "list of lengths",
            "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nhi",
        ),
        (
            "folded",
            "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nhi",
        ),
        ("LF", "HTTP/1.1 200 OK\ncontent-length: 2\n\nhi"),
        (
            "space before the colon",
            "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nhi",
        ),
        ("no status", "HTTP/1.1 OK\r\n\r\n"),
        ("another protocol", "SSH-2.0-server\r\n\r\n"),
        ("HTTP/2", "HTTP/2 200 OK\r\n\r\n"),
    ] {
        let (came, _, kept) = Scene::get(response.as_bytes()).play();
        let is_refused = matches!(came, Came::Failed(UpstreamError::Protocol(_)));
        assert!(is_refused && !kept, "{what}: {came:?}");
    }
    for (what, body) in [
        ("size", "zz\r\nhi\r\n0\r\n\r\n"),
        ("no end of line", "2\r\nhi0\r\n\r\n"),
        ("LF", "2\nhi\n0\n\n"),
        ("too large", "fffffffffffffffff\r\nhi\r\n"),
    ] {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let (came, _, kept) = Scene::get(format!("{head}{body}").as_bytes()).play();
        let is_broken = matches!(came, Came::Answer(200, Err(BodyError::Protocol(_))));
        assert!(is_broken && !kept, "{what}: {came:?}");
    }
}

#[test]
fn a_response_that_breaks_off_is_told_so() {
    for body in [
        "content-length: 5\r\n\r\nhi",
        "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{body}");
        let (came, _, kept) = Scene::closing(response.as_bytes()).play();
        let is_cut = matches!(came, Came::Answer(200, Err(BodyError::Reset(_))));
        assert!(is_cut && !kept, "{body:?}: {came:?}");
    }
    for head in ["", "HTTP/1.1 200 OK\r\nconte"] {
        let (came, _, kept) = Scene::closing(head.as_bytes()).play();
        let is_reset = matches!(
            came,
            Came::Failed(UpstreamError::Reset {
                head_sent: true,
                ..
            })
        );
        assert!(is_reset && !kept, "{head:?}: {came:?}");
    }
}

#[test]
fn interim_responses_go_on_up_to_a_bound() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let most = format!("{}{last}", early.repeat(MOST_INTERIM));
    let (came, interims, kept) = Scene::get(most.as_bytes()).play();
    assert_eq!((came, kept), (answer(200, ""), true));
    assert_eq!(interims, [103; MOST_INTERIM]);
    let more = format!("{}{last}", early.repeat(MOST_INTERIM + 1));
    let (came, _, kept) = Scene::get(more.as_bytes()).play();
    assert!(
        matches!(came, Came::Failed(UpstreamError::Protocol(_))),
        "{came:?}"
    );
    assert!(!kept);
}

/// CVE-2024-23326, CVE-2025-64763: nothing is a tunnel but what both sides have agreed on.
#[test]
fn a_switch_takes_a_question_and_a_101() {
    const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
        connection: upgrade\r\nupgrade: other\r\n\r\nfirst";
    let asking = |answer: &[u8]| Scene {
        request: Request::get("http://web/").header("upgrade", "other"),
        ..Scene::get(answer)
    };
    let (came, ..) = asking(SWITCH).play();
    assert_eq!(came, Came::Switched("first".to_owned()));
    let (came, ..) = asking(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi and more").play();
    assert_eq!(came, answer(200, "hi"));
    let (came, _, kept) = Scene::get(SWITCH).play();
    assert!(
        matches!(came, Came::Failed(UpstreamError::Protocol(_))),
        "{came:?}"
    );
    assert!(!kept);
    // With a body still to come, nobody knows where it ends and the other protocol begins.
    let early = Scene {
        request: Request::post("http://web/").header("upgrade", "other"),
        body: Body::stream(Endless),
        ..Scene::get(SWITCH)
    };
    let (came, ..) = early.play();
    assert!(
        matches!(came, Came::Failed(UpstreamError::Protocol(_))),
        "{came:?}"
    );
}

/// A body that has not come yet.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Pending
    }
}

/// The endpoint knows enough; what would follow of the request would be taken for another one.
#[test]
fn an_answer_before_the_request_s_end_is_the_last() {
    let early = Scene {
        request: Request::post("http://web/"),
        body: Body::stream(Endless),
        ..Scene::get(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
    };
    assert_eq!(early.play(), (answer(413, "no"), vec![], false));
}
