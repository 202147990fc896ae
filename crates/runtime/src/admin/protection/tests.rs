//! Who may read, who may change, and whose a socket is.

use std::net::{TcpListener, TcpStream};

use axum::http::{HeaderName, HeaderValue};

use super::*;

#[track_caller]
fn check(
    method: Method,
    headers: &[(&'static str, &'static str)],
    user: Option<u32>,
    expected: Result<(), Refusal>,
) {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect();
    let judged = judge(&method, &headers, || user.map(Uid::from_raw));
    let asked = (!method.is_safe())
        .then_some(user.map(Uid::from_raw))
        .flatten();
    let expected = expected.map(|()| asked);
    assert_eq!(judged, expected, "{method} {headers:?} by {user:?}");
}

#[test]
fn reading_is_free_under_names_that_no_name_server_answers() {
    for host in [
        "localhost:15000",
        "LOCALHOST",
        "127.0.0.1:1",
        "[::1]:15000",
        "10.0.0.7:15000",
    ] {
        check(Method::GET, &[("host", host)], None, Ok(()));
    }
    check(Method::GET, &[], None, Ok(()));
    for host in [
        "evil.example:15000",
        "localhost.evil.example",
        "",
        "a b",
        "1.2.3",
    ] {
        check(Method::GET, &[("host", host)], Some(0), Err(Refusal::Host));
    }
}

#[test]
fn changing_takes_a_user_and_no_page() {
    let own = Uid::effective().as_raw();
    check(Method::POST, &[], Some(0), Ok(()));
    check(
        Method::POST,
        &[("sec-fetch-site", "none")],
        Some(own),
        Ok(()),
    );
    check(Method::POST, &[], None, Err(Refusal::User));
    check(Method::DELETE, &[], Some(own + 1), Err(Refusal::User));
    check(
        Method::POST,
        &[("origin", "null")],
        Some(0),
        Err(Refusal::Page),
    );
    let elsewhere = [("sec-fetch-site", "cross-site")];
    check(Method::PUT, &elsewhere, Some(0), Err(Refusal::Page));
}

#[test]
fn the_kernel_tells_whose_socket_it_is() {
    for loopback in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(loopback) else {
            // A kernel without IPv6; IPv4 is there.
            assert!(loopback.starts_with('['));
            continue;
        };
        let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
        let ends = Ends {
            client: client.local_addr().expect("connected"),
            server: client.peer_addr().ok(),
        };
        let user = ends.client_user().expect("the table");
        assert_eq!(user, Some(Uid::effective()));
        let gone = Ends {
            server: Some(ends.client),
            ..ends
        };
        assert_eq!(gone.client_user().expect("the table"), None);
    }
}
