//! AuthorizationPolicy to what the node can enforce: where it applies, and its status.

mod rules;
mod trust_domains;
mod whole;

use std::collections::BTreeSet;

use mesh::authorization::{Action as MeshAction, Authorization, PolicyKey};

use crate::kinds::authorization_policy::{Action, AuthorizationPolicy};
use crate::kinds::metadata::{self, ObjectMeta};
use crate::kinds::selector::{Labels, labels_match};
use crate::labels;
use crate::object::Resource;
use crate::translate::authorization_policy::rules::Losses;
use crate::translate::{Translation, policy_target};
use crate::view::View;
use crate::waypoint::reasons::{Need, Reason, needs_requests};

const ZTUNNEL_ACCEPTED: &str = "ZtunnelAccepted";

pub(super) fn translate(view: &View, policy: &AuthorizationPolicy) -> Translation {
    Translation {
        authorization_policies: whole::translate(view, policy).into_iter().collect(),
        ..for_nodes(view, policy)
    }
}

fn for_nodes(view: &View, policy: &AuthorizationPolicy) -> Translation {
    let namespace = policy.metadata.namespace.as_str();
    if policy.spec.targets().next().is_some() {
        let bound = policy_target::condition(view, namespace, policy.spec.targets());
        let condition = match policy.spec.action {
            Action::Custom => whole::custom_condition(bound),
            Action::Allow | Action::Deny | Action::Audit => bound,
        };
        return Translation {
            conditions: vec![condition],
            ..Translation::default()
        };
    }
    let enforcement = match enforcement(view, policy) {
        Ok(enforcement) => enforcement,
        Err(reason) => {
            return Translation {
                conditions: vec![instead(view, policy).unwrap_or_else(|| unsupported(reason))],
                ..Translation::default()
            };
        }
    };
    let mut losses = Losses::default();
    let rules = policy
        .spec
        .rules
        .iter()
        .filter_map(|one| rules::translate(enforcement.action, namespace, one, &mut losses))
        .collect();
    Translation {
        authorizations: vec![Authorization {
            name: policy.metadata.name.as_str().into(),
            namespace: namespace.into(),
            scope: policy_target::scope(view, namespace, policy.spec.selector.is_some(), false),
            action: enforcement.action,
            dry_run: enforcement.dry_run,
            targets: Vec::new(),
            rules: trust_domains::under_each_name(rules, &view.context),
        }],
        conditions: vec![match losses.attributes.is_empty() {
            false => at_waypoints(view, policy, &losses)
                .unwrap_or_else(|| losses.condition(enforcement.action)),
            true if enforcement.dry_run => metadata::Condition::new(
                ZTUNNEL_ACCEPTED,
                true,
                "Accepted",
                "attached to ztunnel as a dry run: what it would do is logged and counted",
            ),
            true => losses.condition(enforcement.action),
        }],
        ..Translation::default()
    }
}

/// The policies with a selector that choose a workload, of those that the node is sent:
/// naming another would leave the workload waiting for it for ever.
pub(super) fn selecting(view: &View, namespace: &str, labels: &Labels) -> Vec<PolicyKey> {
    keys(chosen(view, namespace, labels).filter(|policy| enforcement(view, policy).is_ok()))
}

/// All policies with a selector that choose a workload, for its waypoint.
pub(super) fn selecting_whole(view: &View, namespace: &str, labels: &Labels) -> Vec<PolicyKey> {
    keys(chosen(view, namespace, labels))
}

fn chosen<'a>(
    view: &'a View,
    namespace: &'a str,
    labels: &'a Labels,
) -> impl Iterator<Item = &'a AuthorizationPolicy> {
    let namespaces = BTreeSet::from([namespace, &*view.context.root_namespace]);
    namespaces
        .into_iter()
        .filter_map(|namespace| view.contents(namespace))
        .flat_map(|contents| contents.authorization_policies.values())
        .map(AsRef::as_ref)
        .filter(|policy| {
            let selector = policy.spec.selector.as_ref();
            selector.is_some_and(|selector| labels_match(&selector.match_labels, labels))
                && policy.spec.targets().next().is_none()
        })
}

