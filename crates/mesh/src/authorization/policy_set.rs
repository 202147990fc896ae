//! The policies of one destination, and what they decide together.

use std::sync::Arc;

use super::evaluation::Facts;
use super::explain::{Explanation, Recorder, Silent, Tracer};
use super::policy_list::PolicyList;
use super::request::OtherReadings;
use super::{Action, Authorization, Connection, PolicyKey, Scope, Verdict};
use crate::address::NamespacedHostname;
use crate::identity::Identity;
use crate::policy_target::Gateway;
use crate::request::Request;
use crate::snapshot::{Endpoint, ServiceEntry, Snapshot};
use crate::workload::Workload;

/// The policies that apply to one destination.
#[derive(Clone, Debug, Default)]
pub struct PolicySet {
    admitted_waypoints: Vec<Identity>,
    /// One after the other: those of a scope are shared by all of its destinations.
    lists: Vec<Arc<PolicyLists>>,
    unknown: Option<PolicyKey>,
}

/// Policies, sorted by what they do.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyLists {
    deny: PolicyList,
    allow: PolicyList,
    audit: PolicyList,
    /// Of any action: tried out, deciding nothing.
    dry_run: PolicyList,
}

// === impl PolicyLists ===

impl PolicyLists {
    pub(crate) fn of<'a>(policies: impl IntoIterator<Item = &'a Arc<Authorization>>) -> Self {
        let mut lists = Self::default();
        for policy in policies {
            let list = match (policy.dry_run, policy.action) {
                (true, _) => &mut lists.dry_run,
                (false, Action::Audit) => &mut lists.audit,
                (false, Action::Deny) => &mut lists.deny,
                (false, Action::Allow) => &mut lists.allow,
            };
            list.add(policy);
        }
        lists
    }
}

// === impl PolicySet ===

impl PolicySet {
    /// What a node evaluates of connections into `destination`.
    pub fn of(snapshot: &Snapshot, destination: &Workload) -> Self {
        let of_namespace = snapshot.namespace_policies(&destination.namespace);
        let scopes = [Some(snapshot.global_policies()), of_namespace];
        let mut lists: Vec<_> = scopes
            .into_iter()
            .flatten()
            .map(|scope| scope.lists().clone())
            .collect();
        let mut unknown = None;
        let mut selected = Vec::new();
        for key in &destination.authorization_policies {
            match snapshot.policy(key) {
                Some(policy) if is_in_scope(policy, destination) => {}
                Some(policy) => selected.push(policy),
                None => unknown = Some(key.clone()),
            }
        }
        if !selected.is_empty() {
            lists.push(Arc::new(PolicyLists::of(selected)));
        }
        Self {
            admitted_waypoints: destination.admitted_waypoints.clone(),
            lists,
            unknown,
        }
    }

    /// What a waypoint evaluates of requests to `service`, whichever endpoint they go to.
    pub fn for_service(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: &NamespacedHostname,
    ) -> Self {
        let attached = snapshot.attached_authorization_policies();
        Self::from_policies(&attached.of_service(gateway, service), None)
    }

    /// What a waypoint evaluates of requests that go to a port of `workload`, addressed to
    /// `service` or to the workload itself.
    pub fn for_endpoint(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        (workload, port): (&Workload, u16),
    ) -> Self {
        let attached = snapshot.attached_authorization_policies();
        let (keys, at) = (&workload.request_policies, (workload, port));
        let (policies, unknown) = attached.of_endpoint(snapshot, gateway, service, at, keys);
        Self::from_policies(&policies, unknown)
    }

    fn from_policies(policies: &[Arc<Authorization>], unknown: Option<PolicyKey>) -> Self {
        Self {
            admitted_waypoints: Vec::new(),
            lists: vec![Arc::new(PolicyLists::of(policies))],
            unknown,
        }
    }

    fn deny(&self) -> impl Iterator<Item = &PolicyList> {
        self.lists.iter().map(|lists| &lists.deny)
    }

