//! Preflights and responses, by origin.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, ORIGIN};
use http::{HeaderName, Method};

use super::allows;
use crate::request::Request;
use crate::route::Cors;

fn cors(origins: &[&str]) -> Cors {
    Cors {
        allow_origins: origins.iter().map(|one| (*one).into()).collect(),
        ..Cors::default()
    }
}

fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
    of.iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

fn preflight(cors: &Cors, method: &Method, sent: &HeaderMap) -> Option<HeaderMap> {
    cors.preflight(&Request {
        method,
        host: "web",
        port: None,
        path: "/",
        query: None,
        headers: sent,
        remote_ip: [10, 0, 0, 1].into(),
        claims: None,
    })
}

const ASKED: &[(&str, &str)] = &[
    ("origin", "https://a.org"),
    ("access-control-request-method", "PUT"),
    ("access-control-request-headers", "x-one, x-two"),
];

#[test]
fn a_preflight_is_answered() {
    let cors = Cors {
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-one".into()],
        max_age: Some(Duration::from_secs(5)),
        ..cors(&["https://a.org"])
    };
    let expected = headers(&[
        ("vary", "origin"),
        ("access-control-allow-origin", "https://a.org"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-one"),
        ("access-control-max-age", "5"),
    ]);
    let answer = preflight(&cors, &Method::OPTIONS, &headers(ASKED));
    assert_eq!(answer, Some(expected));
}

#[test]
fn wildcards_are_answered_as_such_without_credentials_only() {
    let mut cors = Cors {
        allow_methods: vec!["*".into()],
        allow_headers: vec!["*".into()],
        ..cors(&["*"])
    };
    let expected = headers(&[
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-headers", "*"),
    ]);
    let answer = preflight(&cors, &Method::OPTIONS, &headers(ASKED));
    assert_eq!(answer, Some(expected));
    cors.allow_credentials = true;
    let expected = headers(&[
        ("vary", "origin"),
        ("access-control-allow-origin", "https://a.org"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "x-one, x-two"),
    ]);
    let answer = preflight(&cors, &Method::OPTIONS, &headers(ASKED));
    assert_eq!(answer, Some(expected));
}

#[test]
fn an_unknown_origin_is_allowed_nothing() {
    let mut cors = cors(&["https://b.org"]);
    let vary = Some(headers(&[("vary", "origin")]));
    assert_eq!(preflight(&cors, &Method::OPTIONS, &headers(ASKED)), vary);
    cors.allow_origins = vec!["*".into()];
    cors.allow_credentials = true;
    let null = headers(&[("origin", "null"), ("access-control-request-method", "GET")]);
    assert_eq!(preflight(&cors, &Method::OPTIONS, &null), vary);
}

#[test]
fn what_is_no_preflight_is_not_answered() {
    let cors = cors(&["*"]);
    assert_eq!(preflight(&cors, &Method::GET, &headers(ASKED)), None);
    assert_eq!(
        preflight(&cors, &Method::OPTIONS, &headers(&ASKED[..1])),
        None
    );
    assert_eq!(
        preflight(&cors, &Method::OPTIONS, &headers(&ASKED[1..])),
        None
    );
}

#[test]
fn the_route_and_not_the_service_tells_browsers() {
    let cors = Cors {
        expose_headers: vec!["x-a".into(), "x-b".into()],
        ..cors(&["https://a.org"])
    };
    let mut response = headers(&[
        ("access-control-allow-origin", "https://evil.org"),
        ("access-control-allow-credentials", "true"),
        ("vary", "accept"),
    ]);
    let own = response.clone();
    cors.apply(None, &mut response);
    assert_eq!(response, own);
    cors.apply(headers(ASKED).get(ORIGIN), &mut response);
    let mut expected = headers(&[
        ("access-control-allow-origin", "https://a.org"),
        ("access-control-expose-headers", "x-a, x-b"),
        ("vary", "accept"),
    ]);
    expected.append("vary", HeaderValue::from_static("origin"));
    assert_eq!(response, expected);
}

#[test]
fn wildcards_stand_for_labels_of_a_host() {
    for (allowed, origin, expected) in [
        ("https://a.org", "https://a.org", true),
        ("https://a.org", "https://A.org", true),
        ("https://a.org", "http://a.org", false),
        ("https://a.org", "https://a.org:8443", false),
        ("https://a.org:8443", "https://a.org:8443", true),
        ("https://*.a.org", "https://b.a.org", true),
        ("https://*.a.org", "https://c.b.a.org", true),
        ("https://*.a.org", "https://a.org", false),
        ("https://*.a.org", "https://.a.org", false),
        ("https://*.a.org", "https://ba.org", false),
        ("https://*.a.org", "https://evil.org/.a.org", false),
        ("https://*.a.org", "https://evil.org:1.a.org", false),
        ("https://*", "https://a.org", true),
        ("https://*", "https://a.org:8443", false),
        ("https://*:8443", "https://a.org:8443", true),
        ("https://*.a.org", "é", false),
    ] {
        assert_eq!(allows(allowed, origin), expected, "{origin} by {allowed}");
    }
}
