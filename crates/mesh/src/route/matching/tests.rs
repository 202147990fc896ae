//! Matches against requests, and their order.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use proptest::prelude::*;

use crate::request::Request;
use crate::route::{
    HeaderMatch, HttpMatch, PathMatch, Pattern, QueryParamMatch, RouteKind, ValueMatch,
};

/// A request, to be borrowed from.
struct Sent {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

fn get(uri: &str) -> Sent {
    Sent {
        method: Method::GET,
        uri: uri.parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

impl Sent {
    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        let value = HeaderValue::from_bytes(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            host: "web.shop",
            port: Some(8080),
            path: self.uri.path(),
            query: self.uri.query(),
            headers: &self.headers,
            remote_ip: [10, 0, 0, 1].into(),
            claims: None,
        }
    }
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap()
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::PathPrefix(path.into())
}

fn of_path(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path: Some(path),
        ..HttpMatch::default()
    }
}

fn header(name: &'static str, value: ValueMatch) -> HeaderMatch {
    let name = HeaderName::from_static(name);
    HeaderMatch { name, value }
}

fn param(name: &str, value: ValueMatch) -> QueryParamMatch {
    let name = name.into();
    QueryParamMatch { name, value }
}

fn value(exact: &str) -> ValueMatch {
    ValueMatch::Exact(exact.into())
}

#[test]
fn paths_match_as_gateway_api_says() {
    let table = [
        (prefix("/"), "/", true),
        (prefix("/"), "/anything/at/all", true),
        (prefix("/"), "*", false),
        (prefix("/abc"), "/abc", true),
        (prefix("/abc"), "/abc/", true),
        (prefix("/abc"), "/abc/def", true),
        (prefix("/abc"), "/abcd", false),
        (prefix("/abc"), "/ABC", false),
        (prefix("/abc"), "/ab", false),
        (prefix("/abc/"), "/abc", true),
        (prefix("/abc/"), "/abc/def", true),
        (prefix("/abc/"), "/abcd", false),
        (prefix("/abc/def"), "/abc/d", false),
        (prefix("/abc"), "/x/abc", false),
        (exact("/abc"), "/abc", true),
        (exact("/abc"), "/abc/", false),
        (exact("/abc/"), "/abc", false),
        (exact("/"), "/", true),
        (exact("/"), "/a", false),
        (PathMatch::StringPrefix("/ab".into()), "/abc", true),
        (PathMatch::StringPrefix("/ab".into()), "/a", false),
        (PathMatch::RegularExpression(pattern("/a|/b")), "/a", true),
        (
            PathMatch::RegularExpression(pattern("/a|/b")),
            "/b/c",
            false,
        ),
        (
            PathMatch::RegularExpression(pattern("/a|/b")),
            "/x/b",
            false,
        ),
        (PathMatch::RegularExpression(pattern("/a.*")), "/a/b", true),
    ];
    for (path, of, expected) in table {
        assert_eq!(path.matches(of), expected, "{path:?} of {of}");
    }
}

#[test]
fn all_of_a_match_must_hold() {
    let of = HttpMatch {
        path: Some(prefix("/a")),
        method: Some(Method::GET),
        headers: vec![header("version", value("2"))],
        query_params: vec![param("q", value("1"))],
    };
    let holds = |sent: Sent| of.matches(&sent.request());
    assert!(holds(get("/a?q=1").header("version", b"2")));
    assert!(!holds(get("/b?q=1").header("version", b"2")));
    assert!(!holds(get("/a?q=2").header("version", b"2")));
    assert!(!holds(get("/a?q=1").header("version", b"3")));
    assert!(!holds(get("/a?q=1")));
    let post = Sent {
        method: Method::POST,
        ..get("/a?q=1").header("version", b"2")
    };
    assert!(!holds(post));
    assert!(HttpMatch::default().matches(&get("/").request()));
}

#[test]
fn header_values_match_bytewise_and_joined() {
    let check = |of: ValueMatch, sent: Sent, expected: bool| {
        let matched = header("color", of.clone()).matches(&sent.request());
        assert_eq!(matched, expected, "{of:?} of {:?}", sent.headers);
    };
    let color = |text: &[u8]| get("/").header("color", text);
    check(value("blue"), color(b"blue"), true);
    check(value("blue"), color(b"Blue"), false);
    check(value("blue"), color(b"blue,green"), false);
    check(
        value("blue,green"),
        color(b"blue").header("color", b"green"),
        true,
    );
    check(
        value("blue"),
        color(b"blue").header("color", b"green"),
        false,
    );
    check(ValueMatch::Prefix("bl".into()), color(b"blue"), true);
    check(ValueMatch::Present, color(b""), true);
    check(ValueMatch::Present, get("/"), false);
    let expression = ValueMatch::RegularExpression(pattern("b.*e"));
    check(expression.clone(), color(b"blue"), true);
    check(expression.clone(), color(b"blue-ish"), false);
    // CVE-2026-73552: bytes that are not UTF-8 are no reason to see no value.
    check(
        ValueMatch::RegularExpression(pattern("(?s-u)b.*")),
        color(b"b\xff\xfe"),
        true,
    );
    check(ValueMatch::Present, color(b"\xff"), true);
}

#[test]
fn patterns_stay_within_their_anchors() {
    assert!(Pattern::new("a)|(b").is_err());
    assert!(Pattern::new("a)|(?:b").is_err());
    assert!(!pattern("(?m)a$").matches(b"a\nb"));
    assert!(!pattern("a|b").matches(b"ab"));
}

/// CVE-2019-14993, CVE-2022-39278, bulletin ISTIO-SECURITY-2026-006: a pattern costs what its length
/// says, whoever wrote it and whatever is held against it.
#[test]
fn patterns_are_bounded_in_length_size_and_depth() {
    let long = "a".repeat(64 << 10);
    for text in ["(a+)+b", "(a|a)*b", "(.*)*(.*)*b", "(?:a?){50}a{50}b"] {
        assert!(!pattern(text).matches(long.as_bytes()), "{text}");
    }
    let deep = |depth: usize| format!("{}{}", "(".repeat(depth), ")".repeat(depth));
    for text in [
        "a".repeat(Pattern::MAX_LENGTH + 1),
        "a{1000000}".to_owned(),
        "((a{100}){100}){100}".to_owned(),
        deep(400),
    ] {
        Pattern::new(&text).expect_err("too large");
    }
}

#[test]
fn host_is_the_authority_and_not_a_header() {
    let sent = get("/").header("host", b"other");
    for (host, expected) in [
        ("web.shop", true),
        ("web.shop:8080", true),
        ("other", false),
    ] {
        let matched = header("host", value(host)).matches(&sent.request());
        assert_eq!(matched, expected, "{host}");
    }
}

#[test]
fn only_the_first_entry_of_a_name_counts() {
    let of = HttpMatch {
        headers: vec![header("a", value("1")), header("a", value("2"))],
        query_params: vec![param("q", value("1")), param("q", value("2"))],
        ..HttpMatch::default()
    };
    assert!(of.matches(&get("/?q=1").header("a", b"1").request()));
    assert!(!of.matches(&get("/?q=2").header("a", b"2").request()));
    let once = HttpMatch {
        headers: vec![header("a", value("1"))],
        query_params: vec![param("q", value("1"))],
        ..HttpMatch::default()
    };
    assert_eq!(
        of.precedence(RouteKind::Http),
        once.precedence(RouteKind::Http)
    );
}

#[test]
fn query_parameters_match_decoded() {
    let table = [
        ("animal", value("whale"), "/?animal=whale", true),
        ("animal", value("whale"), "/?x=1&animal=whale", true),
        (
            "animal",
            value("whale"),
            "/?animal=dolphin&animal=whale",
            false,
        ),
        ("animal", value("whale"), "/?animal=wh%61le", true),
        ("animal", value("whale"), "/?anim%61l=whale", true),
        ("animal", value("whale"), "/?Animal=whale", false),
        ("animal", value("whale"), "/", false),
        ("animal", value(""), "/?animal", true),
        ("animal", value("a=b"), "/?animal=a=b", true),
        ("animal", value("a+b"), "/?animal=a+b", true),
        ("animal", value("a b"), "/?animal=a%20b", true),
        ("animal", value("100%"), "/?animal=100%", true),
        ("animal", value("%zz"), "/?animal=%zz", true),
        ("animal", value("a&b"), "/?animal=a%26b", true),
        ("animal", ValueMatch::Present, "/?&&animal&", true),
    ];
    for (name, of, uri, expected) in table {
        let matched = param(name, of).matches(get(uri).request().query);
        assert_eq!(matched, expected, "{uri}");
    }
}

#[test]
fn http_precedence_is_the_order_of_the_specification() {
    let base = |path: Option<PathMatch>| HttpMatch {
        path,
        ..HttpMatch::default()
    };
    let mut more_headers = base(Some(prefix("/a")));
    more_headers.headers = vec![header("a", value("1")), header("b", value("1"))];
    let mut one_header = base(Some(prefix("/a")));
    one_header.headers = vec![header("a", value("1"))];
    let mut header_and_params = one_header.clone();
    header_and_params.query_params = vec![param("q", value("1"))];
    let mut params = base(Some(prefix("/a")));
    params.query_params = vec![param("q", value("1")), param("r", value("1"))];
    let mut method = base(Some(prefix("/a")));
    method.method = Some(Method::GET);
    let descending = [
        base(Some(exact("/a"))),
        base(Some(prefix("/a/b"))),
        method,
        more_headers,
        header_and_params,
        one_header,
        params,
        base(Some(prefix("/a"))),
        base(Some(prefix("/"))),
        base(Some(PathMatch::RegularExpression(pattern("/a/b/c.*")))),
        base(None),
    ];
    for pair in descending.windows(2) {
        let [first, second] = [&pair[0], &pair[1]].map(|of| of.precedence(RouteKind::Http));
        assert!(first > second, "{:?} over {:?}", pair[0], pair[1]);
    }
}

#[test]
fn grpc_precedence_counts_service_then_method_then_headers() {
    let expression = |text| of_path(PathMatch::RegularExpression(pattern(text)));
    let mut with_header = of_path(exact("/shop.Cart/Add"));
    with_header.headers = vec![header("a", value("1"))];
    let descending = [
        of_path(exact("/shop.LongCart/A")),
        of_path(exact("/shop.Cart/AddOne")),
        with_header,
        of_path(exact("/shop.Cart/Add")),
        of_path(prefix("/shop.Cart")),
        of_path(exact("/a/AddEverything")),
        expression("/[^/]+/AddEverything"),
        expression("/[^/]+/Add"),
        HttpMatch::default(),
    ];
    for pair in descending.windows(2) {
        let [first, second] = [&pair[0], &pair[1]].map(|of| of.precedence(RouteKind::Grpc));
        assert!(first > second, "{:?} over {:?}", pair[0], pair[1]);
    }
}

proptest! {
    /// Segment by segment, as the specification words it.
    #[test]
    fn prefixes_cover_whole_segments(prefix_of in "(/[ab]{0,2}){1,3}", path in "(/[ab]{0,2}){1,4}") {
        let segments = |text: &str| -> Vec<String> {
            let text = text.strip_prefix('/').unwrap();
            text.split('/').map(str::to_owned).collect()
        };
        let trimmed = prefix_of.strip_suffix('/').unwrap_or(&prefix_of);
        let expected = trimmed.is_empty() || segments(&path).starts_with(&segments(trimmed));
        prop_assert_eq!(prefix(&prefix_of).matches(&path), expected);
    }

    #[test]
    fn no_query_panics(query in "\\PC*") {
        let _ = param("a", value("b")).matches(Some(&query));
    }
}
