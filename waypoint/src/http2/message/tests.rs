//! Tests.

use http::Request;

use super::*;

fn received(uri: &str, fields: &[(&'static str, &str)]) -> Result<request::Parts, MessageError> {
    let mut request = Request::builder().uri(uri).version(Version::HTTP_2);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    receive(&mut parts, &HeadLimits::default()).map(|()| parts)
}

#[test]
fn what_would_mean_something_else_in_http_1_is_refused() {
    for (hazard, uri, fields) in [
        ("connection", "http://a/", &[("connection", "close")][..]),
        ("coding", "http://a/", &[("transfer-encoding", "chunked")]),
        ("upgrade", "http://a/", &[("upgrade", "websocket")]),
        ("te", "http://a/", &[("te", "trailers, gzip")]),
        (
            "two lengths",
            "http://a/",
            &[("content-length", "1"), ("content-length", "2")],
        ),
        ("signed length", "http://a/", &[("content-length", "+1")]),
        ("other host", "http://a/", &[("host", "b")]),
        ("two hosts", "http://a/", &[("host", "a"), ("host", "a")]),
        ("space before a value", "http://a/", &[("x-role", " admin")]),
        ("space after a value", "http://a/", &[("x-role", "admin\t")]),
        ("user", "http://u@a/", &[]),
        ("scheme", "ftp://a/", &[]),
        ("no authority", "/", &[]),
        ("asterisk", "*", &[("host", "a")]),
    ] {
        assert!(received(uri, fields).is_err(), "{hazard}");
    }
    let many: Vec<_> = (0..101).map(|_| ("cookie", "a=b")).collect();
    assert_eq!(
        received("http://a/", &many).unwrap_err(),
        MessageError::TooManyFields
    );
}

#[test]
fn cve_2023_35944_a_scheme_has_no_letter_case() {
    for uri in ["http://a/", "HTTP://a/", "HttpS://a/"] {
        assert!(received(uri, &[]).is_ok(), "{uri}");
    }
}

#[test]
fn cookies_are_joined_and_host_gives_the_authority() {
    let parts = received(
        "/x",
        &[("host", "a:81"), ("cookie", "a=1"), ("cookie", "b=2")],
    )
    .unwrap();
    assert_eq!(parts.uri, "http://a:81/x");
    assert_eq!(parts.headers["cookie"], "a=1; b=2");
}

#[test]
fn a_request_of_http_1_becomes_one_of_http_2() {
    let request = Request::builder()
        .uri("/x?y")
        .header("host", "a")
        .header("te", "trailers")
        .header("keep-alive", "x")
        .body(())
        .unwrap();
    let request = send_request(request.into_parts().0).unwrap();
    assert_eq!(request.uri(), "http://a/x?y");
    assert_eq!(request.headers().keys().collect::<Vec<_>>(), ["te"]);
}

#[test]
fn only_who_may_have_a_body_says_how_long_it_is() {
    for (status, stays) in [(103, false), (204, false), (200, true), (304, true)] {
        let response = http::Response::builder().status(status);
        let response = response.header(header::CONTENT_LENGTH, "3").body(());
        let (parts, ()) = response.expect("a response").into_parts();
        let sent = send_response(parts);
        let length = sent.headers().get(header::CONTENT_LENGTH);
        assert_eq!(length.is_some(), stays, "{status}");
    }
}
