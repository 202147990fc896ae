//! JSON Web Tokens (RFC 7519, RFC 7515): read, matched to a rule, verified. Keys and the time are
//! the caller's.
//!
//! - [`location`]: where requests carry tokens.

pub mod location;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::request::Claims;
use crate::request_authentication::JwtRule;

/// Clocks may differ by so many seconds (as Envoy has it).
const CLOCK_SKEW: f64 = 60.0;
/// Bytes of a token.
const LONGEST: usize = 16 << 10;

/// A token whose signature was not looked at.
pub struct Token<'a> {
    text: &'a str,
    header: Header,
    pub payload: &'a str,
    claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    /// Extensions that must be understood (RFC 7515 §4.1.11); none is.
    crit: Option<Value>,
}

/// Keys of one issuer, as they are used.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// Why a token is refused. The words are those that Istio's users search for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    #[error("Jwt header or payload is an invalid JSON")]
    Json,
    #[error("Jwt header has an unsupported algorithm")]
    Algorithm,
    #[error("Jwt header has extensions that are not understood")]
    Critical,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Jwt is expired")]
    Expired,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    UnknownKey,
    #[error("Jwt verification fails")]
    Signature,
    #[error("Jwks remote fetch is failed")]
    KeysUnavailable,
}

/// What is wrong with a JWKS document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeySetError(String);

// === impl Token ===

impl<'a> Token<'a> {
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > LONGEST {
            return Err(TokenError::Form);
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Form);
        };
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Json);
        let header: Value =
            serde_json::from_slice(&decoded(header)?).map_err(|_| TokenError::Json)?;
        let header: Header = serde_json::from_value(header).map_err(|_| TokenError::Algorithm)?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let claims = serde_json::from_slice(&decoded(payload)?).map_err(|_| TokenError::Json)?;
        Ok(Self {
            text,
            header,
            payload,
            claims,
        })
    }

    /// As it was presented.
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// Whether the rule is about this token's issuer.
    pub fn is_of(&self, rule: &JwtRule) -> bool {
        self.claims.get("iss").and_then(Value::as_str) == Some(&rule.issuer)
    }

    /// What can be checked without a key. `now` is in seconds since the Unix epoch.
    pub fn check_claims(&self, rule: &JwtRule, now: f64) -> Result<(), TokenError> {
        let time = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(TokenError::Json),
        };
        if time("nbf")?.is_some_and(|from| from > now + CLOCK_SKEW) {
            return Err(TokenError::NotYetValid);
        }
        if time("exp")?.is_some_and(|until| until < now - CLOCK_SKEW) {
            return Err(TokenError::Expired);
        }
        let audiences = audiences(&self.claims);
        // `https://a/` and `https://a` are written for each other.
        let same =
            |one: &str, other: &str| one.trim_end_matches('/') == other.trim_end_matches('/');
        let allowed = rule.audiences.is_empty()
            || rule
                .audiences
                .iter()
                .any(|allowed| audiences.iter().any(|audience| same(allowed, audience)));
        allowed.then_some(()).ok_or(TokenError::Audience)
    }

    pub fn verify(&self, keys: &KeySet) -> Result<(), TokenError> {
        let (message, signature) = self.text.rsplit_once('.').ok_or(TokenError::Form)?;
        let mut error = TokenError::UnknownKey;
        for key in &keys.0 {
            let other_id = match (&self.header.kid, &key.id) {
                (Some(wanted), Some(id)) => wanted != id,
                (None, _) | (_, None) => false,
            };
            let other_algorithm = key
                .algorithm
                .is_some_and(|algorithm| algorithm != self.header.alg);
            if other_id || other_algorithm || key.key.family() != self.header.alg.family() {
                continue;
            }
            let verified = jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &key.key,
                self.header.alg,
            );
            match verified {
                Ok(true) => return Ok(()),
                Ok(false) | Err(_) => error = TokenError::Signature,
            }
        }
        Err(error)
    }

    /// What a verified token says.
    pub fn claims(&self, rule: &JwtRule) -> Claims {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str);
        let always = ["scope", "permission"].map(Arc::<str>::from);
        let more = rule.space_delimited_claims.iter().cloned();
        Claims {
            issuer: rule.issuer.clone(),
            subject: text("sub").unwrap_or_default().into(),
            audiences: audiences(&self.claims).into_iter().map(Arc::from).collect(),
            presenter: text("azp").map(Arc::from),
            all: self.claims.clone(),
            space_delimited: always.into_iter().chain(more).collect(),
        }
    }
}

fn audiences(claims: &Map<String, Value>) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        Some(_) | None => Vec::new(),
    }
}

// === impl KeySet ===

impl KeySet {
    /// How many can be used.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a JWKS document (RFC 7517); keys of kinds that are not supported are left out.
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let document: Document =
            serde_json::from_slice(document).map_err(|error| KeySetError(error.to_string()))?;
        let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() {
            return Err(KeySetError("no key that can be used".to_owned()));
        }
        Ok(Self(keys))
    }
}

// === impl Key ===

impl Key {
    fn read(value: Value) -> Option<Self> {
        let set = JwkSet {
            keys: vec![serde_json::from_value(value).ok()?],
        };
        let jwk = set.keys.first()?;
        if jwk.common.public_key_use == Some(jsonwebtoken::jwk::PublicKeyUse::Encryption) {
            return None;
        }
        let algorithm = match jwk.common.key_algorithm {
            None => None,
            // A key that is for something else is for no token.
            Some(algorithm) => Some(algorithm.to_string().parse().ok()?),
        };
        Some(Self {
            id: jwk.common.key_id.clone(),
            algorithm,
            key: DecodingKey::from_jwk(jwk).ok()?,
        })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::request_authentication::JwtKeys;

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let now = 1_000_000.0;
        let rule = JwtRule {
            issuer: "https://issuer".into(),
            audiences: Vec::new(),
            keys: JwtKeys::Discovery,
            locations: Vec::new(),
            output_payload_to_header: None,
            output_claim_to_headers: Vec::new(),
            forward_original_token: false,
            timeout: Duration::from_secs(5),
            space_delimited_claims: Vec::new(),
        };
        for (claim, seconds, expected) in [
            ("exp", -60.0, Ok(())),
            ("exp", -61.0, Err(TokenError::Expired)),
            ("nbf", 60.0, Ok(())),
            ("nbf", 61.0, Err(TokenError::NotYetValid)),
        ] {
            let claims = json!({ "iss": "https://issuer", claim: now + seconds });
            let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let header = encoded(&json!({ "alg": "RS256" }));
            let text = format!("{header}.{}.", encoded(&claims));
            let token = Token::parse(&text).expect("a token");
            let checked = token.check_claims(&rule, now);
            assert_eq!(checked, expected, "{claim} {seconds}");
        }
    }
}
