//! The resources in force and the changes not yet taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use mesh::address::NamespacedHostname;
use mesh::authorization::{Authorization, PolicyKey};
use mesh::request_authentication::RequestAuthentication;
use mesh::route::{Route, RouteKey};
use mesh::service::Service;
use mesh::snapshot::Change;
use mesh::workload::{Workload, WorkloadUid};

/// Name of a resource within its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKey {
    Workload(WorkloadUid),
    Service(NamespacedHostname),
    Authorization(PolicyKey),
    Route(RouteKey),
    AuthorizationPolicy(PolicyKey),
    RequestAuthentication(PolicyKey),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    Workload(Arc<Workload>),
    Service(Arc<Service>),
    /// What of a policy nodes enforce.
    Authorization(Arc<Authorization>),
    Route(Arc<Route>),
    /// The whole policy, for waypoints.
    AuthorizationPolicy(Arc<Authorization>),
    RequestAuthentication(Arc<RequestAuthentication>),
}

#[derive(Debug, Default)]
pub(super) struct Published {
    made_by: HashMap<ObjectKey, BTreeSet<ResourceKey>>,
    /// By precedence; seldom more than one.
    offers: BTreeMap<ResourceKey, Vec<(ObjectKey, Resource)>>,
    /// Resources to compare with what was in force before, if anything was.
    touched: BTreeMap<ResourceKey, Option<Resource>>,
}

// === impl Resource ===

impl Resource {
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Workload(workload) => ResourceKey::Workload(workload.uid.clone()),
            Self::Service(service) => ResourceKey::Service(service.key()),
            Self::Authorization(policy) => ResourceKey::Authorization(policy.key()),
            Self::Route(route) => ResourceKey::Route(route.key.clone()),
            Self::AuthorizationPolicy(policy) => ResourceKey::AuthorizationPolicy(policy.key()),
            Self::RequestAuthentication(policy) => ResourceKey::RequestAuthentication(policy.key()),
        }
    }

    fn into_change(self) -> Change {
        match self {
            Self::Workload(workload) => Change::Workload(Arc::unwrap_or_clone(workload)),
            Self::Service(service) => Change::Service(Arc::unwrap_or_clone(service)),
            Self::Authorization(policy) => Change::Authorization(Arc::unwrap_or_clone(policy)),
            Self::Route(route) => Change::Route(Arc::unwrap_or_clone(route)),
            Self::AuthorizationPolicy(policy) => {
                Change::AuthorizationPolicy(Arc::unwrap_or_clone(policy))
            }
            Self::RequestAuthentication(policy) => {
                Change::RequestAuthentication(Arc::unwrap_or_clone(policy))
            }
        }
    }
}

// === impl ResourceKey ===

impl ResourceKey {
    fn removal(self) -> Change {
        match self {
            Self::Workload(uid) => Change::RemoveAddress(uid.0),
            Self::Service(key) => Change::RemoveAddress(key.to_string().into()),
            Self::Authorization(key) => Change::RemoveAuthorization(key),
            Self::Route(key) => Change::RemoveRoute(key),
            Self::AuthorizationPolicy(key) => Change::RemoveAuthorizationPolicy(key),
            Self::RequestAuthentication(key) => Change::RemoveRequestAuthentication(key),
        }
    }
}

// === impl Published ===

impl Published {
    /// Puts what a maker makes now in the place of what it made before.
    pub(super) fn replace(
        &mut self,
        maker: ObjectKey,
        resources: impl IntoIterator<Item = Resource>,
    ) {
        let mut made = self.made_by.remove(&maker).unwrap_or_default();
        let mut makes = BTreeSet::new();
        for resource in resources {
            let key = resource.key();
            if !makes.insert(key.clone()) {
                continue;
            }
            made.remove(&key);
            self.touch(&key);
            let offers = self.offers.entry(key).or_default();
            match offers.binary_search_by(|(known, _)| rank(known).cmp(&rank(&maker))) {
                Ok(at) => offers[at].1 = resource,
                Err(at) => offers.insert(at, (maker.clone(), resource)),
            }
        }
        for key in made {
            self.touch(&key);
            if let Some(offers) = self.offers.get_mut(&key) {
                offers.retain(|(by, _)| *by != maker);
                if offers.is_empty() {
                    self.offers.remove(&key);
                }
            }
        }
        if !makes.is_empty() {
            self.made_by.insert(maker, makes);
        }
    }

    fn touch(&mut self, key: &ResourceKey) {
        if !self.touched.contains_key(key) {
            let before = self.in_force(key).cloned();
            self.touched.insert(key.clone(), before);
        }
    }

    fn in_force(&self, key: &ResourceKey) -> Option<&Resource> {
        self.offers.get(key)?.first().map(|(_, resource)| resource)
    }

    /// What is in force now and was not at the last call, and what no longer is.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, before) in std::mem::take(&mut self.touched) {
            match self.in_force(&key) {
                Some(now) if before.as_ref() == Some(now) => {}
                Some(now) => changes.push(now.clone().into_change()),
                None if before.is_some() => changes.push(key.removal()),
                None => {}
            }
        }
        changes
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ResourceKey, &Resource)> {
        self.offers
            .iter()
            .filter_map(|(key, offers)| Some((key, &offers.first()?.1)))
    }
}

/// Whose resource is in force where two objects make one of the same name. An
/// AuthorizationPolicy comes last, so that none can take the place of the policy a
/// PeerAuthentication is converted to.
fn rank(maker: &ObjectKey) -> (bool, &ObjectKey) {
    (maker.kind == Kind::AuthorizationPolicy, maker)
}
