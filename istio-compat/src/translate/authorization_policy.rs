//! AuthorizationPolicy to what the node can enforce: identities, addresses and ports.
//!
//! What needs HTTP never widens access silently: an ALLOW rule with such an attribute is
//! left out, a DENY rule loses the attribute and denies more, and the status says so.

use std::collections::BTreeSet;

use mesh::authorization::{
    Action as MeshAction, Authorization, Clause, Match, PolicyKey, Rule as MeshRule, Scope,
    ServiceAccountMatch, StringMatch,
};

use crate::kind::Kind;
use crate::kinds::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, PolicyTargetReference, Rule, Source,
};
use crate::kinds::metadata;
use crate::kinds::selector::{Labels, labels_match};
use crate::labels;
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
            rule(
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
    for target in policy.spec.targets() {
        let (kind, name) = (&target.kind, &target.name);
        let Some(metadata) = target_metadata(view, namespace, target) else {
            return refused(
                "TargetNotFound",
                format!("there is no {kind} {namespace}/{name}"),
            );
        };
        if waypoint::of_service(view, kind, metadata).is_none() {
            return refused(
                "AncestorNotBound",
                format!("{kind} {namespace}/{name} wants no waypoint: the policy has no effect"),
            );
        }
    }
    refused(
        "AncestorNotBound",
        "no waypoint enforces the policy yet: connections to its targets are refused".into(),
    )
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

/// What the node can't enforce and how that was met.
#[derive(Default)]
struct Losses {
    attributes: BTreeSet<String>,
    /// A DENY match of which nothing was left.
    emptied: bool,
    /// A DENY match that now denies everyone.
    widened: bool,
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
            MeshAction::Deny if self.emptied => {
                "a rule with nothing else to match denies nothing, and others deny more"
            }
            MeshAction::Deny if self.widened => "rules deny without regard to them",
            MeshAction::Deny => "they are left out of their rules, which denies more",
        };
        unsupported(format!(
            "needs a waypoint for {}: {effect}",
            attributes.join(", ")
        ))
    }
}

// === rules ===

