//! Whether a policy holds for a connection or a request.
//!
//! There is one evaluation, for the verdict and for its explanation: who listens to it is a type
//! parameter, and for the verdict the listener compiles to nothing.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::explain::{Attribute, AttributeTrace, Recorder, Seen, Silent};
use super::request::OtherReadings;
use super::{Action, Authorization, Clause, Connection, Match, Rule, Scope, ServiceAccountMatch};
use crate::identity::Identity;
use crate::request::Request;

/// What is known of the one who asks.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) connection: &'a Connection,
    /// None for what is no HTTP request.
    pub(super) request: Option<&'a Request<'a>>,
    pub(super) others: &'a OtherReadings,
}

/// How a value counts that matches in one reading and not in another: one that is not known, a
/// header that is repeated with different values, a path with parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It matches if it does in any reading.
    Wide,
    /// It matches if it does in every reading.
    Narrow,
}

/// The facts as a policy sees them.
pub(super) struct Subject<'a> {
    pub(super) facts: Facts<'a>,
    action: Action,
    source_ip: IpAddr,
    destination: SocketAddr,
}

/// Attributes of one match, all of which must hold.
pub(super) struct Checks<'r, R> {
    action: Action,
    held: bool,
    recorder: &'r mut R,
}

// === impl Authorization, Rule, Clause, Match ===

impl Authorization {
    /// Whether any rule holds for the connection, and the request if there is one.
    pub fn matches(&self, connection: &Connection, request: Option<&Request<'_>>) -> bool {
        let facts = Facts {
            connection,
            request,
            others: &OtherReadings::default(),
        };
        self.evaluate(facts, &mut Silent)
    }

    /// Whether any rule holds.
    pub(super) fn evaluate<R: Recorder>(&self, facts: Facts<'_>, recorder: &mut R) -> bool {
        let subject = Subject::new(facts, self);
        let held = any(&self.rules, recorder, |rule, recorder| {
            rule.evaluate(&subject, recorder)
        });
        recorder.end_policy(self, held);
        held
    }
}

impl Rule {
    fn evaluate<R: Recorder>(&self, subject: &Subject<'_>, recorder: &mut R) -> bool {
        let held = all(&self.clauses, recorder, |clause, recorder| {
            clause.evaluate(subject, recorder)
        });
        recorder.end_rule(held);
        held
    }
}

impl Clause {
    fn evaluate<R: Recorder>(&self, subject: &Subject<'_>, recorder: &mut R) -> bool {
        let one_holds = any(&self.matches, recorder, |one, recorder| {
            one.evaluate(subject, recorder)
        });
        let held = one_holds || self.matches.is_empty();
        recorder.end_clause(held);
        held
    }
}

impl Match {
    fn evaluate<R: Recorder>(&self, subject: &Subject<'_>, recorder: &mut R) -> bool {
        let held = if self.unparsable.is_some() {
            positive(subject.action) == Reading::Wide
        } else if self.is_empty() {
            false
        } else {
            self.attributes(subject, recorder)
        };
        recorder.end_match(self, held);
        held
    }

    fn attributes<R: Recorder>(&self, subject: &Subject<'_>, recorder: &mut R) -> bool {
        let mut checks = Checks {
            action: subject.action,
            held: true,
            recorder,
        };
        self.source(subject, &mut checks);
        self.destination(subject, &mut checks);
        if let Some(request) = &self.request {
            request.attributes(subject, &mut checks);
        }
        checks.held
    }

    fn source<R: Recorder>(&self, subject: &Subject<'_>, checks: &mut Checks<'_, R>) {
        let identity = subject.facts.connection.source_identity.as_ref();
        checks.check(
            || Attribute::Namespaces,
            (&self.namespaces, &self.not_namespaces),
            |values, _| identity.is_some_and(|id| any_of(values, |m| m.matches(&id.namespace))),
            || Seen::of_identity(identity, |id| id.namespace.to_string()),
        );
        checks.check(
            || Attribute::Principals,
            (&self.principals, &self.not_principals),
            |values, _| {
                identity.is_some_and(|id| any_of(values, |m| m.matches_pieces(&principal(id))))
            },
            || Seen::of_identity(identity, Identity::principal),
        );
        checks.check(
            || Attribute::ServiceAccounts,
            (&self.service_accounts, &self.not_service_accounts),
            |values, _| identity.is_some_and(|id| any_of(values, |m| m.matches(id))),
            || {
                Seen::of_identity(identity, |id| {
                    format!("{}/{}", id.namespace, id.service_account)
                })
            },
        );
        checks.check(
            || Attribute::IpBlocks,
            (&self.source_ips, &self.not_source_ips),
            |values, _| within(values, subject.source_ip),
            || Seen::value(subject.source_ip),
        );
    }

