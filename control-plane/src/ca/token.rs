//! Who asks: the service account token of a pod, signed by the cluster's (or the machine's) token issuer.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boring::pkey::PKey;
use identity::key::{KeyKind, PublicKey};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use tonic::metadata::MetadataMap;

const ISSUER: &str = "weft";
const AUDIENCE: &str = "istio-ca";
/// Clocks of one cluster may differ by this much.
const LEEWAY_SECONDS: u64 = 10;
/// Far beyond any token Kubernetes makes.
const MAX_BYTES: usize = 8 * 1024;

/// Checks tokens against the issuer's public key, which is read anew when its file changes.
pub struct Authenticator {
    issuer_key: PathBuf,
    key: Mutex<Option<IssuerKey>>,
}

struct IssuerKey {
    pem: Vec<u8>,
    key: DecodingKey,
}

/// An authenticated service account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub namespace: String,
    pub service_account: String,
    /// The pod the token is bound to.
    pub pod: Option<PodReference>,
    /// The node the token says that pod is on.
    pub node: Option<String>,
    /// When the token is no longer accepted.
    pub expires: SystemTime,
}

/// A pod as a token names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PodReference {
    pub name: String,
    pub uid: String,
}

/// Why a caller is nobody. The caller is told nothing of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("no bearer token")]
    Missing,
    #[error("the token is larger than {MAX_BYTES} bytes")]
    Size,
    #[error("the token does not verify: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    #[error("the token's expiry {0} is no time")]
    Expiry(u64),
    #[error("the token's subject {0:?} is not the service account of its claims")]
    Subject(String),
    #[error("the token issuer's key in {path} can't be used: {reason}")]
    IssuerKey { path: PathBuf, reason: String },
}

/// The claims of a Kubernetes bound service account token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(rename = "kubernetes.io")]
    kubernetes: KubernetesClaims,
}

#[derive(Deserialize)]
struct KubernetesClaims {
    namespace: String,
    serviceaccount: Named,
    pod: Option<PodReference>,
    node: Option<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

// === impl Authenticator ===

impl Authenticator {
    /// Trusts tokens signed with the private half of the ES256 key in this PEM file.
    pub fn new(issuer_key: impl Into<PathBuf>) -> Self {
        Self {
            issuer_key: issuer_key.into(),
            key: Mutex::new(None),
        }
    }

    /// The account behind a request's `authorization` header.
    pub fn authenticate(&self, metadata: &MetadataMap) -> Result<Caller, TokenError> {
        let token = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .ok_or(TokenError::Missing)?;
        self.verify(token)
    }

    fn verify(&self, token: &str) -> Result<Caller, TokenError> {
        if token.len() > MAX_BYTES {
            return Err(TokenError::Size);
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let claims: Claims = jsonwebtoken::decode(token, &self.issuer_key()?, &validation)?.claims;
        claims.caller()
    }

    fn issuer_key(&self) -> Result<DecodingKey, TokenError> {
        let unusable = |reason: String| TokenError::IssuerKey {
            path: self.issuer_key.clone(),
            reason,
        };
        // Two hundred bytes of a file in memory: reading them is cheaper than missing a rotation.
        let pem = fs::read(&self.issuer_key).map_err(|error| unusable(error.to_string()))?;
        let mut cached = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = cached.as_ref().filter(|known| known.pem == pem) {
            return Ok(known.key.clone());
        }
        let key = PKey::public_key_from_pem(&pem)
            .map_err(|error| error.to_string())
            .and_then(|key| PublicKey::new(&key).map_err(|error| error.to_string()))
            .map_err(unusable)?;
        if key.kind() != KeyKind::P256 {
            return Err(unusable("it is no ECDSA P-256 key".to_owned()));
        }
        let key = DecodingKey::from_ec_der(key.bits());
        *cached = Some(IssuerKey {
            pem,
            key: key.clone(),
        });
        Ok(key)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authenticator({})", self.issuer_key.display())
    }
}

// === impl Claims ===

impl Claims {
    fn caller(self) -> Result<Caller, TokenError> {
        let KubernetesClaims {
            namespace,
            serviceaccount,
            pod,
            node,
        } = self.kubernetes;
        let service_account = serviceaccount.name;
        if self.sub != format!("system:serviceaccount:{namespace}:{service_account}") {
            return Err(TokenError::Subject(self.sub));
        }
        Ok(Caller {
            namespace,
            service_account,
            pod,
            node: node.map(|node| node.name),
            expires: UNIX_EPOCH
                .checked_add(Duration::from_secs(self.exp.saturating_add(LEEWAY_SECONDS)))
                .ok_or(TokenError::Expiry(self.exp))?,
        })
    }
}

#[cfg(test)]
mod tests;