/// None where an ALLOW rule must be left out.
fn rule(action: MeshAction, namespace: &str, rule: &Rule, losses: &mut Losses) -> Option<MeshRule> {
    let mut lost = Lost::default();
    let mut clauses = Vec::new();
    if !rule.from.is_empty() {
        let matches = rule.from.iter().map(|from| {
            let (mut one, beyond, trust) = source(namespace, &from.source);
            lost.finish(&mut one, beyond, trust);
            one
        });
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    if !rule.to.is_empty() {
        let matches = rule.to.iter().map(|to| {
            let (mut one, beyond) = operation(&to.operation);
            lost.finish(&mut one, beyond, Vec::new());
            one
        });
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    for when in &rule.when {
        let (mut one, beyond, trust) = condition(when);
        lost.finish(&mut one, beyond, trust);
        clauses.push(Clause { matches: vec![one] });
    }
    let any = !lost.attributes.is_empty();
    losses.attributes.extend(lost.attributes);
    match action {
        MeshAction::Allow if any => None,
        MeshAction::Allow => Some(MeshRule { clauses }),
        MeshAction::Deny => {
            losses.emptied |= lost.emptied;
            losses.widened |= lost.widened;
            Some(MeshRule { clauses })
        }
    }
}

/// What one rule lost.
#[derive(Default)]
struct Lost {
    attributes: BTreeSet<String>,
    emptied: bool,
    widened: bool,
}

impl Lost {
    /// Notes what a match lost. One that was about trust domains alone matches everyone,
    /// so that a DENY rule still denies; of HTTP attributes alone an empty match is left,
    /// which never holds, as Istio has it.
    fn finish(&mut self, one: &mut Match, beyond: Vec<String>, trust: Vec<String>) {
        let nothing_left = *one == Match::default();
        if nothing_left && !trust.is_empty() {
            one.source_ips = everywhere();
            self.widened = true;
        } else if nothing_left && !beyond.is_empty() {
            self.emptied = true;
        }
        self.attributes.extend(beyond);
        self.attributes.extend(trust);
    }
}

fn everywhere() -> Vec<ipnet::IpNet> {
    vec![
        ipnet::Ipv4Net::default().into(),
        ipnet::Ipv6Net::default().into(),
    ]
}

type Beyond = Vec<String>;

/// The match, and the attributes it can't hold: those of HTTP, and of trust domains.
fn source(namespace: &str, source: &Source) -> (Match, Beyond, Beyond) {
    let mut one = Match {
        namespaces: strings(&source.namespaces),
        not_namespaces: strings(&source.not_namespaces),
        principals: strings(&source.principals),
        not_principals: strings(&source.not_principals),
        service_accounts: accounts(namespace, &source.service_accounts),
        not_service_accounts: accounts(namespace, &source.not_service_accounts),
        ..Match::default()
    };
    one.source_ips = networks(&mut one, &source.ip_blocks);
    one.not_source_ips = networks(&mut one, &source.not_ip_blocks);
    let beyond = set([
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ]);
    let trust = set([
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ]);
    (one, beyond, trust)
}

fn operation(operation: &Operation) -> (Match, Beyond) {
    let mut one = Match::default();
    one.destination_ports = ports(&mut one, &operation.ports);
    one.not_destination_ports = ports(&mut one, &operation.not_ports);
    let beyond = set([
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ]);
    (one, beyond)
}

fn condition(condition: &Condition) -> (Match, Beyond, Beyond) {
    let (values, not_values) = (&condition.values, &condition.not_values);
    let mut one = Match::default();
    let (mut beyond, mut trust) = (Vec::new(), Vec::new());
    match condition.key.as_str() {
        "source.ip" => {
            one.source_ips = networks(&mut one, values);
            one.not_source_ips = networks(&mut one, not_values);
        }
        "destination.ip" => {
            one.destination_ips = networks(&mut one, values);
            one.not_destination_ips = networks(&mut one, not_values);
        }
        "destination.port" => {
            one.destination_ports = ports(&mut one, values);
            one.not_destination_ports = ports(&mut one, not_values);
        }
        "source.namespace" => {
            one.namespaces = strings(values);
            one.not_namespaces = strings(not_values);
        }
        "source.principal" => {
            one.principals = strings(values);
            one.not_principals = strings(not_values);
        }
        "source.trustDomain" => trust.push(condition.key.clone()),
        key => beyond.push(key.to_owned()),
    }
    (one, beyond, trust)
}

/// The names of the attributes that are set.
fn set<const N: usize>(attributes: [(&str, &Vec<String>); N]) -> Vec<String> {
    attributes
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn strings(values: &[String]) -> Vec<StringMatch> {
    values
        .iter()
        .map(|value| StringMatch::parse(value))
        .collect()
}

/// `namespace/name`, or `name` in the policy's own namespace.
fn accounts(namespace: &str, values: &[String]) -> Vec<ServiceAccountMatch> {
    values
        .iter()
        .map(|value| {
            let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
            ServiceAccountMatch {
                namespace: namespace.into(),
                service_account: account.into(),
            }
        })
        .collect()
}

/// Validation refuses what is no range; an object that was never validated is marked.
fn networks(one: &mut Match, values: &[String]) -> Vec<ipnet::IpNet> {
    let parse = |text: &String| {
        let address = || text.parse::<std::net::IpAddr>().map(Into::into);
        text.parse().or_else(|_| address()).ok()
    };
    entries(one, values, |text| {
        parse(text).map(|net: ipnet::IpNet| net.trunc())
    })
}

fn ports(one: &mut Match, values: &[String]) -> Vec<u16> {
    entries(one, values, |text| text.parse().ok())
}

fn entries<T>(one: &mut Match, values: &[String], parse: impl Fn(&String) -> Option<T>) -> Vec<T> {
    values
        .iter()
        .filter_map(|text| {
            let entry = parse(text);
            if entry.is_none() {
                one.unparsable = Some(text.as_str().into());
            }
            entry
        })
        .collect()
}
