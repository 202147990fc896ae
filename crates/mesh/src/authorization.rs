//! Authorization: the policies of a destination and their verdict on a connection or a request.
//!
//! Semantics are those of Istio's `AuthorizationPolicy`: DENY before ALLOW, no ALLOW policy means
//! allow, and a peer without identity never matches a positive condition on identity. Whatever
//! could not be understood, or in more than one way, never widens access.

mod string_match;

mod template;

mod evaluation;

mod request;

mod connection_index;

mod policy_list;

mod policy_set;

mod stand_in;

mod verdict;

mod explain;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

pub use self::explain::{
    Attribute, AttributeTrace, ClauseTrace, Explanation, MatchTrace, PolicyTrace, RuleTrace, Seen,
};
pub(crate) use self::policy_set::PolicyLists;
pub use self::policy_set::{PolicySet, uniform_endpoint};
pub(crate) use self::stand_in::StandIn;
pub use self::template::TemplateError;
pub use self::verdict::Verdict;
use crate::identity::Identity;
use crate::policy_target::PolicyTarget;

/// `namespace/name` of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// One policy. Rules are alternatives (OR).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub scope: Scope,
    pub action: Action,
    pub dry_run: bool,
    /// Where `scope` is [`Scope::Target`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<PolicyTarget>,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Scope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// The workloads that name the policy.
    WorkloadSelector,
    /// What the policy's `targetRefs` name; evaluated by waypoints only.
    Target,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    Allow,
    Deny,
    /// Decides nothing: a match is logged and counted. Evaluated by waypoints only.
    Audit,
}

/// All clauses must hold; none at all holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rule {
    pub clauses: Vec<Clause>,
}

/// One match must hold; none at all holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Clause {
    pub matches: Vec<Match>,
}

/// Every attribute that is set must hold: one of the values, none of the `not_` values.
/// A match with nothing set never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Match {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_namespaces: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub principals: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_principals: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub service_accounts: Vec<ServiceAccountMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_source_ips: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ips: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ips: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destination_ports: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_destination_ports: Vec<u16>,
    /// What of it is about an HTTP request; evaluated by waypoints only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Arc<RequestMatch>>,
    /// What of this match could not be understood. Such a match never allows and
    /// always denies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unparsable: Option<Arc<str>>,
}

/// The attributes of an HTTP request that a match may be about. Each that is set must hold, as
/// in [`Match`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMatch {
    /// Any letter case; with or without the port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_hosts: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_methods: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_paths: Vec<PathPattern>,
    /// `issuer/subject` of a verified token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_principals: Vec<StringMatch>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_request_principals: Vec<StringMatch>,
    /// The client's address as `x-forwarded-for` has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remote_ips: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_remote_ips: Vec<IpNet>,
    /// `when` conditions on what is not listed above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// One `when` of a rule: any of `values` (where there are some) and none of `not_values`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub key: ConditionKey,
    pub values: Vec<StringMatch>,
    pub not_values: Vec<StringMatch>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ConditionKey {
    /// `request.headers[name]`, lower case; each of a repeated header's values counts.
    Header(Arc<str>),
    /// `request.auth.audiences`.
    Audiences,
    /// `request.auth.presenter`.
    Presenter,
    /// `request.auth.claims[a][b]`.
    Claim(Vec<Arc<str>>),
    /// `source.trustDomain`, and the `trustDomains` of a source.
    TrustDomain,
    /// `connection.sni`.
    Sni,
}

/// A path of an AuthorizationPolicy's operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathPattern {
    Text(StringMatch),
    /// With `{*}` for one segment and a last `{**}` for any number of them.
    Template(Arc<str>),
}

/// Case sensitive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StringMatch {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    /// Any text but the empty one.
    Presence,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountMatch {
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

/// What policy can know of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// From the peer's certificate; none for plaintext.
    pub source_identity: Option<Identity>,
    /// The TCP peer.
    pub source_ip: IpAddr,
    /// The application's final address and port.
    pub destination: SocketAddr,
    /// What the client dialled, where that is a service behind a waypoint: the destination of
    /// policies that are attached by `targetRefs`.
    pub dialled: Option<SocketAddr>,
    /// The server name of a TLS connection that is passed on as it is.
    pub sni: Option<Arc<str>>,
}

// === impl PolicyKey ===

impl PolicyKey {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Reads `namespace/name`.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty()).then(|| Self::new(namespace, name))
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Serialize for PolicyKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Authorization ===

impl Authorization {
    pub fn key(&self) -> PolicyKey {
        PolicyKey {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

// === impl Match, RequestMatch ===

impl Match {
    /// True when nothing is set, so that the match can never hold.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
            && self.not_namespaces.is_empty()
            && self.principals.is_empty()
            && self.not_principals.is_empty()
            && self.service_accounts.is_empty()
            && self.not_service_accounts.is_empty()
            && self.source_ips.is_empty()
            && self.not_source_ips.is_empty()
            && self.destination_ips.is_empty()
            && self.not_destination_ips.is_empty()
            && self.destination_ports.is_empty()
            && self.not_destination_ports.is_empty()
            && self.request.as_ref().is_none_or(|one| one.is_empty())
            && self.unparsable.is_none()
    }
}

impl RequestMatch {
    /// True when nothing is set.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.not_hosts.is_empty()
            && self.methods.is_empty()
            && self.not_methods.is_empty()
            && self.paths.is_empty()
            && self.not_paths.is_empty()
            && self.request_principals.is_empty()
            && self.not_request_principals.is_empty()
            && self.remote_ips.is_empty()
            && self.not_remote_ips.is_empty()
            && self.conditions.is_empty()
    }
}

// === impl ServiceAccountMatch ===

impl fmt::Display for ServiceAccountMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

// === impl Connection ===

impl Connection {
    pub fn new(
        source_identity: Option<Identity>,
        source_ip: IpAddr,
        destination: SocketAddr,
    ) -> Self {
        Self {
            source_identity,
            source_ip,
            destination,
            dialled: None,
            sni: None,
        }
    }
}

#[cfg(test)]
mod tests;
