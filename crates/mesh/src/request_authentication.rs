//! RequestAuthentication: which tokens are accepted, and where they are looked for.

use std::sync::Arc;
use std::time::Duration;

use crate::authorization::{PolicyKey, Scope};
use crate::policy_target::PolicyTarget;

/// One policy. Any of its rules may accept a token; a token that none accepts is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestAuthentication {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub scope: Scope,
    /// Where `scope` is [`Scope::Target`].
    pub targets: Vec<PolicyTarget>,
    pub rules: Vec<JwtRule>,
    /// What of it could not be understood. Every request it is about is refused: whether a token
    /// would have to be is not known.
    pub unparsable: Option<Arc<str>>,
}

/// How tokens of one issuer are verified (RFC 7515, RFC 7519).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtRule {
    pub issuer: Arc<str>,
    /// One of them must be among the token's; empty accepts any.
    pub audiences: Vec<Arc<str>>,
    pub keys: JwtKeys,
    /// In the order they are looked at.
    pub locations: Vec<TokenLocation>,
    /// Gets the payload, base64url.
    pub output_payload_to_header: Option<Arc<str>>,
    pub output_claim_to_headers: Vec<ClaimToHeader>,
    /// Whether the backend sees the token.
    pub forward_original_token: bool,
    /// For fetching keys.
    pub timeout: Duration,
    /// Besides `scope` and `permission`.
    pub space_delimited_claims: Vec<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeys {
    /// A JWKS document (RFC 7517).
    Inline(Arc<str>),
    /// Where the document is.
    Uri(Arc<str>),
    /// At the issuer's `/.well-known/openid-configuration`, under `jwks_uri`.
    Discovery,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenLocation {
    Header { name: Arc<str>, prefix: Arc<str> },
    Param(Arc<str>),
    Cookie(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimToHeader {
    pub header: Arc<str>,
    /// A path of names joined by dots.
    pub claim: Arc<str>,
}

// === impl RequestAuthentication ===

impl RequestAuthentication {
    pub fn key(&self) -> PolicyKey {
        PolicyKey::new(self.namespace.clone(), self.name.clone())
    }
}
