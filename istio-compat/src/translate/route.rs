//! What the routes of Gateway API have in common: their parents, their backends, their status.
//!
//! A mesh needs no ReferenceGrant (GEP-1294): a route may name a Service of any namespace as
//! its parent, which makes it a consumer route, and as its backend.

use std::collections::{BTreeMap, BTreeSet};

use mesh::address::NamespacedHostname;
use mesh::route::{
    Backend, BackendRef as MeshBackendRef, Route, RouteKey, RouteKind, RouteParent, RouteRules,
};

use crate::kind::Kind;
use crate::kinds::metadata::{Condition, ObjectMeta, PARTIALLY_INVALID};
use crate::kinds::route::{BackendRef, GATEWAY_GROUP, ParentReference, RouteParentStatus};
use crate::kinds::service::ServiceType;
use crate::object::ObjectKey;
use crate::translate::route_conflict::superior;
use crate::translate::{Translation, route_filter, service_entry, waypoint};
use crate::view::View;
use crate::view::routes::{HOSTNAME, ISTIO_GROUP, service_kind};

/// Who writes the status of routes on services.
pub(super) const CONTROLLER: &str = "istio.io/mesh-controller";

/// What of a route can't be honoured: a reason as Gateway API names it, and the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A route while it is translated; collects what is wrong with it.
pub(super) struct Translating<'a> {
    pub(super) view: &'a View,
    pub(super) namespace: &'a str,
    /// Of backends and filters: condition ResolvedRefs.
    unresolved: Vec<Refused>,
    /// How many rules there are, and the index of the one that is being translated.
    rules: usize,
    rule: usize,
    /// What is wrong with rules that are not in force as they are written: the first of each.
    invalid: BTreeMap<usize, String>,
    /// Those of them that are left out.
    dropped: BTreeSet<usize>,
}

// === impl Refused ===

impl Refused {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

// === impl Translating ===

impl<'a> Translating<'a> {
    /// Translates a route whose rules come to what `rules` says.
    pub(super) fn route(
        view: &'a View,
        kind: RouteKind,
        metadata: &'a ObjectMeta,
        parent_refs: &[ParentReference],
        rules: impl FnOnce(&mut Self) -> RouteRules,
    ) -> Translation {
        let (namespace, name) = (metadata.namespace.as_str(), metadata.name.as_str());
        let mut translating = Self {
            view,
            namespace,
            unresolved: Vec::new(),
            rules: 0,
            rule: 0,
            invalid: BTreeMap::new(),
            dropped: BTreeSet::new(),
        };
        let rules = rules(&mut translating);
        let key = RouteKey::new(kind, namespace, name);
        translating.finish(key, metadata, parent_refs, rules)
    }

    /// What each rule comes to; nothing for those that are left out.
    pub(super) fn rules<W, R>(
        &mut self,
        written: &[W],
        rule: impl Fn(&mut Self, &W) -> Option<R>,
    ) -> Vec<R> {
        self.rules = written.len();
        let mut rules = Vec::new();
        for (index, one) in written.iter().enumerate() {
            self.rule = index;
            rules.extend(rule(self, one));
        }
        rules
    }

    /// Of a backend or a filter.
    pub(super) fn unresolved(&mut self, refused: Refused) {
        self.unresolved.push(refused);
    }

    /// Of the rule, whose requests are answered with 500: without its filter they would be others.
    pub(super) fn invalid_filter(&mut self, message: String) {
        self.invalid
            .entry(self.rule)
            .or_insert_with(|| message.clone());
        self.unresolved(Refused::new("InvalidFilter", message));
    }

    /// Of the rule, which is left out.
    pub(super) fn unsupported(&mut self, message: String) {
        self.dropped.insert(self.rule);
        self.invalid.entry(self.rule).or_insert(message);
    }

    /// Where requests go, or why they are answered with an error instead.
    pub(super) fn backend_ref(&mut self, backend: &BackendRef) -> MeshBackendRef {
        match resolve(self.view, self.namespace, backend) {
            Ok((service, port)) => MeshBackendRef::Service {
                service,
                port,
                subset: None,
            },
            Err(refused) => {
                let reason = refused.message.as_str().into();
                self.unresolved(refused);
                MeshBackendRef::Invalid(reason)
            }
        }
    }

    pub(super) fn backends(&mut self, backends: &[BackendRef]) -> Vec<Backend> {
        backends
            .iter()
            .map(|one| {
                let backend = self.backend_ref(one);
                let (filters, unknown) = route_filter::translate(self, &one.filters);
                Backend {
                    // What a filter that is not known would have done can't be left out.
                    backend: unknown.map_or(backend, MeshBackendRef::Invalid),
                    weight: one.weight(),
                    filters,
                }
            })
            .collect()
    }

    /// Why nothing of the route is in force as it is written, where rules of it are left out.
    fn no_rule_left(&self) -> Option<Refused> {
        let dropped = self
            .dropped
            .first()
            .filter(|_| self.invalid.len() == self.rules)?;
        Some(Refused::new(
            "UnsupportedValue",
            self.invalid.get(dropped)?.as_str(),
        ))
    }

