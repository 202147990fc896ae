//! An evaluation told step by step: what each policy wants, what was seen, and what failed.

use std::fmt::{self, Display};
use std::sync::Arc;

use serde::Serialize;

use super::{Action, Authorization, ConditionKey, Match, PolicyKey, Verdict};
use crate::identity::Identity;
use crate::request::{Claims, Request};

/// Who listens to an evaluation. Inner parts end before what they are part of.
pub(super) trait Recorder {
    /// Whether also what can no longer change the answer is evaluated.
    const COMPLETE: bool;

    fn attribute(&mut self, trace: impl FnOnce() -> AttributeTrace);
    fn end_match(&mut self, one: &Match, held: bool);
    fn end_clause(&mut self, held: bool);
    fn end_rule(&mut self, held: bool);
    fn end_policy(&mut self, policy: &Authorization, held: bool);
}

/// Nobody listens.
pub(super) struct Silent;

/// Keeps everything.
#[derive(Default)]
pub(super) struct Tracer {
    attributes: Vec<AttributeTrace>,
    matches: Vec<MatchTrace>,
    clauses: Vec<ClauseTrace>,
    rules: Vec<RuleTrace>,
    pub(super) policies: Vec<PolicyTrace>,
}

/// A verdict and all that led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub verdict: Verdict,
    /// What the verdict would be if the dry-run policies were enforced; none where there are none.
    pub dry_run: Option<Verdict>,
    /// Every policy that applies: DENY, ALLOW, AUDIT, then those that are only tried out.
    pub policies: Vec<PolicyTrace>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTrace {
    pub policy: PolicyKey,
    pub action: Action,
    pub dry_run: bool,
    pub held: bool,
    /// In the order of the policy's, so that the index says which one.
    pub rules: Vec<RuleTrace>,
}

/// Holds if all of its clauses do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleTrace {
    pub held: bool,
    pub clauses: Vec<ClauseTrace>,
}

/// Holds if one of its matches does, or if there are none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClauseTrace {
    pub held: bool,
    pub matches: Vec<MatchTrace>,
}

/// Holds if all of its attributes do; never without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchTrace {
    pub held: bool,
    pub attributes: Vec<AttributeTrace>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unparsable: Option<Arc<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AttributeTrace {
    pub attribute: Attribute,
    /// None of the wanted values may match, rather than one must.
    pub negated: bool,
    /// As policies write them.
    pub wanted: Vec<String>,
    pub seen: Seen,
    pub held: bool,
}

/// What of an AuthorizationPolicy's rule is held against something. A `when` condition on what
/// `from` and `to` have a field for has that field's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    Namespaces,
    Principals,
    ServiceAccounts,
    IpBlocks,
    RemoteIpBlocks,
    RequestPrincipals,
    DestinationIp,
    Ports,
    Hosts,
    Methods,
    Paths,
    Condition(ConditionKey),
}

/// What there was to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Seen {
    /// Several of a repeated header, or of a list.
    Values(Vec<String>),
    /// The client has no identity: plaintext.
    NoIdentity,
    /// What is asked about is no HTTP request.
    NoRequest,
    /// The request came without a token that was verified.
    NoToken,
    /// The token doesn't say.
    NoClaim,
    /// The request has no such header.
    NoHeader,
    /// The connection names no server.
    NoSni,
    /// The condition says nothing that could be held against anything.
    Unknown,
}

// === impl Silent, Tracer ===

impl Recorder for Silent {
    const COMPLETE: bool = false;

    fn attribute(&mut self, _: impl FnOnce() -> AttributeTrace) {}
    fn end_match(&mut self, _: &Match, _: bool) {}
    fn end_clause(&mut self, _: bool) {}
    fn end_rule(&mut self, _: bool) {}
    fn end_policy(&mut self, _: &Authorization, _: bool) {}
}

impl Recorder for Tracer {
    const COMPLETE: bool = true;

    fn attribute(&mut self, trace: impl FnOnce() -> AttributeTrace) {
        self.attributes.push(trace());
    }

    fn end_match(&mut self, one: &Match, held: bool) {
        self.matches.push(MatchTrace {
            held,
            attributes: std::mem::take(&mut self.attributes),
            unparsable: one.unparsable.clone(),
        });
    }

    fn end_clause(&mut self, held: bool) {
        let matches = std::mem::take(&mut self.matches);
        self.clauses.push(ClauseTrace { held, matches });
    }

    fn end_rule(&mut self, held: bool) {
        let clauses = std::mem::take(&mut self.clauses);
        self.rules.push(RuleTrace { held, clauses });
    }

    fn end_policy(&mut self, policy: &Authorization, held: bool) {
        self.policies.push(PolicyTrace {
            policy: policy.key(),
            action: policy.action,
            dry_run: policy.dry_run,
            held,
            rules: std::mem::take(&mut self.rules),
        });
    }
}

// === impl PolicyTrace ===