fn keys<'a>(policies: impl Iterator<Item = &'a AuthorizationPolicy>) -> Vec<PolicyKey> {
    policies
        .map(|policy| {
            let metadata = &policy.metadata;
            PolicyKey::new(metadata.namespace.as_str(), metadata.name.as_str())
        })
        .collect()
}

/// The annotation, in the spellings of a boolean that Kubernetes' controllers take. With any other
/// the policy is enforced.
fn is_dry_run(metadata: &ObjectMeta) -> bool {
    let value = metadata.annotation(labels::DRY_RUN).unwrap_or_default();
    ["true", "1", "t"]
        .iter()
        .any(|yes| value.eq_ignore_ascii_case(yes))
}

struct Enforcement {
    action: MeshAction,
    dry_run: bool,
}

/// How the node enforces the policy, or why it does not.
fn enforcement(view: &View, policy: &AuthorizationPolicy) -> Result<Enforcement, &'static str> {
    let dry_run = is_dry_run(&policy.metadata);
    if dry_run && !view.context.dry_run_policies {
        return Err("dry-run policies are not sent to nodes: the policy has no effect");
    }
    let action = match policy.spec.action {
        Action::Allow => MeshAction::Allow,
        Action::Deny => MeshAction::Deny,
        Action::Audit => return Err("nodes do not support action AUDIT: nothing is logged"),
        Action::Custom => {
            return Err(
                "nodes do not support action CUSTOM, nor do waypoints yet: what the policy covers \
                 is denied where a waypoint stands in front of it",
            );
        }
    };
    Ok(Enforcement { action, dry_run })
}

// === status ===

fn unsupported(message: impl Into<String>) -> metadata::Condition {
    metadata::Condition::new(ZTUNNEL_ACCEPTED, false, "UnsupportedValue", message)
}

/// Said of what nodes leave to waypoints as a whole; none where none stands in front.
fn instead(view: &View, policy: &AuthorizationPolicy) -> Option<metadata::Condition> {
    let does = match policy.spec.action {
        Action::Audit => "tells of what it matches",
        Action::Allow | Action::Deny => "tries it out",
        // It is denied there, and not as its author means it.
        Action::Custom => return None,
    };
    needs_requests(policy)?;
    is_behind_waypoints(view, policy).then(|| accepted(format!("the waypoint {does}")))
}

/// Said of attributes that only waypoints know; none where none stands in front.
fn at_waypoints(
    view: &View,
    policy: &AuthorizationPolicy,
    losses: &Losses,
) -> Option<metadata::Condition> {
    let attributes: Vec<&str> = losses.attributes.iter().map(String::as_str).collect();
    let message = match is_dry_run(&policy.metadata) {
        true => "the waypoint tries it out".to_owned(),
        false => format!(
            "the waypoint enforces {}; the node refuses what comes around it",
            attributes.join(", ")
        ),
    };
    is_behind_waypoints(view, policy).then(|| accepted(message))
}

/// Whether a waypoint is bound to whatever the policy covers: in its namespace, or for the root
/// namespace in every one that is in the mesh.
fn is_behind_waypoints(view: &View, policy: &AuthorizationPolicy) -> bool {
    let namespace = policy.metadata.namespace.as_str();
    let reason = Reason {
        object: policy.key(),
        need: Need::Tokens,
    };
    let bound = |namespace: &str| view.binds_with(namespace, &reason);
    if namespace != &*view.context.root_namespace {
        return bound(namespace);
    }
    view.namespaces
        .iter()
        .filter(|(_, contents)| {
            let metadata = contents.namespace.as_ref().map(|one| &one.metadata);
            metadata.and_then(|one| one.label(labels::DATAPLANE_MODE)) == Some("ambient")
        })
        .all(|(name, _)| bound(name))
}

fn accepted(message: String) -> metadata::Condition {
    metadata::Condition::new(ZTUNNEL_ACCEPTED, true, "Accepted", message)
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
