//! What `targetRefs` of policies stand for, and whether something enforces them there.

use std::collections::BTreeSet;

use mesh::address::NamespacedHostname;
use mesh::authorization::Scope;
use mesh::policy_target::PolicyTarget;

use crate::kind::Kind;
use crate::kinds::authorization_policy::PolicyTargetReference;
use crate::kinds::metadata::{Condition, ObjectMeta};
use crate::translate::{service_entry, waypoint};
use crate::view::View;
use crate::waypoint::{WaypointName, gateway};

pub(super) const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// Where a policy applies, by what it says.
pub(super) fn scope(view: &View, namespace: &str, selects: bool, targets: bool) -> Scope {
    if targets {
        Scope::Target
    } else if selects {
        Scope::WorkloadSelector
    } else if *namespace == *view.context.root_namespace {
        Scope::Global
    } else {
        Scope::Namespace
    }
}

/// A Service is known by its name alone, there or not, so that a policy is in force from the
/// first moment of its target.
pub(super) fn resolve<'a>(
    view: &View,
    namespace: &str,
    targets: impl Iterator<Item = &'a PolicyTargetReference>,
) -> Vec<PolicyTarget> {
    let mut resolved = Vec::new();
    for target in targets {
        let name = target.name.as_str();
        match Kind::of(&target.kind) {
            Some(Kind::Service) => {
                let hostname = view.context.service_hostname(name, namespace);
                let service = NamespacedHostname::new(namespace, hostname);
                resolved.push(PolicyTarget::Service(service));
            }
            Some(Kind::ServiceEntry) => {
                let entries = view.contents(namespace).map(|one| &one.service_entries);
                if let Some(entry) = entries.and_then(|entries| entries.get(name)) {
                    let hosts = service_entry::owned_hosts(view, entry);
                    resolved.extend(hosts.map(|host| {
                        PolicyTarget::Service(NamespacedHostname::new(namespace, host))
                    }));
                }
            }
            Some(Kind::Gateway) => resolved.push(PolicyTarget::Gateway {
                namespace: namespace.into(),
                name: name.into(),
            }),
            Some(Kind::GatewayClass) if *namespace == *view.context.root_namespace => {
                resolved.push(PolicyTarget::GatewayClass(name.into()));
            }
            _ => {}
        }
    }
    resolved
}

/// Accepted where a waypoint stands in front of every target.
pub(super) fn condition<'a>(
    view: &View,
    namespace: &str,
    targets: impl Iterator<Item = &'a PolicyTargetReference>,
) -> Condition {
    let refused =
        |reason, message: String| Condition::new(WAYPOINT_ACCEPTED, false, reason, message);
    let mut waypoints = BTreeSet::new();
    let mut classes = BTreeSet::new();
    for target in targets {
        let (kind, name) = (&target.kind, &target.name);
        let missing = || {
            refused(
                "TargetNotFound",
                format!("there is no {kind} {namespace}/{name}"),
            )
        };
        match Kind::of(kind) {
            Some(service @ (Kind::Service | Kind::ServiceEntry)) => {
                let Some(metadata) = service_metadata(view, namespace, service, name) else {
                    return missing();
                };
                match waypoint::of_service(view, service, metadata) {
                    None => {
                        return refused(
                            "AncestorNotBound",
                            format!(
                                "{kind} {namespace}/{name} wants no waypoint: the policy has no \
                                 effect"
                            ),
                        );
                    }
                    Some(front) if !front.condition.is_true() => {
                        return refused("AncestorNotBound", front.condition.message);
                    }
                    Some(front) => {
                        waypoints.insert(front.binding.waypoint);
                    }
                }
            }
            Some(Kind::Gateway) => {
                let gateways = view.contents(namespace).map(|one| &one.gateways);
                let Some(gateway) = gateways.and_then(|gateways| gateways.get(name.as_str()))
                else {
                    return missing();
                };
                let waypoint = WaypointName::new(namespace, name.as_str());
                if !gateway::is_waypoint(view, gateway) {
                    return refused(
                        "Invalid",
                        format!("Gateway {waypoint} is no waypoint: the policy has no effect"),
                    );
                }
                if !view.is_ready(&waypoint) {
                    return refused(
                        "AncestorNotBound",
                        format!("waypoint {waypoint} is not ready"),
                    );
                }
                waypoints.insert(waypoint);
            }
            Some(Kind::GatewayClass) => {
                if *namespace != *view.context.root_namespace {
                    return refused(
                        "Invalid",
                        format!(
                            "a policy for a GatewayClass belongs in namespace {}",
                            view.context.root_namespace
                        ),
                    );
                }
                classes.insert(format!("every waypoint of class {name}"));
            }
            _ => {
                return refused(
                    "Invalid",
                    format!(
                        "{kind} can't be targeted: use Service, ServiceEntry, Gateway or \
                         GatewayClass"
                    ),
                );
            }
        }
    }
    let waypoints = waypoints.iter().map(|name| format!("waypoint {name}"));
    let by: Vec<String> = waypoints.chain(classes).collect();
    let message = format!("enforced by {}", by.join(", "));
    Condition::new(WAYPOINT_ACCEPTED, true, "Accepted", message)
}

fn service_metadata<'a>(
    view: &'a View,
    namespace: &str,
    kind: Kind,
    name: &str,
) -> Option<&'a ObjectMeta> {
    let contents = view.contents(namespace)?;
    match kind {
        Kind::Service => contents.services.get(name).map(|one| &one.metadata),
        _ => contents.service_entries.get(name).map(|one| &one.metadata),
    }
}
