//! Which routes are attached to which services, and where they send requests.

use std::collections::{BTreeMap, BTreeSet};

use crate::kind::Kind;
use crate::kinds::route::{BackendRef, ParentReference};
use crate::kinds::route_filter::HttpRouteFilter;
use crate::object::{Body, ObjectKey};

/// The routes of the mesh by the Services and ServiceEntries they name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routes {
    by_route: BTreeMap<ObjectKey, Ends>,
    by_parent: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    by_backend: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// What one route names.
#[derive(Clone, Debug, Default)]
struct Ends {
    parents: BTreeSet<ObjectKey>,
    backends: BTreeSet<ObjectKey>,
}

// === impl Routes ===

impl Routes {
    /// Takes in what became of a route; other kinds are none.
    pub(super) fn apply(&mut self, key: &ObjectKey, body: Option<&Body>) {
        if let Some(old) = self.by_route.remove(key) {
            forget(&mut self.by_parent, &old.parents, key);
            forget(&mut self.by_backend, &old.backends, key);
        }
        let Some(ends) = body.and_then(ends) else {
            return;
        };
        note(&mut self.by_parent, &ends.parents, key);
        note(&mut self.by_backend, &ends.backends, key);
        self.by_route.insert(key.clone(), ends);
    }

    pub(crate) fn attached_to(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_parent.get(service).into_iter().flatten()
    }

    pub(crate) fn sending_to(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.by_backend.get(service).into_iter().flatten()
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

type ByService = BTreeMap<ObjectKey, BTreeSet<ObjectKey>>;

fn note(index: &mut ByService, services: &BTreeSet<ObjectKey>, route: &ObjectKey) {
    for service in services {
        let routes = index.entry(service.clone()).or_default();
        routes.insert(route.clone());
    }
}

fn forget(index: &mut ByService, services: &BTreeSet<ObjectKey>, route: &ObjectKey) {
    for service in services {
        if let Some(routes) = index.get_mut(service) {
            routes.remove(route);
            if routes.is_empty() {
                index.remove(service);
            }
        }
    }
}

fn ends(body: &Body) -> Option<Ends> {
    let namespace = &body.metadata().namespace;
    let parents = |parents: &[ParentReference]| {
        let keys = parents.iter().filter_map(|one| {
            let kind = service_kind(one.group(), one.kind())?;
            let namespace = one.namespace(namespace);
            Some(ObjectKey::new(kind, namespace, one.name.as_str()))
        });
        keys.collect()
    };
    let backend = |one: &BackendRef| {
        let kind = service_kind(one.group(), one.kind())?;
        let namespace = one.namespace(namespace);
        Some(ObjectKey::new(kind, namespace, one.name.as_str()))
    };
    let mirrored = |filters: &[HttpRouteFilter]| -> Vec<ObjectKey> {
        let mirrors = filters.iter().filter_map(|one| one.request_mirror.as_ref());
        mirrors
            .filter_map(|one| backend(&one.backend_ref))
            .collect()
    };
    let of_rule = |filters: &[HttpRouteFilter], backends: &[BackendRef]| -> Vec<ObjectKey> {
        let mut keys = mirrored(filters);
        for one in backends {
            keys.extend(backend(one));
            keys.extend(mirrored(&one.filters));
        }
        keys
    };
    match body {
        Body::HttpRoute(route) => Some(Ends {
            parents: parents(&route.spec.parent_refs),
            backends: (route.spec.rules.iter())
                .flat_map(|rule| of_rule(&rule.filters, &rule.backend_refs))
                .collect(),
        }),
        Body::GrpcRoute(route) => Some(Ends {
            parents: parents(&route.spec.parent_refs),
            backends: (route.spec.rules.iter())
                .flat_map(|rule| of_rule(&rule.filters, &rule.backend_refs))
                .collect(),
        }),
        Body::TcpRoute(route) => Some(Ends {
            parents: parents(&route.spec.parent_refs),
            backends: (route.spec.rules.iter())
                .flat_map(|rule| of_rule(&[], &rule.backend_refs))
                .collect(),
        }),
        Body::Namespace(_)
        | Body::Node(_)
        | Body::ServiceAccount(_)
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
fn service_kind(group: &str, kind: &str) -> Option<Kind> {
    match (group, kind) {
        ("" | "core", "Service") => Some(Kind::Service),
        ("networking.istio.io", "ServiceEntry") => Some(Kind::ServiceEntry),
        _ => None,
    }
}