    fn allow(&self) -> impl Iterator<Item = &PolicyList> {
        self.lists.iter().map(|lists| &lists.allow)
    }

    fn audit(&self) -> impl Iterator<Item = &PolicyList> {
        self.lists.iter().map(|lists| &lists.audit)
    }

    fn dry_run(&self) -> impl Iterator<Item = &PolicyList> {
        self.lists.iter().map(|lists| &lists.dry_run)
    }

    /// Whether the connection or the request may come in, and which policy says so.
    pub fn authorize(&self, connection: &Connection, request: Option<&Request<'_>>) -> Verdict {
        let facts = Facts {
            connection,
            request,
            others: &OtherReadings::default(),
        };
        self.decide(facts, &mut Silent)
    }

    /// The same, with all that led to it. Policies that decide nothing are told as well.
    pub fn explain(&self, connection: &Connection, request: Option<&Request<'_>>) -> Explanation {
        let facts = Facts {
            connection,
            request,
            others: &OtherReadings::default(),
        };
        let mut tracer = Tracer::default();
        let verdict = self.decide(facts, &mut tracer);
        let undecided = self.audit().chain(self.dry_run());
        for policy in undecided.flat_map(PolicyList::iter) {
            policy.evaluate(facts, &mut tracer);
        }
        Explanation {
            dry_run: self.dry_run_verdict(&verdict, connection, request),
            verdict,
            policies: tracer.policies,
        }
    }

    fn decide<R: Recorder>(&self, facts: Facts<'_>, recorder: &mut R) -> Verdict {
        if let Some(identity) = &facts.connection.source_identity
            && self.admitted_waypoints.contains(identity)
        {
            return Verdict::AdmittedWaypoint(identity.clone());
        }
        let denied = first(self.deny(), facts, recorder);
        let refused = match (denied, &self.unknown) {
            (Some(policy), _) => Some(Verdict::DeniedBy(policy.key())),
            (None, Some(key)) => Some(Verdict::PolicyUnknown(key.clone())),
            (None, None) => None,
        };
        if let Some(refused) = refused {
            if R::COMPLETE {
                first(self.allow(), facts, recorder);
            }
            return refused;
        }
        match first(self.allow(), facts, recorder) {
            Some(policy) => Verdict::AllowedBy(policy.key()),
            None if self.allow().all(PolicyList::is_empty) => Verdict::AllowedByDefault,
            None => Verdict::NoAllowMatched,
        }
    }

    /// AUDIT policies that match, for logs and metrics.
    pub fn audits<'a>(
        &'a self,
        connection: &'a Connection,
        request: Option<&'a Request<'a>>,
    ) -> impl Iterator<Item = &'a Authorization> {
        matching(self.audit(), connection, request)
    }

    /// What `enforced` would be if the dry-run policies were enforced as well; none where there
    /// are none.
    pub fn dry_run_verdict(
        &self,
        enforced: &Verdict,
        connection: &Connection,
        request: Option<&Request<'_>>,
    ) -> Option<Verdict> {
        if self.dry_run().all(PolicyList::is_empty) {
            return None;
        }
        let first_matching = |action| {
            matching(self.dry_run(), connection, request).find(|policy| policy.action == action)
        };
        let tries = |action| {
            let mut all = self.dry_run().flat_map(PolicyList::iter);
            all.any(|policy| policy.action == action)
        };
        let verdict = match enforced {
            Verdict::DeniedBy(_) | Verdict::AdmittedWaypoint(_) => enforced.clone(),
            Verdict::AllowedByDefault
            | Verdict::AllowedBy(_)
            | Verdict::NoAllowMatched
            | Verdict::PolicyUnknown(_) => match first_matching(Action::Deny) {
                Some(policy) => Verdict::DeniedBy(policy.key()),
                None => match enforced {
                    Verdict::AllowedByDefault | Verdict::NoAllowMatched => {
                        match first_matching(Action::Allow) {
                            Some(policy) => Verdict::AllowedBy(policy.key()),
                            None if tries(Action::Allow) => Verdict::NoAllowMatched,
                            None => enforced.clone(),
                        }
                    }
                    Verdict::AllowedBy(_)
                    | Verdict::PolicyUnknown(_)
                    | Verdict::DeniedBy(_)
                    | Verdict::AdmittedWaypoint(_) => enforced.clone(),
                },
            },
        };
        Some(verdict)
    }

    fn names_destination_ips(&self) -> bool {
        let enforced = self.deny().chain(self.allow());
        let lists = enforced.chain(self.audit()).chain(self.dry_run());
        let policies = lists.flat_map(PolicyList::iter);
        policies
            .filter(|policy| policy.scope != Scope::Target)
            .flat_map(|policy| &policy.rules)
            .flat_map(|rule| &rule.clauses)
            .flat_map(|clause| &clause.matches)
            .any(|one| !one.destination_ips.is_empty() || !one.not_destination_ips.is_empty())
    }
}

