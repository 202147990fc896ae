//! Hostile HTTP/2, frame by frame: each breach has its answer, reaches no endpoint, and leaves the
//! worker to the others.

use std::cell::RefCell;

use super::*;

const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// Error codes of RFC 9113 §7.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the waypoint has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Status(u32, u16),
    Reset(u32, u32),
    GoAway(u32),
    Closed,
}

/// A client that writes whatever it likes.
struct Hostile {
    io: Stream<hbone::stream::Stream>,
    received: Vec<u8>,
}

/// A waypoint with one worker, in front of an endpoint that speaks HTTP/1.1.
struct Scene {
    workers: Workers,
    tunnel: Tunnel,
    heard: Rc<RefCell<Vec<u8>>>,
    rejected: Arc<Mutex<Vec<StatusCode>>>,
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 7541 §5.1, with a prefix of seven bits and §5.2 without Huffman.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push((length % 128 + 128) as u8);
            length /= 128;
        }
        out.push(length as u8);
    }
    out.extend(text);
}

/// RFC 7541 §6.2.2, with the name as it is.
fn block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name.as_bytes());
        text(&mut block, value);
    }
    block
}

const REQUEST: [(&str, &[u8]); 4] = [
    (":method", b"POST"),
    (":scheme", b"http"),
    (":authority", b"web"),
    (":path", b"/hostile"),
];