    /// The condition of a route of which only a part is in force as it is written. The first words are
    /// the API's.
    fn partially_invalid(&self) -> Option<Condition> {
        if self.invalid.is_empty() || self.invalid.len() == self.rules {
            return None;
        }
        let rules = self.invalid.iter();
        let rules: Vec<_> = rules
            .map(|(index, message)| format!("spec.rules[{index}]: {message}"))
            .collect();
        let message = format!("Dropped Rule {}", rules.join("; "));
        Some(Condition::new(
            PARTIALLY_INVALID,
            true,
            "UnsupportedValue",
            message,
        ))
    }

    /// The route, attached to the parents that accept it, and what each makes of it.
    fn finish(
        self,
        key: RouteKey,
        metadata: &ObjectMeta,
        parent_refs: &[ParentReference],
        rules: RouteRules,
    ) -> Translation {
        let mut parents: Vec<RouteParent> = Vec::new();
        let mut statuses = Vec::new();
        for reference in parent_refs {
            let attached = attach(self.view, self.namespace, reference);
            let accepted = match &attached {
                Err(refused) => Err(refused.clone()),
                Ok(_) => self.no_rule_left().map_or(Ok(()), Err),
            };
            let accepted = accepted.and_then(|()| {
                superior(self.view, &key, reference).map_or(Ok(()), |other| {
                    Err(Refused::new(
                        "RouteConflict",
                        format!("{other} is attached to the same port and takes precedence"),
                    ))
                })
            });
            let partially_invalid = accepted.is_ok().then(|| self.partially_invalid()).flatten();
            let mut conditions = vec![
                condition(
                    "Accepted",
                    accepted.err().as_ref(),
                    "attached to the service",
                ),
                condition(
                    "ResolvedRefs",
                    self.unresolved.first(),
                    "all references resolve",
                ),
            ];
            conditions.extend(partially_invalid);
            if attached.is_ok() {
                let of_service = service_kind(reference.group(), reference.kind())
                    .map(|kind| (kind, reference.namespace(self.namespace)));
                conditions.extend(of_service.map(|(kind, namespace)| {
                    waypoint::status::of_route_parent(
                        self.view,
                        &ObjectKey::new(kind, namespace, reference.name.as_str()),
                    )
                }));
            }
            statuses.push(RouteParentStatus {
                parent_ref: reference.clone(),
                controller_name: CONTROLLER.to_owned(),
                conditions,
            });
            for parent in attached.into_iter().flatten() {
                if !parents.contains(&parent) {
                    parents.push(parent);
                }
            }
        }
        let conditions = overall(&statuses);
        let routes = (!parents.is_empty()).then(|| Route {
            key,
            parents,
            created: metadata.created(),
            rules,
        });
        Translation {
            routes: routes.into_iter().collect(),
            conditions,
            parents: statuses,
            ..Translation::default()
        }
    }
}

fn condition(type_: &str, refused: Option<&Refused>, otherwise: &str) -> Condition {
    match refused {
        Some(refused) => Condition::new(type_, false, refused.reason, refused.message.as_str()),
        None => Condition::new(type_, true, type_, otherwise),
    }
}

/// Of each type of condition the first by which something is amiss with a parent, else the first.
fn overall(statuses: &[RouteParentStatus]) -> Vec<Condition> {
    let all = || statuses.iter().flat_map(|status| &status.conditions);
    let types: BTreeSet<&str> = all().map(|one| one.type_.as_str()).collect();
    types
        .into_iter()
        .filter_map(|type_| {
            let of_type = || all().filter(|one| one.type_ == type_);
            of_type().find(|one| one.is_amiss()).or(of_type().next())
        })
        .cloned()
        .collect()
}

/// The services that a reference to a parent stands for: a ServiceEntry has one per host.
fn attach(
    view: &View,
    namespace: &str,
    reference: &ParentReference,
) -> Result<Vec<RouteParent>, Refused> {
    let unsupported = |message: String| Err(Refused::new("UnsupportedValue", message));
    let (group, kind, name) = (reference.group(), reference.kind(), &reference.name);
    let parent_namespace = reference.namespace(namespace);
    let Some(known) = service_kind(group, kind) else {
        return match (group, kind) {
            (GATEWAY_GROUP, "Gateway") => unsupported(format!(
                "Gateway {parent_namespace}/{name} is not served: routes are for Services and \
                 ServiceEntries, not yet for ingress"
            )),
            _ => unsupported(format!(
                "{kind} ({group}) is no parent: use a Service, or a ServiceEntry of {ISTIO_GROUP}"
            )),
        };
    };
    let missing = |what: String| Refused::new("NoMatchingParent", what);
    let object = format!("{kind} {parent_namespace}/{name}");
    let contents = view.contents(parent_namespace);
    let hostnames: Vec<String> = match known {
        Kind::Service => {
            let service = contents.and_then(|contents| contents.services.get(name.as_str()));
            let service = service.ok_or_else(|| missing(format!("there is no {object}")))?;
            if service.spec.type_ == ServiceType::ExternalName {
                return unsupported(format!(
                    "{object} is of type ExternalName: nothing is attached"
                ));
            }
            if service.is_headless() {
                return unsupported(format!(
                    "{object} is headless and has no address of its own: nothing is attached"
                ));
            }
            vec![view.context.service_hostname(name, parent_namespace)]
        }
        _ => {
            let entry = contents.and_then(|contents| contents.service_entries.get(name.as_str()));
            let entry = entry.ok_or_else(|| missing(format!("there is no {object}")))?;
            let hosts = service_entry::owned_hosts(view, entry).map(str::to_owned);
            hosts.collect()
        }
    };
    let port = match parent_port(view, namespace, reference) {
        ParentPort::All => None,
        ParentPort::One(port) => Some(port),
        ParentPort::None => {
            let name = reference.section_name.as_deref().unwrap_or_default();
            let number = reference
                .port
                .map_or(String::new(), |port| port.to_string());
            let port = [name, &number].join(" ");
            return Err(missing(format!("{object} has no port {}", port.trim())));
        }
    };
    let clients = (parent_namespace != namespace).then(|| namespace.into());
    Ok(hostnames
        .into_iter()
        .map(|hostname| RouteParent {
            service: NamespacedHostname::new(parent_namespace, hostname),
            port,
            clients: clients.clone(),
        })
        .collect())
}

/// Which ports of a service a reference to a parent is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParentPort {
    All,
    One(u16),
    /// It names one that isn't there.
    None,
}