impl PolicyTrace {
    /// The attributes that failed, with the index of their rule.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &AttributeTrace)> {
        let rules = self.rules.iter().enumerate();
        rules.flat_map(|(index, rule)| {
            let matches = rule.clauses.iter().flat_map(|clause| &clause.matches);
            let attributes = matches.flat_map(|one| &one.attributes);
            attributes
                .filter(|attribute| !attribute.held)
                .map(move |attribute| (index, attribute))
        })
    }
}

// === impl AttributeTrace ===

impl AttributeTrace {
    pub(super) fn new<T: Display>(
        attribute: Attribute,
        wanted: &[T],
        seen: Seen,
        held: bool,
    ) -> Self {
        Self {
            attribute,
            negated: false,
            wanted: wanted.iter().map(ToString::to_string).collect(),
            seen,
            held,
        }
    }

    pub(super) fn negated(self) -> Self {
        Self {
            negated: true,
            ..self
        }
    }

    /// The field as the YAML has it: `to.operation.notMethods`, `when request.headers[x-a]`.
    pub fn field(&self) -> String {
        self.attribute.field(self.negated)
    }
}

/// `to.operation.methods: "POST", wanted GET, HEAD`.
impl Display for AttributeTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted = self.wanted.join(", ");
        let (field, seen) = (self.field(), &self.seen);
        match self.negated {
            false => write!(f, "{field}: {seen}, wanted {wanted}"),
            true => write!(f, "{field}: {seen}, unwanted {wanted}"),
        }
    }
}

// === impl Attribute ===

impl Attribute {
    fn field(&self, negated: bool) -> String {
        let pick = |positive: &str, negative: &str| {
            let name = if negated { negative } else { positive };
            name.to_owned()
        };
        let source = |positive, negative| format!("from.source.{}", pick(positive, negative));
        let operation = |positive, negative| format!("to.operation.{}", pick(positive, negative));
        match self {
            Self::Namespaces => source("namespaces", "notNamespaces"),
            Self::Principals => source("principals", "notPrincipals"),
            Self::ServiceAccounts => source("serviceAccounts", "notServiceAccounts"),
            Self::IpBlocks => source("ipBlocks", "notIpBlocks"),
            Self::RemoteIpBlocks => source("remoteIpBlocks", "notRemoteIpBlocks"),
            Self::RequestPrincipals => source("requestPrincipals", "notRequestPrincipals"),
            Self::Ports => operation("ports", "notPorts"),
            Self::Hosts => operation("hosts", "notHosts"),
            Self::Methods => operation("methods", "notMethods"),
            Self::Paths => operation("paths", "notPaths"),
            Self::DestinationIp => format!("when destination.ip {}", pick("values", "notValues")),
            Self::Condition(key) => format!("when {key} {}", pick("values", "notValues")),
        }
    }
}

/// As a `when` writes it.
impl Display for ConditionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "request.headers[{name}]"),
            Self::Audiences => f.write_str("request.auth.audiences"),
            Self::Presenter => f.write_str("request.auth.presenter"),
            Self::Claim(path) => {
                f.write_str("request.auth.claims")?;
                path.iter().try_for_each(|name| write!(f, "[{name}]"))
            }
            Self::TrustDomain => f.write_str("source.trustDomain"),
            Self::Sni => f.write_str("connection.sni"),
        }
    }
}

// === impl Seen ===

impl Seen {
    pub(super) fn value(value: impl Display) -> Self {
        Self::Values(vec![value.to_string()])
    }

    pub(super) fn of_identity(
        identity: Option<&Identity>,
        text: impl FnOnce(&Identity) -> String,
    ) -> Self {
        identity.map_or(Self::NoIdentity, |identity| Self::value(text(identity)))
    }

    pub(super) fn of_request(
        request: Option<&Request<'_>>,
        text: impl FnOnce(&Request<'_>) -> String,
    ) -> Self {
        request.map_or(Self::NoRequest, |request| Self::value(text(request)))
    }

    pub(super) fn of_header(
        request: Option<&Request<'_>>,
        values: impl FnOnce(&Request<'_>) -> Vec<String>,
    ) -> Self {
        let or_missing = |values: Vec<String>| match values.is_empty() {
            true => Self::NoHeader,
            false => Self::Values(values),
        };
        request.map_or(Self::NoRequest, |request| or_missing(values(request)))
    }

    pub(super) fn of_token(
        request: Option<&Request<'_>>,
        values: impl FnOnce(&Claims) -> Vec<String>,
    ) -> Self {
        let Some(request) = request else {
            return Self::NoRequest;
        };
        let Some(claims) = request.claims else {
            return Self::NoToken;
        };
        let values = values(claims);
        match values.is_empty() {
            true => Self::NoClaim,
            false => Self::Values(values),
        }
    }
}

/// For a sentence that begins with the field.
impl Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values(values) => {
                let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
                f.write_str(&quoted.join(", "))
            }
            Self::NoIdentity => f.write_str("the client has no identity"),
            Self::NoRequest => f.write_str("not an HTTP request"),
            Self::NoToken => f.write_str("no verified token"),
            Self::NoClaim => f.write_str("not in the token"),
            Self::NoHeader => f.write_str("no such header"),
            Self::NoSni => f.write_str("the connection names no server"),
            Self::Unknown => f.write_str("without values"),
        }
    }
}
