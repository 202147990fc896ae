//! AuthorizationPolicy to what the node can enforce: where it applies, and its status.

mod rules;

use std::collections::BTreeSet;

use mesh::authorization::{Action as MeshAction, Authorization, PolicyKey, Scope};

use crate::kind::Kind;
use crate::kinds::authorization_policy::{Action, AuthorizationPolicy, PolicyTargetReference};
use crate::kinds::metadata;
use crate::kinds::selector::{Labels, labels_match};
use crate::labels;
use crate::translate::authorization_policy::rules::Losses;
use crate::translate::{Translation, waypoint};
use crate::view::View;

const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";
const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

pub(super) fn translate(view: &View, policy: &AuthorizationPolicy) -> Translation {
    if policy.spec.targets().next().is_some() {
        return Translation {
            conditions: vec![targets_condition(view, policy)],
            ..Translation::default()
        };
    }
    let enforcement = match enforcement(view, policy) {
        Ok(enforcement) => enforcement,
        Err(reason) => {
            return Translation {
                conditions: vec![unsupported(reason)],
                ..Translation::default()
            };
        }
    };
    let mut losses = Losses::default();
    let rules = policy
        .spec
        .rules
        .iter()
        .filter_map(|one| {
            rules::translate(
                enforcement.action,
                &policy.metadata.namespace,
                one,
                &mut losses,
            )
        })
        .collect();
    Translation {
        authorizations: vec![Authorization {
            name: policy.metadata.name.as_str().into(),
            namespace: policy.metadata.namespace.as_str().into(),
            scope: scope(view, policy),
            action: enforcement.action,
            dry_run: enforcement.dry_run,
            targets: Vec::new(),
            rules,
        }],
        conditions: vec![losses.condition(enforcement.action)],
        ..Translation::default()
    }
}

/// The policies with a selector that choose a workload, of those that the node is sent:
/// naming another would leave the workload waiting for it for ever.
pub(super) fn selecting(view: &View, namespace: &str, labels: &Labels) -> Vec<PolicyKey> {
    let namespaces = BTreeSet::from([namespace, &*view.context.root_namespace]);
    namespaces
        .into_iter()
        .filter_map(|namespace| view.contents(namespace))
        .flat_map(|contents| contents.authorization_policies.values())
        .filter(|policy| {
            let selector = policy.spec.selector.as_ref();
            selector.is_some_and(|selector| labels_match(&selector.match_labels, labels))
                && policy.spec.targets().next().is_none()
                && enforcement(view, policy).is_ok()
        })
        .map(|policy| {
            let metadata = &policy.metadata;
            PolicyKey::new(metadata.namespace.as_str(), metadata.name.as_str())
        })
        .collect()
}

fn scope(view: &View, policy: &AuthorizationPolicy) -> Scope {
    if policy.spec.selector.is_some() {
        Scope::WorkloadSelector
    } else if *policy.metadata.namespace == *view.context.root_namespace {
        Scope::Global
    } else {
        Scope::Namespace
    }
}

struct Enforcement {
    action: MeshAction,
    dry_run: bool,
}

/// How the node enforces the policy, or why it does not.
fn enforcement(view: &View, policy: &AuthorizationPolicy) -> Result<Enforcement, &'static str> {
    let dry_run = policy.metadata.annotation(labels::DRY_RUN) == Some("true");
    if dry_run && !view.context.dry_run_policies {
        return Err("dry-run policies are not sent to nodes: the policy has no effect");
    }
    let action = match policy.spec.action {
        Action::Allow => MeshAction::Allow,
        Action::Deny => MeshAction::Deny,
        Action::Audit => return Err("nodes do not support action AUDIT: nothing is logged"),
        Action::Custom => {
            return Err("nodes do not support action CUSTOM: the policy is not enforced");
        }
    };
    Ok(Enforcement { action, dry_run })
}

// === status ===

fn unsupported(message: impl Into<String>) -> metadata::Condition {
    metadata::Condition::new(ZTUNNEL_ACCEPTED, false, "UnsupportedValue", message)
}

fn targets_condition(view: &View, policy: &AuthorizationPolicy) -> metadata::Condition {
    let namespace = &policy.metadata.namespace;
    let refused = |reason, message: String| {
        metadata::Condition::new(WAYPOINT_ACCEPTED, false, reason, message)
    };
    let mut waypoints = BTreeSet::new();
    for target in policy.spec.targets() {
        let (kind, name) = (&target.kind, &target.name);
        let Some(metadata) = target_metadata(view, namespace, target) else {
            return refused(
                "TargetNotFound",
                format!("there is no {kind} {namespace}/{name}"),
            );
        };
        let front = service_kind(kind).and_then(|kind| waypoint::of_service(view, kind, metadata));
        let Some(front) = front else {
            return refused(
                "AncestorNotBound",
                format!("{kind} {namespace}/{name} wants no waypoint: the policy has no effect"),
            );
        };
        if !front.condition.is_true() {
            return refused("AncestorNotBound", front.condition.message);
        }
        waypoints.insert(front.binding.waypoint);
    }
    let waypoints: Vec<String> = waypoints.iter().map(ToString::to_string).collect();
    let message = format!("enforced by waypoint {}", waypoints.join(", "));
    metadata::Condition::new(WAYPOINT_ACCEPTED, true, "Accepted", message)
}

fn service_kind(kind: &str) -> Option<Kind> {
    [Kind::Service, Kind::ServiceEntry]
        .into_iter()
        .find(|known| known.name() == kind)
}

fn target_metadata<'a>(
    view: &'a View,
    namespace: &str,
    target: &PolicyTargetReference,
) -> Option<&'a metadata::ObjectMeta> {
    let contents = view.contents(namespace)?;
    let name = target.name.as_str();
    if target.kind == Kind::Service.name() {
        contents.services.get(name).map(|one| &one.metadata)
    } else if target.kind == Kind::ServiceEntry.name() {
        contents.service_entries.get(name).map(|one| &one.metadata)
    } else {
        None
    }
}

impl Losses {
    fn condition(&self, action: MeshAction) -> metadata::Condition {
        if self.attributes.is_empty() {
            return metadata::Condition::new(
                ZTUNNEL_ACCEPTED,
                true,
                "Accepted",
                "attached to ztunnel",
            );
        }
        let attributes: Vec<&str> = self.attributes.iter().map(String::as_str).collect();
        let effect = match action {
            MeshAction::Allow => "the rules that use them are left out, which allows less",
            MeshAction::Deny | MeshAction::Audit if self.emptied => {
                "a rule with nothing else to match denies nothing, and others deny more"
            }
            MeshAction::Deny | MeshAction::Audit if self.widened => {
                "rules deny without regard to them"
            }
            MeshAction::Deny | MeshAction::Audit => {
                "they are left out of their rules, which denies more"
            }
        };
        unsupported(format!(
            "needs a waypoint for {}: {effect}",
            attributes.join(", ")
        ))
    }
}
