//! RequestAuthentication: which tokens are accepted, and where they are looked for.

use std::sync::Arc;
use std::time::Duration;

use crate::address::NamespacedHostname;
use crate::authorization::{PolicyKey, Scope};
use crate::policy_target::{Gateway, PolicyTarget};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

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

/// The policies that apply to requests for one destination.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationSet {
    /// In the order of their keys.
    pub policies: Vec<Arc<RequestAuthentication>>,
    /// One that the destination names and that has not arrived: every request is refused until
    /// it does.
    pub unknown: Option<PolicyKey>,
}

/// Why requests are refused, whatever token they bring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationRefusal {
    #[error("RequestAuthentication {0} applies and has not arrived")]
    Unknown(PolicyKey),
    #[error("RequestAuthentication {0} could not be understood: {1}")]
    Unparsable(PolicyKey, Arc<str>),
}

// === impl RequestAuthentication ===

impl RequestAuthentication {
    pub fn key(&self) -> PolicyKey {
        PolicyKey::new(self.namespace.clone(), self.name.clone())
    }
}

// === impl AuthenticationSet ===

impl AuthenticationSet {
    /// Those of requests to `service`, whichever endpoint they go to.
    pub fn for_service(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: &NamespacedHostname,
    ) -> Self {
        let attached = snapshot.attached_request_authentications();
        Self {
            policies: attached.of_service(gateway, service),
            unknown: None,
        }
    }

    /// Those of requests that go to a port of `workload`, addressed to `service` or to the
    /// workload itself.
    pub fn for_endpoint(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        (workload, port): (&Workload, u16),
    ) -> Self {
        let attached = snapshot.attached_request_authentications();
        let (keys, at) = (&workload.request_authentications, (workload, port));
        let (policies, unknown) = attached.of_endpoint(snapshot, gateway, service, at, keys);
        Self { policies, unknown }
    }

    /// Every rule of every policy.
    pub fn rules(&self) -> impl Iterator<Item = &JwtRule> {
        self.policies.iter().flat_map(|policy| &policy.rules)
    }

    /// Why no request can be let in, where something is missing or could not be understood.
    pub fn refusal(&self) -> Option<AuthenticationRefusal> {
        if let Some(key) = &self.unknown {
            return Some(AuthenticationRefusal::Unknown(key.clone()));
        }
        self.policies.iter().find_map(|policy| {
            let reason = policy.unparsable.clone()?;
            Some(AuthenticationRefusal::Unparsable(policy.key(), reason))
        })
    }
}
