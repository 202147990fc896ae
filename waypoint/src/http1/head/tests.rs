//! Tests.

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Option<RequestHead>, HeadError> {
    let mut input = Bytes::copy_from_slice(text.as_bytes());
    parse_request(&mut input, &HeadLimits::default())
}

fn refused(text: &str) -> bool {
    parse(text).is_err()
}

#[test]
fn heads_that_two_readers_may_understand_differently_are_refused() {
    for (hazard, text) in [
        (
            "folded value",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n",
        ),
        ("folded first", "GET / HTTP/1.1\r\n host: a\r\n\r\n"),
        ("space before colon", "GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
        (
            "NUL in a value",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\0\r\n\r\n",
        ),
        (
            "CR in a value",
            "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r2\r\n\r\n",
        ),
        ("LF line ends", "GET / HTTP/1.1\nhost: a\n\n"),
        ("one LF line end", "GET / HTTP/1.1\r\nhost: a\nx: 1\r\n\r\n"),
        ("LF at the end", "GET / HTTP/1.1\r\nhost: a\r\n\n"),
        (
            "name of nothing",
            "GET / HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n",
        ),
        (
            "name in quotes",
            "GET / HTTP/1.1\r\nhost: a\r\n\"x\": 1\r\n\r\n",
        ),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        ("host list", "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n"),
        ("host with user", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n"),
        ("host with path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
        ("fragment", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("target without slash", "GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("target with spaces", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "target with high bytes",
            "GET /\u{e9} HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        ("asterisk", "GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "authority as target",
            "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        ("path to CONNECT", "CONNECT / HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "CONNECT without port",
            "CONNECT a HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        (
            "absolute with user",
            "GET http://u@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        ("other scheme", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("tab for space", "GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("two spaces", "GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("HTTP/0.9", "GET /\r\n\r\n"),
        ("HTTP/2.0", "GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
        ("HTTP/1.10", "GET / HTTP/1.10\r\nhost: a\r\n\r\n"),
        (
            "length and coding",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "nominated host",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: host\r\n\r\n",
        ),
        (
            "nominated authorization",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: authorization\r\n\r\n",
        ),
    ] {
        assert!(refused(text), "{hazard}: {:?}", parse(text));
    }
}

/// CVE-2020-12605, CVE-2019-15226.
#[test]
fn bounds_are_kept_and_told_apart() {
    let limits = HeadLimits::default();
    let long = |size| "x".repeat(size);
    for (text, expected) in [
        (
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", long(limits.target)),
            HeadError::TargetTooLong,
        ),
        (
            format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", long(40).to_uppercase()),
            HeadError::MethodTooLong,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
                long(limits.bytes)
            ),
            HeadError::TooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", long(limits.bytes)),
            HeadError::TooLarge,
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
                "x: 1\r\n".repeat(100)
            ),
            HeadError::TooManyFields,
        ),
    ] {
        assert_eq!(parse(&text).unwrap_err(), expected);
    }
}

#[test]
fn hop_by_hop_fields_and_nominees_end_here() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close, x-one\r\nx-one: 1\r\nx-two: 2\r\n\
        keep-alive: timeout=5\r\nproxy-connection: close\r\nte: trailers, deflate\r\n\
        upgrade: websocket\r\nproxy-authorization: x\r\n\r\n";
    let head = parse(text).unwrap().unwrap();
    let names: Vec<_> = head
        .request
        .headers()
        .keys()
        .map(|name| name.as_str())
        .collect();
    assert_eq!(names, ["host", "x-two", "te"]);
    assert_eq!(head.request.headers()["te"], "trailers");
    assert_eq!(head.persistence, Persistence::Close);
    assert!(head.accepts_trailers && !head.upgrade);
}

#[test]
fn an_upgrade_must_be_nominated_and_is_never_to_http2() {
    let head = |fields: &str| {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        parse(&text).unwrap().unwrap()
    };
    assert!(head("connection: upgrade\r\nupgrade: websocket\r\n").upgrade);
    assert!(!head("upgrade: websocket\r\n").upgrade);
    let http2 =
        head("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n");
    assert!(!http2.upgrade);
    assert!(!http2.request.headers().contains_key("upgrade"));
    assert!(!http2.request.headers().contains_key("http2-settings"));
}

#[test]
fn an_absolute_target_replaces_host() {
    let head = parse("GET http://b:81/x?y HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap()
        .unwrap();
    assert_eq!(head.request.headers()["host"], "b:81");
    assert_eq!(head.request.uri().path(), "/x");
}

#[test]
fn an_absolute_target_without_a_path_has_the_roots() {
    for (target, rooted) in [
        ("http://b", "/"),
        ("http://b?y", "/?y"),
        ("http://b/?y", "/?y"),
        ("http://b?/admin", "/?/admin"),
    ] {
        let head = parse(&format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let head = head.unwrap().unwrap();
        let read = head.request.uri().path_and_query();
        assert_eq!(read.map(|read| read.as_str()), Some(rooted), "{target}");
    }
}

#[test]
fn a_response_with_length_and_coding_is_the_last() {
    let text = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut input = Bytes::from_static(text.as_bytes());
    let head = parse_response(&mut input, &Method::GET, &HeadLimits::default());
    let head = head.unwrap().unwrap();
    assert_eq!(head.length, Length::Chunked);
    assert_eq!(head.persistence, Persistence::Close);
    assert!(!head.response.headers().contains_key("content-length"));
}

#[test]
fn trailers_bring_no_framing_and_no_credentials() {
    let section = Bytes::from_static(
        b"content-length: 1\r\nhost: a\r\nauthorization: x\r\nconnection: x\r\ngrpc-status: 0\r\n\r\n",
    );
    let trailers = parse_trailers(&section, &HeadLimits::default()).unwrap();
    assert_eq!(trailers.keys().collect::<Vec<_>>(), ["grpc-status"]);
}

proptest! {
    #[test]
    fn nothing_panics(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::http1::fuzz::request(&input);
        crate::http1::fuzz::response(&input);
        crate::http1::fuzz::chunked(&input);
    }

    #[test]
    fn nothing_panics_behind_a_good_line(input in "[ -~\r\n\t\0]{0,120}") {
        crate::http1::fuzz::request(format!("POST / HTTP/1.1\r\nhost: a\r\n{input}").as_bytes());
        crate::http1::fuzz::response(format!("HTTP/1.1 200 OK\r\n{input}").as_bytes());
    }

    /// What is incomplete is neither accepted nor refused.
    #[test]
    fn a_good_head_is_partial_until_its_last_byte(cut in 0usize..48) {
        let text = "GET /path?query HTTP/1.1\r\nhost: a\r\nx-y: some\r\n\r\n";
        prop_assume!(cut < text.len());
        prop_assert!(matches!(parse(&text[..cut]), Ok(None)));
    }
}
