//! Tokens: which are accepted, which refused, and what they bring.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh::authorization::{Action, Scope, StringMatch};
use mesh::policy_target::PolicyTarget;
use mesh::request_authentication::{
    ClaimToHeader, JwtKeys, JwtRule, RequestAuthentication, TokenLocation,
};
use mesh::snapshot::Change;
use serde_json::{Value, json};

use super::harness::{Mesh, get, host, run};
use super::policies::policy;
use crate::message::Body;

const SECRET: &[u8] = b"a secret of a good length for it";

fn keys(id: &str, secret: &[u8]) -> String {
    let key = URL_SAFE_NO_PAD.encode(secret);
    json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": id, "k": key}]}).to_string()
}

fn bearer() -> TokenLocation {
    TokenLocation::Header {
        name: "authorization".into(),
        prefix: "Bearer ".into(),
    }
}

fn jwt_rule() -> JwtRule {
    JwtRule {
        issuer: "https://issuer".into(),
        audiences: vec![],
        keys: JwtKeys::Inline(keys("one", SECRET).into()),
        locations: vec![bearer(), TokenLocation::Param("access_token".into())],
        output_payload_to_header: None,
        output_claim_to_headers: vec![],
        forward_original_token: false,
        timeout: Duration::from_secs(5),
        space_delimited_claims: vec![],
    }
}

fn accepts(rules: Vec<JwtRule>) -> Change {
    Change::RequestAuthentication(RequestAuthentication {
        namespace: "shop".into(),
        name: "tokens".into(),
        scope: Scope::Target,
        targets: vec![PolicyTarget::Service(host("web"))],
        rules,
        unparsable: None,
    })
}

fn token_by(key: &str, secret: &[u8], claims: Value) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some(key.to_owned());
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).expect("a token")
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "sub": "alice", "aud": ["shop"], "exp": 4_000_000_000u64,
           "nested": {"id": 7}, "scope": "read write"})
}

fn token(claims: Value) -> String {
    token_by("one", SECRET, claims)
}

fn bearing(token: &str) -> Request<Body> {
    let mut request = get("/x");
    let value = HeaderValue::try_from(format!("Bearer {token}")).expect("a value");
    request.headers_mut().insert("authorization", value);
    request
}

#[test]
fn good_tokens_and_no_tokens_pass() {
    run(async || {
        let mesh = Mesh::new(vec![accepts(vec![jwt_rule()])]);
        assert_eq!(mesh.send(get("/x")).await.status, StatusCode::OK);
        assert_eq!(
            mesh.send(bearing(&token(claims()))).await.status,
            StatusCode::OK
        );
        // Taken out: it was for the mesh.
        assert!(!mesh.upstream.last().headers.contains_key("authorization"));
        let good = token(claims());
        let got = mesh
            .send(get(&format!("/x?a=1&access_token={good}&b=2")))
            .await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(mesh.upstream.last().uri, "http://web.shop/x?a=1&b=2");
        // Not a token of this kind.
        let mut basic = get("/x");
        let value = HeaderValue::from_static("Basic YTpi");
        basic.headers_mut().insert("authorization", value);
        assert_eq!(mesh.send(basic).await.status, StatusCode::OK);
        assert!(mesh.upstream.last().headers.contains_key("authorization"));
    });
}

/// CVE-2019-12995, CVE-2021-21378: what is malformed, or of an issuer that nobody configured, is not
/// passed over.
#[test]
fn bad_tokens_are_401_with_a_challenge() {
    run(async || {
        let mesh = Mesh::new(vec![accepts(vec![jwt_rule()])]);
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            token(claims)
        };
        let good = token(claims());
        let (head, signature) = good.rsplit_once('.').expect("three parts");
        let forged = token_by("one", b"another secret of a good length.", claims());
        let payload = good.split('.').nth(1).expect("a payload");
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let critical = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#);
        for (bad, why) in [
            ("x".to_owned(), "Jwt is not in the form"),
            (format!("{head}."), "Jwt verification fails"),
            (format!("{head}.AAAA{signature}"), "Jwt verification fails"),
            (forged, "Jwt verification fails"),
            (format!("{none}.{payload}."), "unsupported algorithm"),
            (
                format!("{critical}.{payload}.{signature}"),
                "not understood",
            ),
            (token_by("two", SECRET, claims()), "kid"),
            (with("exp", json!(1)), "Jwt is expired"),
            (with("exp", json!("never")), "invalid JSON"),
            (with("nbf", json!(4_000_000_000u64)), "not yet valid"),
            (
                with("iss", json!("https://other")),
                "issuer is not configured",
            ),
            (
                with("iss", json!(["https://issuer"])),
                "issuer is not configured",
            ),
        ] {
            let got = mesh.send(bearing(&bad)).await;
            assert_eq!(got.status, StatusCode::UNAUTHORIZED, "{why}: {bad}");
            let challenge = got.header("www-authenticate").expect("a challenge");
            assert!(
                challenge.starts_with("Bearer realm=\"http://web.shop/x\""),
                "{challenge}"
            );
            assert!(got.text().contains(why), "{} for {why}", got.text());
        }
        assert_eq!(mesh.upstream.seen().len(), 0);
        // Two values: whichever the service took, it would be a bad one's.
        let mut two = bearing(&good);
        let value = HeaderValue::from_static("Bearer x");
        two.headers_mut().append("authorization", value);
        assert_eq!(mesh.send(two).await.status, StatusCode::UNAUTHORIZED);
    });
}