    fn destination<R: Recorder>(&self, subject: &Subject<'_>, checks: &mut Checks<'_, R>) {
        let (ip, port) = (subject.destination.ip(), subject.destination.port());
        checks.check(
            || Attribute::DestinationIp,
            (&self.destination_ips, &self.not_destination_ips),
            |values, _| within(values, ip),
            || Seen::value(ip),
        );
        checks.check(
            || Attribute::Ports,
            (&self.destination_ports, &self.not_destination_ports),
            |values, _| values.contains(&port),
            || Seen::value(port),
        );
    }
}

// === impl ServiceAccountMatch ===

impl ServiceAccountMatch {
    fn matches(&self, identity: &Identity) -> bool {
        identity.namespace == self.namespace && identity.service_account == self.service_account
    }
}

// === impl Subject ===

impl<'a> Subject<'a> {
    fn new(facts: Facts<'a>, policy: &Authorization) -> Self {
        let connection = facts.connection;
        let destination = match policy.scope {
            Scope::Target => connection.dialled.unwrap_or(connection.destination),
            Scope::Global | Scope::Namespace | Scope::WorkloadSelector => connection.destination,
        };
        Self {
            facts,
            action: policy.action,
            source_ip: connection.source_ip.to_canonical(),
            destination: SocketAddr::new(destination.ip().to_canonical(), destination.port()),
        }
    }

    /// The client, which is the peer unless a request says otherwise.
    pub(super) fn remote_ip(&self) -> IpAddr {
        let request = self.facts.request;
        request.map_or(self.source_ip, |request| request.remote_ip.to_canonical())
    }
}

// === impl Checks ===

impl<R: Recorder> Checks<'_, R> {
    /// One attribute: `values` must match where there are any, and none of `not_values` may.
    ///
    /// In doubt an ALLOW policy's match doesn't hold and any other's does, so `values` are read
    /// narrowly in the first and widely in the others, and `not_values` the other way.
    pub(super) fn check<T: Display>(
        &mut self,
        attribute: impl Fn() -> Attribute,
        (values, not_values): (&[T], &[T]),
        matches: impl Fn(&[T], Reading) -> bool,
        seen: impl Fn() -> Seen,
    ) {
        if !values.is_empty() && self.goes_on() {
            let held = matches(values, positive(self.action));
            self.record(held, || {
                AttributeTrace::new(attribute(), values, seen(), held)
            });
        }
        if !not_values.is_empty() && self.goes_on() {
            let held = !matches(not_values, negative(self.action));
            self.record(held, || {
                AttributeTrace::new(attribute(), not_values, seen(), held).negated()
            });
        }
    }

    /// A condition that asks for nothing.
    pub(super) fn in_doubt(&mut self, attribute: impl FnOnce() -> Attribute) {
        if self.goes_on() {
            let held = positive(self.action) == Reading::Wide;
            self.record(held, || {
                AttributeTrace::new::<&str>(attribute(), &[], Seen::Unknown, held)
            });
        }
    }

    fn goes_on(&self) -> bool {
        self.held || R::COMPLETE
    }

    fn record(&mut self, held: bool, trace: impl FnOnce() -> AttributeTrace) {
        self.held &= held;
        self.recorder.attribute(trace);
    }
}

fn positive(action: Action) -> Reading {
    match action {
        Action::Allow => Reading::Narrow,
        Action::Deny | Action::Audit => Reading::Wide,
    }
}

fn negative(action: Action) -> Reading {
    match action {
        Action::Allow => Reading::Wide,
        Action::Deny | Action::Audit => Reading::Narrow,
    }
}

/// Whether one item holds. What comes after it is of interest to a complete record only.
pub(super) fn any<R: Recorder, T>(
    items: &[T],
    recorder: &mut R,
    mut holds: impl FnMut(&T, &mut R) -> bool,
) -> bool {
    let mut held = false;
    for item in items {
        held |= holds(item, recorder);
        if held && !R::COMPLETE {
            return true;
        }
    }
    held
}

fn all<R: Recorder, T>(
    items: &[T],
    recorder: &mut R,
    mut holds: impl FnMut(&T, &mut R) -> bool,
) -> bool {
    let mut held = true;
    for item in items {
        held &= holds(item, recorder);
        if !held && !R::COMPLETE {
            return false;
        }
    }
    held
}

pub(super) fn any_of<T>(values: &[T], matches: impl FnMut(&T) -> bool) -> bool {
    values.iter().any(matches)
}

pub(super) fn within(nets: &[IpNet], ip: IpAddr) -> bool {
    any_of(nets, |net| net.contains(&ip))
}

/// The pieces of an identity's text, without `spiffe://`.
fn principal(identity: &Identity) -> [&str; 5] {
    [
        &identity.trust_domain,
        "/ns/",
        &identity.namespace,
        "/sa/",
        &identity.service_account,
    ]
}