/// An endpoint of the service that any other may stand for: what is decided of requests to one,
/// before they are routed, holds for all. None where they differ in policies or in what policies
/// may be about, and where there are none.
pub fn uniform_endpoint<'a>(
    snapshot: &Snapshot,
    gateway: &Gateway,
    entry: &'a ServiceEntry,
    service_port: u16,
) -> Option<&'a Endpoint> {
    let mut others = entry.endpoints.iter();
    let first = others.next()?;
    let one = &first.workload;
    let port = entry.target_port(first, service_port)?;
    let alike = others.all(|endpoint| {
        let other = &endpoint.workload;
        other.namespace == one.namespace
            && other.request_policies == one.request_policies
            && other.request_authentications == one.request_authentications
            && other.services == one.services
            && entry.target_port(endpoint, service_port) == Some(port)
    });
    if !alike {
        return None;
    }
    let service = entry.service.key();
    let set = PolicySet::for_endpoint(snapshot, gateway, Some(&service), (one, port));
    (entry.endpoints.len() == 1 || !set.names_destination_ips()).then_some(first)
}

/// Whether it applies to the destination anyway.
fn is_in_scope(policy: &Authorization, destination: &Workload) -> bool {
    match policy.scope {
        Scope::Global => true,
        Scope::Namespace => policy.namespace == destination.namespace,
        Scope::WorkloadSelector | Scope::Target => false,
    }
}

/// The first policy that holds. A complete record has the others, too.
fn first<'a, R: Recorder>(
    lists: impl Iterator<Item = &'a PolicyList>,
    facts: Facts<'_>,
    recorder: &mut R,
) -> Option<&'a Authorization> {
    let holds = |policy: &&Authorization, recorder: &mut R| policy.evaluate(facts, recorder);
    if !R::COMPLETE {
        let mut candidates = lists.flat_map(|policies| policies.candidates(facts));
        return candidates.find(|policy| holds(policy, recorder));
    }
    let mut found = None;
    for policy in lists.flat_map(PolicyList::iter).map(Arc::as_ref) {
        if holds(&policy, recorder) && found.is_none() {
            found = Some(policy);
        }
    }
    found
}

fn matching<'a>(
    lists: impl Iterator<Item = &'a PolicyList>,
    connection: &'a Connection,
    request: Option<&'a Request<'a>>,
) -> impl Iterator<Item = &'a Authorization> {
    lists.flat_map(move |policies| {
        let others = OtherReadings::default();
        let facts = Facts {
            connection,
            request,
            others: &others,
        };
        policies.candidates(facts).filter(move |policy| {
            let facts = Facts {
                connection,
                request,
                others: &others,
            };
            policy.evaluate(facts, &mut Silent)
        })
    })
}

#[cfg(test)]
mod tests;
