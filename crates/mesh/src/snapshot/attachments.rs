//! Policies for waypoints, by what they are attached to.

use std::collections::HashSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::{Snapshot, push_key, retain_keys};
use crate::address::NamespacedHostname;
use crate::authorization::{Action, Authorization, PolicyKey, Scope, StandIn};
use crate::policy_target::{Gateway, PolicyTarget};
use crate::request_authentication::RequestAuthentication;
use crate::workload::Workload;

/// A policy that is attached to something.
pub(crate) trait Attached {
    fn key(&self) -> PolicyKey;
    fn scope(&self) -> Scope;
    fn targets(&self) -> &[PolicyTarget];
    /// Whether it lets anything in or keeps anything out.
    fn decides(&self) -> bool;
    /// The same for what reaches an endpoint of its service by another way.
    fn at_endpoint(self: &Arc<Self>, stand_in: &StandIn) -> Arc<Self>;
}

/// All policies of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Attachments<P> {
    policies: OrdMap<PolicyKey, Arc<P>>,
    /// In no order: lists of keys are sorted where they are used.
    places: OrdMap<Place, Arc<[Arc<P>]>>,
}

/// Where a policy applies without anybody naming it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    Mesh,
    Namespace(Arc<str>),
    Target(PolicyTarget),
}

// === impl Attached ===

impl Attached for Authorization {
    fn key(&self) -> PolicyKey {
        Authorization::key(self)
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn targets(&self) -> &[PolicyTarget] {
        &self.targets
    }

    fn decides(&self) -> bool {
        match self.action {
            Action::Allow | Action::Deny => !self.dry_run,
            Action::Audit => false,
        }
    }

    fn at_endpoint(self: &Arc<Self>, stand_in: &StandIn) -> Arc<Self> {
        stand_in.policy(self)
    }
}

impl Attached for RequestAuthentication {
    fn key(&self) -> PolicyKey {
        RequestAuthentication::key(self)
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn targets(&self) -> &[PolicyTarget] {
        &self.targets
    }

    fn decides(&self) -> bool {
        true
    }

    /// It says nothing of addresses.
    fn at_endpoint(self: &Arc<Self>, _: &StandIn) -> Arc<Self> {
        self.clone()
    }
}

// === impl Attachments ===

impl<P> Default for Attachments<P> {
    fn default() -> Self {
        Self {
            policies: OrdMap::new(),
            places: OrdMap::new(),
        }
    }
}

impl<P: Attached> Attachments<P> {
    pub(super) fn insert(&mut self, policy: P) {
        let key = policy.key();
        self.remove(&key);
        let policy = Arc::new(policy);
        for place in places(&*policy) {
            push_key(&mut self.places, place, &policy);
        }
        self.policies.insert(key, policy);
    }

    pub(super) fn remove(&mut self, key: &PolicyKey) {
        let Some(policy) = self.policies.remove(key) else {
            return;
        };
        for place in places(&*policy) {
            retain_keys(&mut self.places, &place, |known| {
                !Arc::ptr_eq(known, &policy)
            });
        }
    }

