//! Why a service needs a waypoint, and why a workload does when it is dialled itself.
//!
//! A route is about a service. A policy that only a waypoint can enforce is about workloads
//! too: it must not be bypassed by dialling one.

use std::collections::BTreeSet;
use std::fmt;

use mesh::workload::Memberships;
use serde::Serialize;

use crate::kind::Kind;
use crate::kinds::authorization_policy::{Action, AuthorizationPolicy, PolicyTargetReference};
use crate::kinds::selector::{Labels, WorkloadSelector, labels_match};
use crate::kinds::service::ServiceType;
use crate::object::{Object, ObjectKey, Resource};
use crate::view::{Contents, View};
use crate::waypoint::attributes;

/// One object that needs a waypoint in front of another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    pub object: ObjectKey,
    pub need: Need,
}

/// What of it needs one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Need {
    /// It routes the service's requests.
    Route,
    /// Its `targetRefs` name the service.
    Target,
    /// Its `targetRefs` name another service, which leads to the same port of the same pods: their
    /// nodes let in nobody but the waypoint.
    Guard(ObjectKey),
    /// It covers the service or its pods, and is about requests.
    Attributes { rule: usize, paths: Vec<String> },
    /// It covers the service or its pods, and is about their requests' tokens.
    Tokens,
}

impl View {
    /// Why a Service or ServiceEntry needs a waypoint. Empty for what never gets one.
    pub fn reasons(&self, service: &ObjectKey) -> Vec<Reason> {
        let routes = self.routes.attached_to(service);
        let mut reasons: BTreeSet<Reason> = routes
            .filter(|_| self.takes_routes(service))
            .map(|route| Reason {
                object: route.clone(),
                need: Need::Route,
            })
            .collect();
        reasons.extend(self.policies_targeting(service));
        reasons.extend(self.policies_guarding(service));
        reasons.extend(self.policies_covering(&service.namespace, |labels| {
            self.is_backed_by(service, labels)
        }));
        reasons.into_iter().collect()
    }

    /// The policies that only a waypoint can enforce on a workload with these labels behind
    /// these services.
    pub(crate) fn reasons_of_workload(
        &self,
        namespace: &str,
        labels: &Labels,
        services: &[ObjectKey],
    ) -> Vec<Reason> {
        let mut reasons: BTreeSet<Reason> = self
            .policies_covering(namespace, |selector| labels_match(selector, labels))
            .collect();
        for service in services {
            reasons.extend(self.policies_targeting(service));
        }
        reasons.into_iter().collect()
    }

    /// The objects behind the hostnames that a workload backs.
    pub(crate) fn owners(&self, namespace: &str, services: &Memberships) -> Vec<ObjectKey> {
        let owners = services
            .keys()
            .filter_map(|service| self.owner(&service.hostname, Some(namespace)));
        owners.cloned().collect()
    }

