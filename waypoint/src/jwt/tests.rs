//! Where tokens are found, and what is taken out with them.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use mesh::request_authentication::TokenLocation;

use super::location::tokens;
use super::*;

#[test]
fn tokens_are_found_in_headers_parameters_and_cookies() {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("bearer  abc"));
    headers.append("authorization", HeaderValue::from_static("Basic x"));
    headers.insert("x-token", HeaderValue::from_static("raw"));
    headers.insert(COOKIE, HeaderValue::from_static("a=1; jwt=\"tok\"; b=2"));
    let query = Some("x=1&token=q&token=r&token=");
    let check = |location: TokenLocation, expected: &[&str]| {
        let found = tokens(&location, &headers, query).expect("readable");
        assert_eq!(found, expected, "{location:?}");
    };
    let header = |name: &str, prefix: &str| TokenLocation::Header {
        name: name.into(),
        prefix: prefix.into(),
    };
    check(header("authorization", "Bearer "), &["abc"]);
    check(header("x-token", ""), &["raw"]);
    check(header("x-none", ""), &[]);
    check(TokenLocation::Param("token".into()), &["q", "r"]);
    check(TokenLocation::Cookie("jwt".into()), &["tok"]);
    headers.insert(
        "x-token",
        HeaderValue::from_bytes(b"\xff").expect("a value"),
    );
    let unreadable = tokens(&header("x-token", ""), &headers, query);
    assert_eq!(unreadable, Err(TokenError::Form));
}

#[test]
fn a_document_without_a_usable_key_is_none() {
    for document in [
        "",
        "{}",
        "{\"keys\":[]}",
        "{\"keys\":[{\"kty\":\"new\"}]}",
        "[]",
    ] {
        assert!(KeySet::parse(document.as_bytes()).is_err(), "{document}");
    }
    let mixed = r#"{"keys":[{"kty":"new"},{"kty":"oct","k":"c2VjcmV0"}]}"#;
    assert_eq!(KeySet::parse(mixed.as_bytes()).expect("one key").len(), 1);
}

/// CVE-2026-48042: claims within claims within claims are no reason to run out of stack.
#[test]
fn claims_are_read_to_a_bounded_depth() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#);
    let deep = format!("{{\"iss\":{}", "[".repeat(10_000));
    let token = format!("{header}.{}.e30", URL_SAFE_NO_PAD.encode(deep));
    assert!(matches!(Token::parse(&token), Err(TokenError::Json)));
}