    pub(super) fn get(&self, key: &PolicyKey) -> Option<&Arc<P>> {
        self.policies.get(key)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<P>> {
        self.policies.values()
    }

    /// Those of requests to a service behind `gateway`, in the order of their keys.
    pub(crate) fn of_service(
        &self,
        gateway: &Gateway,
        service: &NamespacedHostname,
    ) -> Vec<Arc<P>> {
        let mut policies = self.of_gateway(gateway);
        policies.extend(self.at(Place::Namespace(service.namespace.clone())));
        policies.extend(self.at_service(service));
        ordered(policies)
    }

    /// Those of requests to `port` of a workload behind `gateway`, addressed to `service` or to
    /// the workload itself, in the order of their keys, and a key of `listed` that is not known.
    pub(crate) fn of_endpoint(
        &self,
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        (workload, port): (&Workload, u16),
        listed: &[PolicyKey],
    ) -> (Vec<Arc<P>>, Option<PolicyKey>) {
        let mut policies = match service {
            Some(service) => self.of_service(gateway, service),
            None => self.of_gateway(gateway),
        };
        policies.extend(self.at(Place::Namespace(workload.namespace.clone())));
        let backed = |service: &&NamespacedHostname| workload.services.contains_key(service);
        let is_guarded = service
            .filter(backed)
            .is_some_and(|service| self.at_service(service).any(|policy| policy.decides()));
        // A request that was routed to another service's endpoint, or addressed to the workload
        // itself, or to a service that nothing guards, must not get around what is attached to
        // the services whose port it reaches.
        if !is_guarded {
            policies.extend(self.of_others(snapshot, service, workload, port));
        }
        let mut unknown = None;
        for key in listed {
            match self.get(key) {
                Some(policy) => policies.push(policy.clone()),
                None => unknown = Some(key.clone()),
            }
        }
        (ordered(policies), unknown)
    }

    /// Those of the services besides `addressed` that lead to the port.
    fn of_others(
        &self,
        snapshot: &Snapshot,
        addressed: Option<&NamespacedHostname>,
        workload: &Workload,
        port: u16,
    ) -> Vec<Arc<P>> {
        let addressed_to = |policy: &P| {
            let mut targets = policy.targets().iter();
            targets.any(|target| match target {
                PolicyTarget::Service(service) => Some(service) == addressed,
                PolicyTarget::Gateway { .. } | PolicyTarget::GatewayClass(_) => false,
            })
        };
        let mut found: Vec<(Arc<P>, StandIn)> = Vec::new();
        let others = workload.services.keys();
        for other in others.filter(|other| Some(*other) != addressed) {
            let Some(stand_in) = StandIn::new(snapshot, other, workload, port) else {
                continue;
            };
            for policy in self.at_service(other).filter(|one| !addressed_to(one)) {
                match found.iter_mut().find(|(one, _)| Arc::ptr_eq(one, &policy)) {
                    Some((_, known)) => known.merge(&stand_in),
                    None => found.push((policy, stand_in.clone())),
                }
            }
        }
        let found = found.into_iter();
        found
            .map(|(policy, stand_in)| policy.at_endpoint(&stand_in))
            .collect()
    }

    fn of_gateway(&self, gateway: &Gateway) -> Vec<Arc<P>> {
        let target = PolicyTarget::Gateway {
            namespace: gateway.namespace.clone(),
            name: gateway.name.clone(),
        };
        let classes = gateway.classes().map(PolicyTarget::GatewayClass);
        let targets = std::iter::once(target).chain(classes).map(Place::Target);
        std::iter::once(Place::Mesh)
            .chain(targets)
            .flat_map(|place| self.at(place))
            .collect()
    }

    fn at_service(&self, service: &NamespacedHostname) -> impl Iterator<Item = Arc<P>> {
        self.at(Place::Target(PolicyTarget::Service(service.clone())))
    }

    fn at(&self, place: Place) -> impl Iterator<Item = Arc<P>> + use<P> {
        let policies = self.places.get(&place).cloned().unwrap_or_default();
        (0..policies.len()).map(move |n| policies[n].clone())
    }
}

fn places(policy: &impl Attached) -> HashSet<Place> {
    let target = |target: &PolicyTarget| Place::Target(target.clone());
    match policy.scope() {
        Scope::Global => HashSet::from([Place::Mesh]),
        Scope::Namespace => HashSet::from([Place::Namespace(policy.key().namespace)]),
        Scope::WorkloadSelector => HashSet::new(),
        Scope::Target => policy.targets().iter().map(target).collect(),
    }
}

/// In the order of their keys, each once.
fn ordered<P: Attached>(mut policies: Vec<Arc<P>>) -> Vec<Arc<P>> {
    policies.sort_by_cached_key(|policy| policy.key());
    policies.dedup_by(|one, other| Arc::ptr_eq(one, other));
    policies
}