/// A whole head; it ends the stream with `END_STREAM` in `flags`.
fn head(stream: u32, flags: u8, fields: &[(&str, &[u8])]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

fn with(fields: &[(&'static str, &'static [u8])]) -> Vec<(&'static str, &'static [u8])> {
    let mut all = REQUEST.to_vec();
    all.extend(fields);
    all
}

/// RFC 7541: an indexed `:status`, or a literal one with or without Huffman's digits.
fn status(block: &[u8]) -> u16 {
    match block {
        [known @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(known - 0x88)],
        [0x48 | 0x08, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap()
        }
        [0x48 | 0x08, length, digits @ ..] => {
            let bits: Vec<u8> = digits[..usize::from(length & 0x7f)]
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
                .collect();
            let mut at = 0;
            let mut number = |count: usize, skip: usize| {
                let taken = bits[at..at + count]
                    .iter()
                    .fold(0, |sum, bit| sum << 1 | u16::from(*bit));
                at += skip;
                taken
            };
            // Appendix B: 0 to 2 have five bits, 3 to 9 have six and begin at 25.
            (0..3).fold(0, |status, _| {
                let digit = match number(6, 0) {
                    short @ 0..=5 => {
                        number(5, 5);
                        short >> 1
                    }
                    long => {
                        number(6, 6);
                        long - 25 + 3
                    }
                };
                status * 10 + digit
            })
        }
        other => panic!("no :status in {other:x?}"),
    }
}

// === impl Scene ===

impl Scene {
    async fn new() -> Self {
        let fixture = Fixture::new();
        let heard = Rc::new(RefCell::new(Vec::new()));
        let hearing = heard.clone();
        let node = fixture
            .node(move |mut stream: Stream<hbone::stream::Stream>| {
                let heard = hearing.clone();
                async move {
                    let mut buffer = Vec::new();
                    while stream.read_buf(&mut buffer).await.unwrap_or(0) > 0 {
                        heard.borrow_mut().extend_from_slice(&buffer);
                        let requests = buffer.windows(4).filter(|four| four == b"\r\n\r\n").count();
                        for _ in 0..requests {
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                            if stream.write_all(answer).await.is_err() {
                                return;
                            }
                        }
                        buffer.clear();
                    }
                }
            })
            .await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Unknown, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        Self {
            workers,
            tunnel,
            heard,
            rejected: fixture.rejected,
        }
    }

    async fn client(&self) -> Hostile {
        let mut client = Hostile {
            io: open(&self.tunnel).await,
            received: Vec::new(),
        };
        client.send(crate::sniff::HTTP2_PREFACE).await;
        client.send(&frame(SETTINGS, 0, 0, b"")).await;
        client
    }

    /// What the first answer is to `frames`.
    async fn answer_to(&self, frames: &[u8]) -> Answer {
        let mut client = self.client().await;
        client.send(frames).await;
        client.answer().await
    }

    /// Another client is served, and nothing of the hostile one's came to the endpoint.
    async fn check(&self) {
        let mut other = open(&self.tunnel).await;
        other.write_all(GET).await.unwrap();
        read_until(&mut other, "hello").await;
        let heard = String::from_utf8_lossy(&self.heard.borrow()).into_owned();
        assert!(!heard.contains("/hostile"), "{heard:?}");
        assert!(self.workers.address().port() != 0);
    }
}

// === impl Hostile ===

impl Hostile {
    /// A connection that is closed while it is written to is an answer, which is read later.
    async fn send(&mut self, frames: &[u8]) {
        if self.io.write_all(frames).await.is_ok() {
            let _ = self.io.flush().await;
        }
    }

    /// The next frame; none at the end.
    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let [one, two, three, kind, flags, a, b, c, d, payload @ ..] = &self.received[..] {
                let length = u32::from_be_bytes([0, *one, *two, *three]) as usize;
                if payload.len() >= length {
                    let stream = u32::from_be_bytes([*a, *b, *c, *d]);
                    let frame = (*kind, *flags, stream, payload[..length].to_vec());
                    self.received.drain(..9 + length);
                    return Some(frame);
                }
            }
            match self.io.read_buf(&mut self.received).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn answer(&mut self) -> Answer {
        while let Some((kind, _, stream, payload)) = self.frame().await {
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            match kind {
                HEADERS => return Answer::Status(stream, status(&payload)),
                RESET => return Answer::Reset(stream, code(0)),
                GO_AWAY => return Answer::GoAway(code(4)),
                _ => {}
            }
        }
        Answer::Closed
    }

    /// The last word: what was said when the connection ended.
    async fn end(&mut self) -> Answer {
        let mut last = Answer::Closed;
        loop {
            match self.answer().await {
                Answer::Closed => return last,
                Answer::GoAway(code) => last = Answer::GoAway(code),
                Answer::Status(..) | Answer::Reset(..) => {}
            }
        }
    }
}

/// CVE-2019-9900, CVE-2019-9516 and CVE-2019-18802 are among them.
#[test]
fn malformed_requests_are_reset_or_refused() {
    run(async {
        let scene = Scene::new().await;
        let without = |name: &str| -> Vec<(&str, &[u8])> {
            REQUEST
                .into_iter()
                .filter(|(known, _)| *known != name)
                .collect()
        };
        let path = |path: &'static [u8]| -> Vec<(&str, &[u8])> {
            let mut fields = without(":path");
            fields.push((":path", path));
            fields
        };
        let late_pseudo = {
            let mut fields = without(":path");
            fields.extend([("x", &b"y"[..]), (":path", b"/hostile")]);
            fields
        };
        // Bytes that no field may have break off the reading of the compressed block, without
        // which nothing that follows can be understood.
        let ended = Answer::GoAway(PROTOCOL_ERROR);
        let reset = Answer::Reset(1, PROTOCOL_ERROR);
        let refused = Answer::Status(1, 400);
        for (hazard, fields, expected) in [
            ("upper case", with(&[("X-Upper", b"y")]), ended),
            ("empty name", with(&[("", b"y")]), ended),
            ("name with a space", with(&[("a b", b"y")]), ended),
            ("connection", with(&[("connection", b"close")]), reset),
            ("keep-alive", with(&[("keep-alive", b"1")]), reset),
            (
                "proxy-connection",
                with(&[("proxy-connection", b"x")]),
                reset,
            ),
            (
                "transfer-encoding",
                with(&[("transfer-encoding", b"chunked")]),
                reset,
            ),
            ("upgrade", with(&[("upgrade", b"websocket")]), reset),
            ("te", with(&[("te", b"gzip")]), reset),
            (
                "te, too",
                with(&[("te", b"trailers"), ("te", b"gzip")]),
                reset,
            ),
            ("CR LF", with(&[("x", b"a\r\nx-smuggled: b")]), ended),
            ("LF", with(&[("x", b"a\nb")]), ended),
            ("NUL", with(&[("x", b"a\0b")]), ended),
            ("space around", with(&[("x-role", b"admin ")]), refused),
            ("no method", without(":method"), reset),
            ("no scheme", without(":scheme"), reset),
            ("no path", without(":path"), reset),
            // CVE-2019-18838.
            ("no authority", without(":authority"), refused),
            ("two paths", with(&[(":path", b"/hostile")]), reset),
            ("unknown pseudo header", with(&[(":status", b"200")]), reset),
            ("pseudo header at the end", late_pseudo, reset),
            ("empty path", path(b""), reset),
            ("CR LF in the path", path(b"/hostile\r\nx: y"), reset),
            ("space in the path", path(b"/hostile HTTP/1.1"), reset),
            ("relative path", path(b"hostile"), reset),
            ("asterisk", path(b"*"), refused),
            ("other host", with(&[("host", b"other")]), refused),
            (
                "two hosts",
                with(&[("host", b"web"), ("host", b"web")]),
                refused,
            ),
            ("two lengths", with(&[("content-length", b"1, 2")]), reset),
            ("signed length", with(&[("content-length", b"+1")]), reset),
        ] {
            let answer = scene.answer_to(&head(1, END_STREAM, &fields)).await;
            assert_eq!(answer, expected, "{hazard}");
            let told = std::mem::take(&mut *scene.rejected.lock().unwrap());
            assert_eq!(told, [StatusCode::BAD_REQUEST], "{hazard}");
        }
        scene.check().await;
    });
}