    pub(crate) fn policies_targeting<'a>(
        &'a self,
        service: &'a ObjectKey,
    ) -> impl Iterator<Item = Reason> + 'a {
        let named = move |target: &PolicyTargetReference| {
            target.kind == service.kind.name() && *target.name == *service.name
        };
        let contents = self.contents(&service.namespace).into_iter();
        contents.flat_map(move |contents| {
            let policies = contents.authorization_policies.values();
            let policies = policies
                .filter(move |policy| policy.spec.targets().any(named))
                .map(|policy| policy.key());
            let authentications = contents.request_authentications.values();
            let authentications = authentications
                .filter(move |policy| policy.spec.targets().any(named))
                .map(|policy| policy.key());
            policies.chain(authentications).map(|object| Reason {
                object,
                need: Need::Target,
            })
        })
    }

    /// The policies of the namespace and of the root namespace that are about requests.
    /// A Service without an address of its own has nothing that a route could be attached to.
    fn takes_routes(&self, service: &ObjectKey) -> bool {
        let contents = self.contents(&service.namespace);
        let known = contents
            .filter(|_| service.kind == Kind::Service)
            .and_then(|contents| contents.services.get(&service.name));
        known.is_none_or(|known| {
            !known.is_headless() && known.spec.type_ != ServiceType::ExternalName
        })
    }

    fn policies_covering<'a>(
        &'a self,
        namespace: &str,
        covers: impl Fn(&Labels) -> bool + Copy + 'a,
    ) -> impl Iterator<Item = Reason> + 'a {
        let root = &*self.context.root_namespace;
        let namespaces = BTreeSet::from([namespace, root]);
        let contents: Vec<&Contents> = namespaces
            .into_iter()
            .filter_map(|namespace| self.contents(namespace))
            .collect();
        let selects = move |selector: Option<&WorkloadSelector>| {
            selector.is_none_or(|selector| covers(&selector.match_labels))
        };
        contents.into_iter().flat_map(move |contents| {
            let policies = contents.authorization_policies.values();
            let policies = policies.filter_map(move |policy| {
                let attributes = needs_requests(policy)?;
                selects(policy.spec.selector.as_ref()).then(|| Reason {
                    object: policy.key(),
                    need: Need::Attributes {
                        rule: attributes.rule,
                        paths: attributes.paths,
                    },
                })
            });
            let authentications = contents.request_authentications.values();
            let authentications = authentications
                .filter(move |policy| {
                    policy.spec.targets().next().is_none() && selects(policy.spec.selector.as_ref())
                })
                .map(|policy| Reason {
                    object: policy.key(),
                    need: Need::Tokens,
                });
            policies.chain(authentications)
        })
    }

    /// Whether a workload behind the service carries the labels; the empty selector chooses
    /// any service, also one that has no workload yet.
    pub(crate) fn is_backed_by(&self, service: &ObjectKey, selector: &Labels) -> bool {
        if selector.is_empty() {
            return true;
        }
        let Some(contents) = self.contents(&service.namespace) else {
            return false;
        };
        let inline = match service.kind {
            Kind::Service => None,
            _ => contents.service_entries.get(&service.name),
        };
        let inline = inline.into_iter().flat_map(|entry| &entry.spec.endpoints);
        let mut inline = inline.map(|endpoint| &endpoint.labels);
        if inline.any(|labels| labels_match(selector, labels)) {
            return true;
        }
        let Some(behind) = contents.selector(service) else {
            return false;
        };
        let chosen =
            |labels: &Labels| labels_match(behind, labels) && labels_match(selector, labels);
        let mut pods = contents.pods.values();
        let mut entries = contents.workload_entries.values();
        pods.any(|pod| chosen(&pod.metadata.labels)) || entries.any(|one| chosen(&one.labels()))
    }
}

/// What of a policy without `targetRefs` only a waypoint can know.
pub(crate) fn needs_requests(policy: &AuthorizationPolicy) -> Option<attributes::Attributes> {
    if policy.spec.targets().next().is_some() {
        return None;
    }
    match policy.spec.action {
        Action::Allow | Action::Deny | Action::Audit => attributes::of(policy),
        // Nobody is asked yet: a waypoint denies what a node would let through.
        Action::Custom => Some(attributes::Attributes {
            rule: 1,
            paths: vec!["action CUSTOM".to_owned()],
        }),
    }
}

// === impl Reason ===

impl Reason {
    /// What it is, for a person; it stands after the object's name.
    pub fn sentence(&self) -> String {
        match &self.need {
            Need::Route => "is attached to it".to_owned(),
            Need::Target => "targets it".to_owned(),
            Need::Guard(service) => format!("targets {service}, which leads to the same pods"),
            Need::Attributes { rule, paths } => {
                format!("covers it, and its rule {rule} uses {}", paths.join(", "))
            }
            Need::Tokens => "covers it, and is about tokens of requests".to_owned(),
        }
    }

    /// Where it was written: of a policy's rule, the rule.
    pub fn line(&self, object: &Object) -> u32 {
        match &self.need {
            Need::Attributes { rule, .. } => object.rule_line(rule.saturating_sub(1)),
            Need::Route | Need::Target | Need::Guard(_) | Need::Tokens => object.origin.line,
        }
    }

    /// Whether it is a policy: what a node can't enforce, and what dialling a pod must not
    /// bypass.
    pub fn is_policy(&self) -> bool {
        match self.need {
            Need::Route => false,
            Need::Target | Need::Guard(_) | Need::Attributes { .. } | Need::Tokens => true,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.sentence())
    }
}
