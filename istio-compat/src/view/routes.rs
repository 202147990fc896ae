//! Which routes are attached to which services, and where they send requests.

use std::collections::{BTreeMap, BTreeSet};

use crate::kind::Kind;
use crate::kinds::route::{BackendRef, ParentReference};
use crate::kinds::route_filter::HttpRouteFilter;
use crate::object::{Body, ObjectKey};

/// The group of ServiceEntry, and of the pseudo kind Hostname.
pub(crate) const ISTIO_GROUP: &str = "networking.istio.io";
pub(crate) const HOSTNAME: &str = "Hostname";

/// The routes of the mesh by the Services and ServiceEntries they name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    by_route: BTreeMap<ObjectKey, Ends>,
    by_parent: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    by_backend: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    by_hostname: BTreeMap<String, BTreeSet<ObjectKey>>,
}

/// What one route names.
#[derive(Clone, Debug, Default)]
struct Ends {
    parents: BTreeSet<ObjectKey>,
    backends: BTreeSet<ObjectKey>,
    /// Backends of kind Hostname, lower case.
    hostnames: BTreeSet<String>,
}

// === impl Routes ===

impl Routes {
    /// Takes in what became of a route; other kinds are none.
    pub(super) fn apply(&mut self, key: &ObjectKey, body: Option<&Body>) {
        if let Some(old) = self.by_route.remove(key) {
            forget(&mut self.by_parent, &old.parents, key);
            forget(&mut self.by_backend, &old.backends, key);
            forget(&mut self.by_hostname, &old.hostnames, key);
        }
        let Some(ends) = body.and_then(ends) else {
            return;
        };
        note(&mut self.by_parent, &ends.parents, key);
        note(&mut self.by_backend, &ends.backends, key);
        note(&mut self.by_hostname, &ends.hostnames, key);
        self.by_route.insert(key.clone(), ends);
    }

    pub(crate) fn attached_to(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_parent.get(service).into_iter().flatten()
    }

    pub(crate) fn sending_to(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_backend.get(service).into_iter().flatten()
    }

    /// Those with a backend of kind Hostname.
    pub(crate) fn sending_to_hostname(&self, hostname: &str) -> impl Iterator<Item = &ObjectKey> {
        self.by_hostname.get(hostname).into_iter().flatten()
    }

    /// The Services and ServiceEntries a route is attached to.
    pub(crate) fn parents(&self, route: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let ends = self.by_route.get(route).into_iter();
        ends.flat_map(|ends| &ends.parents)
    }

    /// Those it sends requests to.
    pub(crate) fn backends(&self, route: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let ends = self.by_route.get(route).into_iter();
        ends.flat_map(|ends| &ends.backends)
    }
}

type Routed<T> = BTreeMap<T, BTreeSet<ObjectKey>>;

fn note<T: Ord + Clone>(index: &mut Routed<T>, ends: &BTreeSet<T>, route: &ObjectKey) {
    for end in ends {
        let routes = index.entry(end.clone()).or_default();
        routes.insert(route.clone());
    }
}

fn forget<T: Ord>(index: &mut Routed<T>, ends: &BTreeSet<T>, route: &ObjectKey) {
    for end in ends {
        if let Some(routes) = index.get_mut(end) {
            routes.remove(route);
            if routes.is_empty() {
                index.remove(end);
            }
        }
    }
}

impl Ends {
    fn new(namespace: &str, parents: &[ParentReference]) -> Self {
        let parents = parents.iter().filter_map(|one| {
            let kind = service_kind(one.group(), one.kind())?;
            let namespace = one.namespace(namespace);
            Some(ObjectKey::new(kind, namespace, one.name.as_str()))
        });
        Self {
            parents: parents.collect(),
            ..Self::default()
        }
    }

    fn rule(&mut self, namespace: &str, filters: &[HttpRouteFilter], backends: &[BackendRef]) {
        self.mirrors(namespace, filters);
        for one in backends {
            self.backend(namespace, one);
            self.mirrors(namespace, &one.filters);
        }
    }

    fn mirrors(&mut self, namespace: &str, filters: &[HttpRouteFilter]) {
        for mirror in filters.iter().filter_map(|one| one.request_mirror.as_ref()) {
            self.backend(namespace, &mirror.backend_ref);
        }
    }

    fn backend(&mut self, namespace: &str, one: &BackendRef) {
        if let Some(kind) = service_kind(one.group(), one.kind()) {
            let namespace = one.namespace(namespace);
            let key = ObjectKey::new(kind, namespace, one.name.as_str());
            self.backends.insert(key);
        } else if (one.group(), one.kind()) == (ISTIO_GROUP, HOSTNAME) {
            self.hostnames.insert(one.name.to_ascii_lowercase());
        }
    }
}

fn ends(body: &Body) -> Option<Ends> {
    let namespace = &body.metadata().namespace;
    match body {
        Body::HttpRoute(route) => {
            let mut ends = Ends::new(namespace, &route.spec.parent_refs);
            for rule in &route.spec.rules {
                ends.rule(namespace, &rule.filters, &rule.backend_refs);
            }
            Some(ends)
        }
        Body::GrpcRoute(route) => {
            let mut ends = Ends::new(namespace, &route.spec.parent_refs);
            for rule in &route.spec.rules {
                ends.rule(namespace, &rule.filters, &rule.backend_refs);
            }
            Some(ends)
        }
        Body::TcpRoute(route) => {
            let mut ends = Ends::new(namespace, &route.spec.parent_refs);
            for rule in &route.spec.rules {
                ends.rule(namespace, &[], &rule.backend_refs);
            }
            Some(ends)
        }
        Body::Namespace(_)
        | Body::Node(_)
        | Body::ServiceAccount(_)
        | Body::ConfigMap(_)
        | Body::Pod(_)
        | Body::Deployment(_)
        | Body::Service(_)
        | Body::AuthorizationPolicy(_)
        | Body::PeerAuthentication(_)
        | Body::ServiceEntry(_)
        | Body::WorkloadEntry(_)
        | Body::RequestAuthentication(_)
        | Body::Gateway(_)
        | Body::GatewayClass(_)
        | Body::ReferenceGrant(_) => None,
    }
}

/// The kinds a mesh's route may name.
pub(crate) fn service_kind(group: &str, kind: &str) -> Option<Kind> {
    match (group, kind) {
        ("" | "core", "Service") => Some(Kind::Service),
        (ISTIO_GROUP, "ServiceEntry") => Some(Kind::ServiceEntry),
        _ => None,
    }
}
