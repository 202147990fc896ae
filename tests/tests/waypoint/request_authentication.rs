//! RequestAuthentication on live traffic: tokens, and policies about what they say.

use anyhow::ensure;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::shop::{self, expect, expect_status, shared};

const SECRET: &[u8] = b"a secret of a good length for it";
/// The same in base64url.
const KEY: &str = "YSBzZWNyZXQgb2YgYSBnb29kIGxlbmd0aCBmb3IgaXQ";

fn token(secret: &[u8], claims: &Value) -> String {
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".to_owned());
    let token = jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret));
    token.expect("a token")
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let mut claims = json!({
        "iss": "https://issuer", "sub": "alice", "aud": ["shop"], "exp": 4_000_000_000_u64,
        "group": "staff",
    });
    change(&mut claims);
    claims
}

/// Tokens of one issuer are accepted; staff may do all, and those without a token may read.
fn objects(name: &str) -> String {
    let service = shop::versions(name, "{app: guarded}");
    let target = format!("targetRefs: [{{group: \"\", kind: Service, name: {name}}}]");
    format!(
        "{service}---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: {name}, namespace: shop}}
spec:
  {target}
  jwtRules:
  - issuer: https://issuer
    audiences: [shop]
    jwks: '{{\"keys\": [{{\"kty\": \"oct\", \"alg\": \"HS256\", \"kid\": \"one\", \"k\": \"{KEY}\"}}]}}'
    fromHeaders: [{{name: authorization, prefix: 'Bearer '}}]
    fromParams: [access_token]
    outputClaimToHeaders: [{{header: x-group, claim: group}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: {name}, namespace: shop}}
spec:
  {target}
  rules:
  - to: [{{operation: {{methods: [GET]}}}}]
    when: [{{key: 'request.auth.claims[group]', notValues: [guest]}}]
  - from: [{{source: {{requestPrincipals: ['https://issuer/*']}}}}]
    when: [{{key: 'request.auth.claims[group]', values: [staff]}}]
"
    )
}

#[test]
fn tokens_decide() {
    let lab = shared();
    let name = "tokens";
    lab.write(&format!("{name}.yaml"), &objects(name))
        .expect("written");
    let url = format!("http://{name}.shop/x");
    let bearer = |claims: &Value| format!("authorization: Bearer {}", token(SECRET, claims));
    let staff = bearer(&claims(|_| {}));
    let guest = bearer(&claims(|one| one["group"] = json!("guest")));
    let expired = bearer(&claims(|one| one["exp"] = json!(1_000_000_000)));
    let elsewhere = bearer(&claims(|one| one["aud"] = json!(["bank"])));
    let stranger = bearer(&claims(|one| one["iss"] = json!("https://other")));
    let forged = token(b"another secret of a good length!", &claims(|_| {}));
    let forged = format!("authorization: Bearer {forged}");
    let malformed = "authorization: Bearer a.b".to_owned();
    for (method, header, status) in [
        ("POST", None, 403),
        ("POST", Some(&staff), 200),
        ("POST", Some(&guest), 403),
        ("GET", Some(&staff), 200),
        ("GET", Some(&guest), 403),
        ("GET", Some(&expired), 401),
        ("GET", Some(&elsewhere), 403),
        ("GET", Some(&stranger), 401),
        ("GET", Some(&forged), 401),
        ("GET", Some(&malformed), 401),
    ] {
        let mut arguments = vec![url.as_str(), "-X", method];
        arguments.extend(header.iter().flat_map(|header| ["-H", header.as_str()]));
        expect_status(lab, status, &arguments);
    }
    let with = format!("{url}?a=b&access_token={}", token(SECRET, &claims(|_| {})));
    let answer = expect(lab, &[&with, "-X", "PUT"], |answer| {
        ensure!(answer.status == 200);
        Ok(())
    });
    let seen = answer.seen.expect("ours");
    assert_eq!(
        (&*seen.path, seen.header("x-group")),
        ("/x?a=b", Some("staff"))
    );
}