/// A `sectionName` is the name of a port; beside `port`, both have to be the same one's.
pub(super) fn parent_port(view: &View, namespace: &str, reference: &ParentReference) -> ParentPort {
    let name = reference.section_name.as_deref();
    if name.is_none() && reference.port.is_none() {
        return ParentPort::All;
    }
    let kind = service_kind(reference.group(), reference.kind());
    let namespace = reference.namespace(namespace);
    let ports = kind.map_or(Vec::new(), |kind| {
        named_ports_of(
            view,
            &ObjectKey::new(kind, namespace, reference.name.as_str()),
        )
    });
    let mut ports = ports.into_iter().filter(|(port, known)| {
        name.is_none_or(|name| name == *known) && reference.port.is_none_or(|one| one == *port)
    });
    ports
        .next()
        .map_or(ParentPort::None, |(port, _)| ParentPort::One(port))
}

fn resolve(
    view: &View,
    namespace: &str,
    backend: &BackendRef,
) -> Result<(NamespacedHostname, u16), Refused> {
    let (group, kind, name) = (backend.group(), backend.kind(), &backend.name);
    let namespace = backend.namespace(namespace);
    let missing = |message: String| Refused::new("BackendNotFound", message);
    let (object, service, ports): (_, _, Vec<u16>) = match (group, kind) {
        ("" | "core", "Service") => {
            let object = format!("Service {namespace}/{name}");
            let services = view.contents(namespace).map(|contents| &contents.services);
            let service = services.and_then(|services| services.get(name.as_str()));
            let service = service.ok_or_else(|| missing(format!("there is no {object}")))?;
            if service.spec.type_ == ServiceType::ExternalName {
                return Err(Refused::new(
                    "UnsupportedValue",
                    format!("{object} is of type ExternalName and has no endpoints"),
                ));
            }
            let hostname = view.context.service_hostname(name, namespace);
            (
                object,
                NamespacedHostname::new(namespace, hostname),
                service.spec.ports.iter().map(|port| port.port).collect(),
            )
        }
        (ISTIO_GROUP, HOSTNAME) => {
            let object = format!("host {name}");
            let owner = view.owner(name, None);
            let owner = owner.ok_or_else(|| missing(format!("no service has {object}")))?;
            let service = NamespacedHostname::new(owner.namespace.clone(), name.as_str());
            (object, service, ports_of(view, owner))
        }
        _ => {
            return Err(Refused::new(
                "InvalidKind",
                format!("{kind} ({group}) is no backend: use a Service"),
            ));
        }
    };
    match backend.port {
        Some(port) if ports.contains(&port) => Ok((service, port)),
        Some(port) => Err(missing(format!("{object} has no port {port}"))),
        None => Err(Refused::new(
            "UnsupportedValue",
            format!("a port of {object} is not named"),
        )),
    }
}

fn ports_of(view: &View, owner: &ObjectKey) -> Vec<u16> {
    let ports = named_ports_of(view, owner).into_iter();
    ports.map(|(port, _)| port).collect()
}

fn named_ports_of<'a>(view: &'a View, owner: &ObjectKey) -> Vec<(u16, &'a str)> {
    let Some(contents) = view.contents(&owner.namespace) else {
        return Vec::new();
    };
    match owner.kind {
        Kind::Service => {
            let service = contents.services.get(&owner.name);
            let ports = service.into_iter().flat_map(|one| &one.spec.ports);
            ports.map(|port| (port.port, port.name.as_str())).collect()
        }
        _ => {
            let entry = contents.service_entries.get(&owner.name);
            let ports = entry.into_iter().flat_map(|one| &one.spec.ports);
            ports
                .map(|port| (port.number, port.name.as_str()))
                .collect()
        }
    }
}