#[test]
fn a_body_that_is_not_as_long_as_stated_is_reset() {
    run(async {
        let scene = Scene::new().await;
        let stated = with(&[("content-length", b"5")]);
        let none = head(1, END_STREAM, &stated);
        let reset = Answer::Reset(1, PROTOCOL_ERROR);
        assert_eq!(scene.answer_to(&none).await, reset);
        scene.check().await;
        for data in [&b"hi"[..], b"hello and more"] {
            let mut frames = head(1, 0, &stated);
            frames.extend(frame(DATA, END_STREAM, 1, data));
            assert_eq!(scene.answer_to(&frames).await, reset, "{data:?}");
        }
    });
}

/// CVE-2024-27919 and CVE-2024-30255, CVE-2026-47774, CVE-2019-15226: fragments, cookies and tiny
/// fields count like any other, and what was never accepted overflows nothing (CVE-2019-18801).
#[test]
fn heads_without_an_end_or_a_bound_end_the_connection_or_are_431() {
    run(async {
        let scene = Scene::new().await;
        let mut flood = frame(HEADERS, END_STREAM, 1, &block(&REQUEST));
        for _ in 0..2_000 {
            flood.extend(frame(CONTINUATION, 0, 1, b""));
        }
        let answer = scene.answer_to(&flood).await;
        assert_eq!(answer, Answer::GoAway(ENHANCE_YOUR_CALM));
        let crumb = [b'c'; 1000];
        let mut cookies = REQUEST.to_vec();
        cookies.extend([("cookie", &crumb[..]); 70]);
        let many = block(&cookies);
        let mut frames = Vec::new();
        for (index, part) in many.chunks(16_384).enumerate() {
            let last = if (index + 1) * 16_384 >= many.len() {
                END_HEADERS
            } else {
                0
            };
            frames.extend(match index {
                0 => frame(HEADERS, END_STREAM | last, 1, part),
                _ => frame(CONTINUATION, last, 1, part),
            });
        }
        assert_eq!(scene.answer_to(&frames).await, Answer::Status(1, 431));
        let mut fields = REQUEST.to_vec();
        fields.extend([("cookie", &b"a=b"[..]); 101]);
        let answer = scene.answer_to(&head(1, END_STREAM, &fields)).await;
        assert_eq!(answer, Answer::Status(1, 431));
        // CVE-2026-73550: a Host is counted though the authority is what goes on.
        let host = &[b'w'; 16_000][..];
        let mut fields = REQUEST.to_vec();
        fields.extend([("host", host); 4]);
        let mut frames = Vec::new();
        for (index, part) in block(&fields).chunks(16_384).enumerate() {
            frames.extend(match index {
                0 => frame(HEADERS, END_STREAM, 1, part),
                _ => frame(CONTINUATION, 0, 1, part),
            });
        }
        frames.extend(frame(CONTINUATION, END_HEADERS, 1, b""));
        assert_eq!(scene.answer_to(&frames).await, Answer::Status(1, 431));
        scene.check().await;
    });
}

/// CVE-2019-9514 and CVE-2021-32778 as well.
#[test]
fn resets_of_either_side_s_making_end_the_connection() {
    run(async {
        let scene = Scene::new().await;
        let streams = |count: u32, then: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
            (0..count)
                .flat_map(|index| {
                    let stream = 2 * index + 1;
                    let mut frames = head(stream, 0, &with(&[("content-length", b"9")]));
                    frames.extend(then(stream));
                    frames
                })
                .collect()
        };
        // CVE-2023-44487.
        let rapid = streams(1_000, &|stream| {
            frame(RESET, 0, stream, &CANCEL.to_be_bytes())
        });
        let mut client = scene.client().await;
        client.send(&rapid).await;
        assert_eq!(client.end().await, Answer::GoAway(ENHANCE_YOUR_CALM));
        // CVE-2025-8671: the waypoint is made to reset.
        let provoking = streams(1_200, &|stream| {
            frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
        });
        let mut client = scene.client().await;
        client.send(&provoking).await;
        let end = client.end().await;
        assert_eq!(end, Answer::GoAway(ENHANCE_YOUR_CALM));
        let told = scene.rejected.lock().unwrap().clone();
        let calmed = told.iter().filter(|status| status.as_u16() == 429);
        assert_eq!(calmed.count(), 2, "{told:?}");
        let mut other = open(&scene.tunnel).await;
        other.write_all(GET).await.unwrap();
        read_until(&mut other, "hello").await;
    });
}