#[test]
fn a_token_for_somebody_else_is_403() {
    run(async || {
        let mut rule = jwt_rule();
        rule.audiences = vec!["bank".into()];
        let mesh = Mesh::new(vec![accepts(vec![rule])]);
        let got = mesh.send(bearing(&token(claims()))).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN);
        assert_eq!(got.text(), "Audiences in Jwt are not allowed");
    });
}

#[test]
fn any_rule_may_accept() {
    run(async || {
        let mut other = jwt_rule();
        other.keys = JwtKeys::Inline(keys("one", b"another secret of a good length.").into());
        let mesh = Mesh::new(vec![accepts(vec![other, jwt_rule()])]);
        assert_eq!(
            mesh.send(bearing(&token(claims()))).await.status,
            StatusCode::OK
        );
    });
}

#[test]
fn claims_become_headers_that_no_client_can_set() {
    run(async || {
        let mut rule = jwt_rule();
        rule.forward_original_token = true;
        rule.output_payload_to_header = Some("x-payload".into());
        rule.output_claim_to_headers = [("x-user", "sub"), ("x-id", "nested.id"), ("x-no", "none")]
            .map(|(header, claim)| ClaimToHeader {
                header: header.into(),
                claim: claim.into(),
            })
            .into();
        let mesh = Mesh::new(vec![accepts(vec![rule])]);
        let good = token(claims());
        let mut request = bearing(&good);
        for name in ["x-user", "x-id", "x-no", "x-payload"] {
            let value = HeaderValue::from_static("forged");
            request.headers_mut().insert(name, value);
        }
        mesh.send(request).await;
        let seen = mesh.upstream.last().headers;
        assert_eq!(
            (&seen["x-user"], &seen["x-id"]),
            (&"alice".parse().unwrap(), &"7".parse().unwrap())
        );
        assert_eq!(
            seen["x-payload"],
            good.split('.').nth(1).expect("a payload")
        );
        assert!(!seen.contains_key("x-no") && seen.contains_key("authorization"));
        let mut anonymous = get("/");
        let value = HeaderValue::from_static("forged");
        anonymous.headers_mut().insert("x-user", value);
        mesh.send(anonymous).await;
        assert!(!mesh.upstream.last().headers.contains_key("x-user"));
    });
}

#[test]
fn policies_see_what_tokens_say() {
    run(async || {
        let mut allow = policy("alice", Action::Allow, "/*");
        let one = &mut allow.rules[0].clauses[0].matches[0];
        let mut request = mesh::authorization::RequestMatch::clone(one.request.as_ref().unwrap());
        request.request_principals = vec![StringMatch::Exact("https://issuer/alice".into())];
        one.request = Some(Arc::new(request));
        let mesh = Mesh::new(vec![
            accepts(vec![jwt_rule()]),
            Change::AuthorizationPolicy(allow),
        ]);
        assert_eq!(
            mesh.send(bearing(&token(claims()))).await.status,
            StatusCode::OK
        );
        assert_eq!(mesh.send(get("/x")).await.status, StatusCode::FORBIDDEN);
    });
}

#[test]
fn a_policy_that_could_not_be_understood_refuses_all() {
    run(async || {
        let Change::RequestAuthentication(mut policy) = accepts(vec![]) else {
            unreachable!()
        };
        policy.unparsable = Some("a rule of the future".into());
        let mesh = Mesh::new(vec![Change::RequestAuthentication(policy)]);
        assert_eq!(mesh.send(get("/x")).await.status, StatusCode::FORBIDDEN);
    });
}

fn document(text: String) -> impl FnOnce() -> Response<Body> {
    move || Response::new(Body::Full(Bytes::from(text)))
}

