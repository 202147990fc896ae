//! Tokens that are taken, and all the ways in which one can be wrong.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ca::tests::TokenIssuer;

fn claims() -> Value {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    json!({
        "iss": "weft",
        "aud": ["istio-ca"],
        "sub": "system:serviceaccount:weft-system:ztunnel",
        "iat": now,
        "exp": now + 3600,
        "kubernetes.io": {
            "namespace": "weft-system",
            "serviceaccount": {"name": "ztunnel", "uid": "a"},
            "pod": {"name": "ztunnel-node-1", "uid": "u1"},
            "node": {"name": "node-1", "uid": "n1"},
        },
    })
}

fn changed(path: &[&str], value: Value) -> Value {
    let mut claims = claims();
    let mut at = &mut claims;
    for key in path {
        at = &mut at[*key];
    }
    *at = value;
    claims
}

#[test]
fn a_node_token_names_account_pod_and_node() {
    let issuer = TokenIssuer::new();
    let claims = claims();
    let caller = issuer
        .authenticator()
        .verify(&issuer.sign(&claims))
        .expect("taken");
    let expiry = claims["exp"].as_u64().expect("seconds") + LEEWAY_SECONDS;
    assert_eq!(
        caller,
        Caller {
            namespace: "weft-system".to_owned(),
            service_account: "ztunnel".to_owned(),
            pod: Some(PodReference {
                name: "ztunnel-node-1".to_owned(),
                uid: "u1".to_owned(),
            }),
            node: Some("node-1".to_owned()),
            expires: UNIX_EPOCH + Duration::from_secs(expiry),
        }
    );
}

#[test]
fn wrong_claims_are_refused() {
    let issuer = TokenIssuer::new();
    let authenticator = issuer.authenticator();
    for (path, value) in [
        (&["iss"][..], json!("kubernetes")),
        (&["iss"], Value::Null),
        (&["aud"], json!(["api"])),
        (&["aud"], json!([])),
        (&["aud"], Value::Null),
        (&["exp"], json!(1_000_000)),
        (&["exp"], Value::Null),
        (&["exp"], json!("soon")),
        (&["nbf"], json!(99_999_999_999_u64)),
        (&["sub"], json!("system:serviceaccount:shop:web")),
        (&["sub"], json!("")),
        (&["kubernetes.io"], Value::Null),
        (&["kubernetes.io", "namespace"], json!("shop")),
        (&["kubernetes.io", "serviceaccount", "name"], json!("web")),
        (&["kubernetes.io", "pod"], json!({"name": "no uid"})),
        (&["kubernetes.io", "pod"], json!("text")),
    ] {
        let token = issuer.sign(&changed(path, value.clone()));
        authenticator
            .verify(&token)
            .expect_err(&format!("{path:?} = {value}"));
    }
}

#[test]
fn signatures_of_others_and_other_algorithms_are_refused() {
    let (ours, theirs) = (TokenIssuer::new(), TokenIssuer::new());
    let authenticator = ours.authenticator();
    authenticator
        .verify(&theirs.sign(&claims()))
        .expect_err("another issuer's key");
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let none = encode(json!({"alg": "none"}));
    let body = encode(claims());
    authenticator
        .verify(&format!("{none}.{body}."))
        .expect_err("not signed");
    let shared = jsonwebtoken::encode(
        &jsonwebtoken::Header::new(Algorithm::HS256),
        &claims(),
        &jsonwebtoken::EncodingKey::from_secret(&ours.public_pem()),
    )
    .expect("signed");
    authenticator
        .verify(&shared)
        .expect_err("the public key is no shared secret");
    let token = ours.sign(&claims());
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let other = ours.sign(&changed(&["exp"], json!(9_999_999_999_u64)));
    let (_, others) = other.rsplit_once('.').expect("three parts");
    assert_ne!(signature, others);
    authenticator
        .verify(&format!("{signed}.{others}"))
        .expect_err("a signature of something else");
}

#[test]
fn malformed_tokens_never_panic() {
    let issuer = TokenIssuer::new();
    let authenticator = issuer.authenticator();
    let token = issuer.sign(&claims());
    for end in 0..token.len() {
        authenticator.verify(&token[..end]).expect_err("cut");
    }
    for at in (0..token.len()).step_by(7) {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'!' { b'?' } else { b'!' };
        let broken = String::from_utf8(bytes).expect("ASCII");
        authenticator.verify(&broken).expect_err("broken");
    }
    for rubbish in ["", ".", "..", "...", "a.b.c", "\u{1F600}.\u{1F600}.x"] {
        authenticator.verify(rubbish).expect_err("rubbish");
    }
    let error = authenticator
        .verify(&"x".repeat(MAX_BYTES + 1))
        .expect_err("too large");
    assert!(matches!(error, TokenError::Size));
}

#[test]
fn only_a_bearer_header_is_looked_at() {
    let issuer = TokenIssuer::new();
    let authenticator = issuer.authenticator();
    let token = issuer.sign(&claims());
    let metadata = |value: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("authorization", value.parse().expect("a value"));
        metadata
    };
    authenticator
        .authenticate(&metadata(&format!("Bearer {token}")))
        .expect("taken");
    for header in [token.clone(), format!("Basic {token}"), "Bearer".to_owned()] {
        let error = authenticator
            .authenticate(&metadata(&header))
            .expect_err("no bearer");
        assert!(matches!(error, TokenError::Missing), "{error}");
    }
    let error = authenticator
        .authenticate(&MetadataMap::new())
        .expect_err("nothing");
    assert!(matches!(error, TokenError::Missing), "{error}");
}

#[test]
fn the_issuers_key_is_read_again_when_it_changes() {
    let (first, second) = (TokenIssuer::new(), TokenIssuer::new());
    let authenticator = first.authenticator();
    authenticator.verify(&first.sign(&claims())).expect("taken");
    fs::write(first.path(), second.public_pem()).expect("written");
    authenticator
        .verify(&second.sign(&claims()))
        .expect("taken");
    authenticator
        .verify(&first.sign(&claims()))
        .expect_err("rotated out");
    fs::write(first.path(), "rubbish").expect("written");
    let error = authenticator
        .verify(&second.sign(&claims()))
        .expect_err("no key");
    assert!(matches!(error, TokenError::IssuerKey { .. }), "{error}");
    fs::remove_file(first.path()).expect("removed");
    let error = authenticator
        .verify(&second.sign(&claims()))
        .expect_err("no file");
    assert!(matches!(error, TokenError::IssuerKey { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whoever reaches the port may show any token, before anything is known of them.
    #[test]
    fn cve_2022_23635_no_token_of_a_stranger_s_panics_or_is_taken(
        parts in prop::collection::vec(prop_oneof![".*", "[.=A-Za-z0-9_-]{0,60}"], 0..5),
        header in prop_oneof![Just(r#"{"alg":"ES256"}"#.to_owned()), Just(r#"{"alg":"none"}"#.to_owned()), ".*"],
        claims in prop_oneof![Just(claims().to_string()), ".*", Just("[".repeat(2000))],
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let issuer = TokenIssuer::new();
        let authenticator = issuer.authenticator();
        authenticator.verify(&parts.join(".")).expect_err("a stranger's");
        let encoded = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
        let token = [header.as_bytes(), claims.as_bytes(), &signature].map(encoded).join(".");
        authenticator.verify(&token).expect_err("a stranger's");
    }
}
