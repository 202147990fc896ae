//! An AuthorizationPolicy whole, as a waypoint evaluates it: of the connection what the node's
//! has, and of the request the rest.

use std::sync::Arc;

use mesh::authorization::{
    Action as MeshAction, Authorization, Clause, Condition as MeshCondition, ConditionKey, Match,
    PathPattern, RequestMatch, Rule as MeshRule, Scope, StringMatch,
};

use crate::kinds::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use crate::kinds::metadata;
use crate::translate::authorization_policy::{rules, trust_domains};
use crate::translate::policy_target::{self, WAYPOINT_ACCEPTED};
use crate::view::View;

/// None where the policy targets what is not there.
pub(super) fn translate(view: &View, policy: &AuthorizationPolicy) -> Option<Authorization> {
    let metadata = &policy.metadata;
    let (namespace, spec) = (metadata.namespace.as_str(), &policy.spec);
    let targeted = spec.targets().next().is_some();
    let targets = policy_target::resolve(view, namespace, spec.targets());
    if targeted && targets.is_empty() {
        return None;
    }
    let rules = || spec.rules.iter().map(|one| rule(namespace, one)).collect();
    let (action, rules) = match spec.action {
        Action::Allow => (MeshAction::Allow, rules()),
        Action::Deny => (MeshAction::Deny, rules()),
        Action::Audit => (MeshAction::Audit, rules()),
        Action::Custom => (MeshAction::Deny, vec![refusing(CUSTOM.into())]),
    };
    let selects = spec.selector.is_some();
    let scope: Scope = policy_target::scope(view, namespace, selects, targeted);
    Some(Authorization {
        name: metadata.name.as_str().into(),
        namespace: namespace.into(),
        scope,
        action,
        dry_run: super::is_dry_run(metadata),
        targets,
        rules: trust_domains::under_each_name(rules, &view.context),
    })
}

/// Who would be asked can't be: everything is denied, as Istio does without the provider.
pub(super) const CUSTOM: &str = "action CUSTOM is not honoured yet";

/// Says so in place of what the waypoint would enforce.
pub(super) fn custom_condition(bound: metadata::Condition) -> metadata::Condition {
    if !bound.is_true() {
        return bound;
    }
    let message = format!("{CUSTOM}: everything that the policy targets is denied");
    metadata::Condition::new(WAYPOINT_ACCEPTED, false, "Invalid", message)
}

/// Holds for everyone in a DENY policy.
fn refusing(reason: Arc<str>) -> MeshRule {
    let one = Match {
        unparsable: Some(reason),
        ..Match::default()
    };
    MeshRule {
        clauses: vec![Clause { matches: vec![one] }],
    }
}

fn rule(namespace: &str, rule: &Rule) -> MeshRule {
    let mut clauses = Vec::new();
    if !rule.from.is_empty() {
        let matches = rule.from.iter().map(|from| source(namespace, &from.source));
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    if !rule.to.is_empty() {
        let matches = rule.to.iter().map(|to| operation(&to.operation));
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    clauses.extend(rule.when.iter().map(|when| Clause {
        matches: vec![condition(namespace, when)],
    }));
    MeshRule { clauses }
}

fn source(namespace: &str, source: &Source) -> Match {
    let (mut one, _, _) = rules::source(namespace, source);
    let mut request = RequestMatch {
        request_principals: rules::strings(&source.request_principals),
        not_request_principals: rules::strings(&source.not_request_principals),
        ..RequestMatch::default()
    };
    request.remote_ips = rules::networks(&mut one, &source.remote_ip_blocks);
    request.not_remote_ips = rules::networks(&mut one, &source.not_remote_ip_blocks);
    if !source.trust_domains.is_empty() || !source.not_trust_domains.is_empty() {
        request.conditions.push(MeshCondition {
            key: ConditionKey::TrustDomain,
            values: rules::strings(&source.trust_domains),
            not_values: rules::strings(&source.not_trust_domains),
        });
    }
    with_request(one, request)
}

fn operation(operation: &Operation) -> Match {
    let (one, _) = rules::operation(operation);
    let hosts = |hosts: &[String]| {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase());
        hosts.map(|host| StringMatch::parse(&host)).collect()
    };
    let paths = |paths: &[String]| paths.iter().map(|path| self::path(path)).collect();
    let request = RequestMatch {
        hosts: hosts(&operation.hosts),
        not_hosts: hosts(&operation.not_hosts),
        methods: rules::strings(&operation.methods),
        not_methods: rules::strings(&operation.not_methods),
        paths: paths(&operation.paths),
        not_paths: paths(&operation.not_paths),
        ..RequestMatch::default()
    };
    with_request(one, request)
}

fn path(text: &str) -> PathPattern {
    match text.contains('{') {
        true => PathPattern::Template(text.into()),
        false => PathPattern::Text(StringMatch::parse(text)),
    }
}

fn condition(namespace: &str, condition: &Condition) -> Match {
    let (values, not_values) = (&condition.values, &condition.not_values);
    let (mut one, beyond, trust) = rules::condition(condition);
    if beyond.is_empty() && trust.is_empty() {
        return one;
    }
    let mut request = RequestMatch::default();
    match condition.key.as_str() {
        "source.serviceAccount" => {
            one.service_accounts = rules::accounts(namespace, values);
            one.not_service_accounts = rules::accounts(namespace, not_values);
        }
        "remote.ip" => {
            request.remote_ips = rules::networks(&mut one, values);
            request.not_remote_ips = rules::networks(&mut one, not_values);
        }
        "request.auth.principal" => {
            request.request_principals = rules::strings(values);
            request.not_request_principals = rules::strings(not_values);
        }
        key => match condition_key(key) {
            Some(key) => request.conditions.push(MeshCondition {
                key,
                values: rules::strings(values),
                not_values: rules::strings(not_values),
            }),
            None => one.unparsable = Some(key.into()),
        },
    }
    with_request(one, request)
}

/// None for what a waypoint knows nothing of, such as `experimental.envoy.filters`.
fn condition_key(key: &str) -> Option<ConditionKey> {
    let bracketed = |prefix| key.strip_prefix(prefix)?.strip_suffix(']');
    match key {
        "source.trustDomain" => Some(ConditionKey::TrustDomain),
        "request.auth.audiences" => Some(ConditionKey::Audiences),
        "request.auth.presenter" => Some(ConditionKey::Presenter),
        "connection.sni" => Some(ConditionKey::Sni),
        _ => {
            if let Some(name) = bracketed("request.headers[") {
                return Some(ConditionKey::Header(name.to_ascii_lowercase().into()));
            }
            let path = bracketed("request.auth.claims[")?;
            Some(ConditionKey::Claim(
                path.split("][").map(Into::into).collect(),
            ))
        }
    }
}

fn with_request(mut one: Match, request: RequestMatch) -> Match {
    if request != RequestMatch::default() {
        one.request = Some(Arc::new(request));
    }
    one
}
