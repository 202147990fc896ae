//! Policies for waypoints, by what they are attached to.

use std::collections::HashSet;
use std::sync::Arc;

use imbl::OrdMap;

use super::{push_key, retain_keys};
use crate::address::NamespacedHostname;
use crate::authorization::{Authorization, PolicyKey, Scope};
use crate::policy_target::{Gateway, PolicyTarget};
use crate::request_authentication::RequestAuthentication;
use crate::workload::Workload;

/// A policy that is attached to something.
pub(crate) trait Attached {
    fn key(&self) -> PolicyKey;
    fn scope(&self) -> Scope;
    fn targets(&self) -> &[PolicyTarget];
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

    /// Those of requests to a workload behind `gateway`, addressed to `service` or to the
    /// workload itself, in the order of their keys, and a key of `listed` that is not known.
    pub(crate) fn of_endpoint(
        &self,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        workload: &Workload,
        listed: &[PolicyKey],
    ) -> (Vec<Arc<P>>, Option<PolicyKey>) {
        let mut policies = match service {
            Some(service) => self.of_service(gateway, service),
            None => self.of_gateway(gateway),
        };
        policies.extend(self.at(Place::Namespace(workload.namespace.clone())));
        // A request that was routed to another service's endpoint, or addressed to the workload
        // itself, must not get around what is attached to the services it backs.
        if service.is_none_or(|service| !workload.services.contains_key(service)) {
            for service in workload.services.keys() {
                policies.extend(self.at_service(service));
            }
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

    fn of_gateway(&self, gateway: &Gateway) -> Vec<Arc<P>> {
        let target = PolicyTarget::Gateway {
            namespace: gateway.namespace.clone(),
            name: gateway.name.clone(),
        };
        let class = PolicyTarget::GatewayClass(gateway.class.clone());
        let places = [Place::Mesh, Place::Target(target), Place::Target(class)];
        places
            .into_iter()
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