#[test]
fn keys_are_fetched_from_the_mesh_once_and_again_for_a_new_one() {
    run(async || {
        let mut rule = jwt_rule();
        rule.keys = JwtKeys::Uri("http://other.shop.svc.cluster.local/keys".into());
        let mesh = Mesh::new(vec![accepts(vec![rule])]);
        mesh.upstream.respond(document(keys("one", SECRET)));
        for _ in 0..3 {
            let got = mesh.send(bearing(&token(claims()))).await;
            assert_eq!(got.status, StatusCode::OK);
        }
        let fetches = |mesh: &Mesh| {
            let seen = mesh.upstream.seen();
            seen.iter()
                .filter(|seen| seen.workload == "other-0")
                .count()
        };
        assert_eq!(fetches(&mesh), 1);
        tokio::time::sleep(Duration::from_secs(11)).await;
        let rotated = b"the next secret of a good length";
        mesh.upstream.respond(document(keys("two", rotated)));
        let got = mesh
            .send(bearing(&token_by("two", rotated, claims())))
            .await;
        assert_eq!((got.status, fetches(&mesh)), (StatusCode::OK, 2));
        // Made up keys don't make us fetch at their pace.
        let got = mesh
            .send(bearing(&token_by("three", rotated, claims())))
            .await;
        assert_eq!((got.status, fetches(&mesh)), (StatusCode::UNAUTHORIZED, 2));
    });
}

/// CVE-2026-31837: there are no other keys to fall back on.
#[test]
fn keys_by_discovery_and_keys_that_can_not_be_had() {
    run(async || {
        let mut rule = jwt_rule();
        rule.issuer = "http://other.shop.svc.cluster.local".into();
        rule.keys = JwtKeys::Discovery;
        let mesh = Mesh::new(vec![accepts(vec![rule])]);
        let mut claims = claims();
        claims["iss"] = json!("http://other.shop.svc.cluster.local");
        let good = token(claims);
        // A redirect is not followed: nobody is sent to addresses that are blocked.
        mesh.upstream.respond(|| {
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::FOUND;
            let to = HeaderValue::from_static("http://127.0.0.1/");
            response.headers_mut().insert("location", to);
            response
        });
        let got = mesh.send(bearing(&good)).await;
        assert_eq!(got.status, StatusCode::UNAUTHORIZED);
        assert_eq!(got.text(), "Jwks remote fetch is failed");
        tokio::time::sleep(Duration::from_secs(2)).await;
        let jwks_uri = "http://other.shop.svc.cluster.local/keys";
        mesh.upstream
            .respond(document(json!({"jwks_uri": jwks_uri}).to_string()))
            .respond(document(keys("one", SECRET)));
        assert_eq!(mesh.send(bearing(&good)).await.status, StatusCode::OK);
        let seen = mesh.upstream.seen();
        let uri = "http://other.shop.svc.cluster.local/.well-known/openid-configuration";
        assert!(seen.iter().any(|seen| seen.uri == uri), "{seen:?}");
    });
}

/// GHSA-fgw5-hp8f-xfhc.
#[test]
fn documents_are_bounded_and_blocked_addresses_never_dialled() {
    run(async || {
        let refused = async |uri: &str| {
            let mut rule = jwt_rule();
            rule.keys = JwtKeys::Uri(uri.into());
            let mesh = Mesh::new(vec![accepts(vec![rule])]);
            mesh.upstream.respond(document(" ".repeat((1 << 20) + 1)));
            let got = mesh.send(bearing(&token(claims()))).await;
            assert_eq!(got.status, StatusCode::UNAUTHORIZED);
            mesh.shared.jwks.dump()[0]["failure"].to_string()
        };
        let failure = refused("http://other.shop.svc.cluster.local/keys").await;
        assert!(failure.contains("larger than"), "{failure}");
        for blocked in [
            "http://127.0.0.1:1/",
            "http://169.254.169.254/",
            "https://[::1]/",
        ] {
            let failure = refused(blocked).await;
            assert!(failure.contains("never dialled"), "{failure}");
        }
        let failure = refused("file:///etc/passwd").await;
        assert!(failure.contains("no http"), "{failure}");
    });
}

#[test]
fn a_token_that_was_verified_expires_and_is_forgotten_with_its_keys() {
    run(async || {
        let mesh = Mesh::new(vec![accepts(vec![jwt_rule()])]);
        let good = bearing(&token(claims()));
        let again = || {
            let mut request = get("/x");
            *request.headers_mut() = good.headers().clone();
            request
        };
        for _ in 0..3 {
            assert_eq!(mesh.send(again()).await.status, StatusCode::OK);
        }
        // One that differs in its signature only.
        let forged = token_by("one", b"another secret, as long as it is", claims());
        let refused = mesh.send(bearing(&forged)).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        // The same token, for another audience.
        let mut narrow = jwt_rule();
        narrow.audiences = vec!["elsewhere".into()];
        mesh.apply(vec![accepts(vec![narrow])]);
        assert_eq!(mesh.send(again()).await.status, StatusCode::FORBIDDEN);
        // Keys were rotated.
        let mut rotated = jwt_rule();
        rotated.keys = JwtKeys::Inline(keys("one", b"a new secret of a good length, too").into());
        mesh.apply(vec![accepts(vec![rotated])]);
        assert_eq!(mesh.send(again()).await.status, StatusCode::UNAUTHORIZED);
        mesh.apply(vec![accepts(vec![jwt_rule()])]);
        assert_eq!(mesh.send(again()).await.status, StatusCode::OK);
    });
}