#[test]
fn windows_and_closed_streams_are_kept_to() {
    run(async {
        let scene = Scene::new().await;
        let most = 0x7fff_ffff_u32.to_be_bytes();
        let answer = scene.answer_to(&frame(WINDOW_UPDATE, 0, 0, &most)).await;
        assert_eq!(answer, Answer::GoAway(FLOW_CONTROL_ERROR));
        let mut frames = head(1, 0, &with(&[("content-length", b"9")]));
        frames.extend(frame(WINDOW_UPDATE, 0, 1, &most));
        let answer = scene.answer_to(&frames).await;
        assert_eq!(answer, Answer::Reset(1, FLOW_CONTROL_ERROR));
        let idle = scene.answer_to(&frame(DATA, 0, 1, b"x")).await;
        assert_eq!(idle, Answer::GoAway(PROTOCOL_ERROR));
        let mut closed = head(1, END_STREAM, &REQUEST);
        closed.extend(frame(DATA, 0, 1, b"x"));
        let mut client = scene.client().await;
        client.send(&closed).await;
        let mut answer = client.answer().await;
        if answer == Answer::Status(1, 200) {
            answer = client.answer().await;
        }
        assert_eq!(answer, Answer::GoAway(PROTOCOL_ERROR));
        let mut other = open(&scene.tunnel).await;
        other.write_all(GET).await.unwrap();
        read_until(&mut other, "hello").await;
    });
}

/// CVE-2019-9518, CVE-2019-9513, CVE-2019-9515, CVE-2020-11080: frames that carry nothing cost next to nothing,
/// and no more of them than a bound says. CVE-2021-29258: what is not known is passed over.
#[test]
fn frames_that_carry_nothing_end_the_connection_or_are_passed_over() {
    run(async {
        let scene = Scene::new().await;
        let stated = with(&[("content-length", b"9")]);
        let mut empty = head(1, 0, &stated);
        empty.extend(frame(DATA, 0, 1, b"").repeat(20_000));
        let mut client = scene.client().await;
        client.send(&empty).await;
        assert_eq!(client.end().await, Answer::GoAway(ENHANCE_YOUR_CALM));
        // One setting, as often as a frame holds it.
        let setting = [0, 4, 0, 0, 0xff, 0xff].repeat(2_730);
        let priority = frame(PRIORITY, 0, 9, &[0, 0, 0, 3, 1]);
        let metadata = frame(0x4d, END_HEADERS, 0, b"");
        for harmless in [
            frame(SETTINGS, 0, 0, &setting),
            priority.repeat(10_000),
            metadata.repeat(10_000),
        ] {
            let mut client = scene.client().await;
            client.send(&harmless).await;
            let fields = with(&[]).into_iter().map(|(name, value)| match name {
                ":path" => (name, &b"/fine"[..]),
                _ => (name, value),
            });
            let fields: Vec<_> = fields.collect();
            client.send(&head(1, END_STREAM, &fields)).await;
            assert_eq!(client.answer().await, Answer::Status(1, 200));
        }
        scene.check().await;
    });
}

/// CVE-2019-9512, CVE-2019-9515: what is answered and not read stops the reading, so that a flood
/// costs no memory.
#[test]
fn floods_whose_answers_are_not_read_are_read_no_further() {
    run(async {
        let scene = Scene::new().await;
        for flood in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, b"")] {
            let batch = flood.repeat(1_000);
            let mut client = scene.client().await;
            let mut sent = 0;
            let stalled = Duration::from_millis(500);
            while time::timeout(stalled, client.io.write_all(&batch))
                .await
                .is_ok()
            {
                sent += batch.len();
                assert!(sent < 16 << 20, "still read");
            }
            scene.check().await;
        }
    });
}

/// Windows, not memory, are what a client's hundred megabytes meet.
#[test]
fn a_client_is_read_no_faster_than_its_endpoint() {
    run(async {
        let fixture = Fixture::new();
        let node = fixture
            .node(|stream: Stream<hbone::stream::Stream>| async move {
                let _unread = stream;
                std::future::pending().await
            })
            .await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Unknown, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut client = open(&tunnel).await;
        let head = b"POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 104857600\r\n\r\n";
        client.write_all(head).await.unwrap();
        let chunk = vec![0; 64 << 10];
        let mut sent = 0;
        while let Ok(written) =
            time::timeout(Duration::from_millis(500), client.write_all(&chunk)).await
        {
            written.unwrap();
            sent += chunk.len();
            assert!(sent < 8 << 20, "still read");
        }
    });
}
