//! L4 authorization: the policies of a destination and their verdict on a connection.
//!
//! Semantics are those of Istio's `AuthorizationPolicy` at the node: DENY before ALLOW,
//! no ALLOW policy means allow, and a peer without identity never matches a positive
//! condition on identity. Whatever could not be understood never widens access.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::identity::Identity;
use crate::policy_target::PolicyTarget;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

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

/// What L4 policy can know of a connection.
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

/// The verdict and what decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No ALLOW policy applies and no DENY policy matched.
    AllowedByDefault,
    AllowedBy(PolicyKey),
    DeniedBy(PolicyKey),
    /// ALLOW policies apply and none matched.
    NoAllowMatched,
    /// The workload names a policy that has not arrived: refused until it does.
    PolicyUnknown(PolicyKey),
}

/// The policies that apply to one destination, sorted by what they do.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    deny: Vec<Arc<Authorization>>,
    allow: Vec<Arc<Authorization>>,
    dry_run: Vec<Arc<Authorization>>,
    unknown: Option<PolicyKey>,
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

    /// Whether any rule holds for the connection.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.matches(self.action, connection))
    }
}

// === impl Rule, Clause, Match ===

impl Rule {
    fn matches(&self, action: Action, connection: &Connection) -> bool {
        self.clauses
            .iter()
            .all(|clause| clause.matches(action, connection))
    }
}

impl Clause {
    fn matches(&self, action: Action, connection: &Connection) -> bool {
        self.matches.is_empty()
            || self
                .matches
                .iter()
                .any(|one| one.matches(action, connection))
    }
}

impl Match {
    /// True when nothing is set, so that the match can never hold.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn matches(&self, action: Action, connection: &Connection) -> bool {
        if self.unparsable.is_some() {
            return match action {
                Action::Allow => false,
                Action::Deny | Action::Audit => true,
            };
        }
        if self.is_empty() {
            return false;
        }
        let identity = connection.source_identity.as_ref();
        let namespace = identity.map_or("", |identity| &identity.namespace);
        let principal = identity.map(Identity::principal);
        let port = connection.destination.port();
        any_or_unset(&self.namespaces, |m| m.matches(namespace))
            && none(&self.not_namespaces, |m| m.matches(namespace))
            && any_or_unset(&self.principals, |m| m.matches_some(principal.as_deref()))
            && none(&self.not_principals, |m| {
                m.matches_some(principal.as_deref())
            })
            && any_or_unset(&self.service_accounts, |m| m.matches(identity))
            && none(&self.not_service_accounts, |m| m.matches(identity))
            && any_or_unset(&self.source_ips, |net| net.contains(&connection.source_ip))
            && none(&self.not_source_ips, |net| {
                net.contains(&connection.source_ip)
            })
            && any_or_unset(&self.destination_ips, |net| {
                net.contains(&connection.destination.ip())
            })
            && none(&self.not_destination_ips, |net| {
                net.contains(&connection.destination.ip())
            })
            && any_or_unset(&self.destination_ports, |p| *p == port)
            && none(&self.not_destination_ports, |p| *p == port)
    }
}

fn any_or_unset<T>(values: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(holds)
}

fn none<T>(values: &[T], holds: impl FnMut(&T) -> bool) -> bool {
    !values.iter().any(holds)
}

// === impl StringMatch ===

impl StringMatch {
    /// Reads the form policies write: `*`, `*suffix`, `prefix*` or an exact text.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Presence
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(text.into())
        }
    }

    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == &**exact,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Presence => !text.is_empty(),
        }
    }

    fn matches_some(&self, text: Option<&str>) -> bool {
        text.is_some_and(|text| self.matches(text))
    }
}

// === impl ServiceAccountMatch ===

impl ServiceAccountMatch {
    fn matches(&self, identity: Option<&Identity>) -> bool {
        identity.is_some_and(|identity| {
            identity.namespace == self.namespace && identity.service_account == self.service_account
        })
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

// === impl Verdict ===

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        match self {
            Self::AllowedByDefault | Self::AllowedBy(_) => true,
            Self::DeniedBy(_) | Self::NoAllowMatched | Self::PolicyUnknown(_) => false,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowedByDefault => f.write_str("allowed: no ALLOW policy applies"),
            Self::AllowedBy(key) => write!(f, "allowed by policy {key}"),
            Self::DeniedBy(key) => write!(f, "denied by policy {key}"),
            Self::NoAllowMatched => f.write_str("denied: ALLOW policies apply and none matched"),
            Self::PolicyUnknown(key) => {
                write!(f, "denied: policy {key} applies and has not arrived")
            }
        }
    }
}

// === impl PolicySet ===

impl PolicySet {
    /// The policies of the snapshot that apply to connections into `destination`.
    pub fn of(snapshot: &Snapshot, destination: &Workload) -> Self {
        let mut set = Self::default();
        for policy in snapshot.global_policies() {
            set.add(policy);
        }
        for policy in snapshot.namespace_policies(&destination.namespace) {
            set.add(policy);
        }
        for key in &destination.authorization_policies {
            match snapshot.policy(key) {
                Some(policy) => set.add(policy),
                None => set.unknown = Some(key.clone()),
            }
        }
        set
    }

    fn add(&mut self, policy: &Arc<Authorization>) {
        let list = match (policy.dry_run, policy.action) {
            (true, _) | (false, Action::Audit) => &mut self.dry_run,
            (false, Action::Deny) => &mut self.deny,
            (false, Action::Allow) => &mut self.allow,
        };
        if !list.iter().any(|known| Arc::ptr_eq(known, policy)) {
            list.push(policy.clone());
        }
    }

    /// Whether the connection may come in, and which policy says so.
    pub fn authorize(&self, connection: &Connection) -> Verdict {
        if let Some(denied) = self.deny.iter().find(|policy| policy.matches(connection)) {
            return Verdict::DeniedBy(denied.key());
        }
        if let Some(key) = &self.unknown {
            return Verdict::PolicyUnknown(key.clone());
        }
        if self.allow.is_empty() {
            return Verdict::AllowedByDefault;
        }
        match self.allow.iter().find(|policy| policy.matches(connection)) {
            Some(allowed) => Verdict::AllowedBy(allowed.key()),
            None => Verdict::NoAllowMatched,
        }
    }

    /// Dry-run policies that would have decided, for the log.
    pub fn dry_run_matches<'a>(
        &'a self,
        connection: &'a Connection,
    ) -> impl Iterator<Item = &'a Authorization> {
        self.dry_run
            .iter()
            .map(Arc::as_ref)
            .filter(|policy| policy.matches(connection))
    }
}

#[cfg(test)]
mod tests;
