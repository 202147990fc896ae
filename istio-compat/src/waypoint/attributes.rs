//! What of an AuthorizationPolicy only a waypoint can know: attributes of HTTP requests.

use crate::kinds::authorization_policy::{Action, AuthorizationPolicy, Rule};

/// The first rule that needs a waypoint, counted from 1, and what in it does, by its path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    pub rule: usize,
    pub paths: Vec<String>,
}

/// None where a node can know all that the policy is about.
pub fn of(policy: &AuthorizationPolicy) -> Option<Attributes> {
    (1..)
        .zip(&policy.spec.rules)
        .map(|(rule, content)| Attributes {
            rule,
            paths: of_rule(content),
        })
        .find(|attributes| !attributes.paths.is_empty())
}

/// The rules that a node has, by their indexes in the policy: of an ALLOW policy only those that
/// are about connections alone.
pub fn rules_at_nodes(policy: &AuthorizationPolicy) -> Vec<usize> {
    let rules = policy.spec.rules.iter().enumerate();
    let kept = rules.filter(|(_, rule)| match policy.spec.action {
        Action::Allow => of_rule(rule).is_empty(),
        Action::Deny | Action::Audit | Action::Custom => true,
    });
    kept.map(|(index, _)| index).collect()
}

fn of_rule(rule: &Rule) -> Vec<String> {
    let mut paths = Vec::new();
    let mut note = |prefix: &str, fields: &[(&str, &Vec<String>)]| {
        for (name, values) in fields {
            let path = format!("{prefix}.{name}");
            if !values.is_empty() && !paths.contains(&path) {
                paths.push(path);
            }
        }
    };
    for from in &rule.from {
        let source = &from.source;
        note(
            "from.source",
            &[
                ("requestPrincipals", &source.request_principals),
                ("notRequestPrincipals", &source.not_request_principals),
                ("remoteIpBlocks", &source.remote_ip_blocks),
                ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
                ("trustDomains", &source.trust_domains),
                ("notTrustDomains", &source.not_trust_domains),
            ],
        );
    }
    for to in &rule.to {
        let operation = &to.operation;
        note(
            "to.operation",
            &[
                ("hosts", &operation.hosts),
                ("notHosts", &operation.not_hosts),
                ("methods", &operation.methods),
                ("notMethods", &operation.not_methods),
                ("paths", &operation.paths),
                ("notPaths", &operation.not_paths),
            ],
        );
    }
    for when in rule.when.iter().filter(|when| !of_connection(&when.key)) {
        let path = format!("when {}", when.key);
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// What a node knows of a connection.
fn of_connection(key: &str) -> bool {
    [
        "source.ip",
        "source.namespace",
        "source.principal",
        "destination.ip",
        "destination.port",
    ]
    .contains(&key)
}
