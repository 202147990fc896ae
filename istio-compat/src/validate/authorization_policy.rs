//! AuthorizationPolicy: what would silently mean less or more than it says is refused.

use crate::kinds::authorization_policy::{
    Action, AuthorizationPolicy, Condition, Operation, Rule, Source,
};
use crate::node::{Node, Value};
use crate::validate::{Problems, Validate, names, policy_target};

const MAX_RULES: usize = 512;
const MAX_SERVICE_ACCOUNTS: usize = 16;

/// Keys of `when`; those ending in `[` go on with a name in brackets.
const CONDITION_KEYS: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.trustDomain",
    "source.principal",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.headers[",
    "request.auth.claims[",
    "experimental.envoy.filters.",
];

impl Validate for AuthorizationPolicy {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        policy_target::attachment(
            &self.metadata,
            spec.selector.as_ref(),
            spec.target_ref.as_ref(),
            &spec.target_refs,
            problems,
        );
        match (spec.action, &spec.provider) {
            (Action::Custom, None) => problems.error(
                "spec.provider",
                "has no value: action CUSTOM needs a provider",
            ),
            (Action::Allow | Action::Deny | Action::Audit, Some(_)) => problems.error(
                "spec.provider",
                "is only for action CUSTOM: remove it or change the action",
            ),
            (Action::Custom, Some(_)) | (Action::Allow | Action::Deny | Action::Audit, None) => {}
        }
        if spec.rules.len() > MAX_RULES {
            problems.error(
                "spec.rules",
                format!("has {} rules, more than {MAX_RULES}", spec.rules.len()),
            );
        }
        if spec.rules.is_empty() && spec.action == Action::Deny {
            problems.warn(
                "spec.rules",
                "has no rule: the policy denies nothing; a rule {} denies everything",
            );
        }
        let written = problems.document().get("spec").and_then(|s| s.get("rules"));
        for (index, rule) in spec.rules.iter().enumerate() {
            let field = format!("spec.rules[{index}]");
            if let Some(Value::Sequence(items)) = written.map(|rules| &rules.value)
                && let Some(Value::Mapping(parts)) = items.get(index).map(|item| &item.value)
            {
                for part in parts {
                    blanks(&format!("{field}.{}", part.key), &part.value, problems);
                }
            }
            self::rule(&field, rule, problems);
        }
    }
}

/// An empty value constrains nothing: a list emptied by a template would open the rule.
fn blanks(field: &str, node: &Node, problems: &mut Problems<'_>) {
    let nothing = "is empty, which would match everything: give a value or remove it";
    match &node.value {
        Value::Null => problems.error(field, nothing),
        Value::String(text) if text.is_empty() => problems.error(field, nothing),
        Value::Sequence(items) if items.is_empty() => problems.error(field, nothing),
        Value::Mapping(entries) if entries.is_empty() => problems.error(field, nothing),
        Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                blanks(&format!("{field}[{index}]"), item, problems);
            }
        }
        Value::Mapping(entries) => {
            for entry in entries {
                blanks(&format!("{field}.{}", entry.key), &entry.value, problems);
            }
        }
        Value::Bool(_)
        | Value::Integer(_)
        | Value::Unsigned(_)
        | Value::Float(_)
        | Value::String(_) => {}
    }
}

fn rule(field: &str, rule: &Rule, problems: &mut Problems<'_>) {
    for (index, from) in rule.from.iter().enumerate() {
        source(
            &format!("{field}.from[{index}].source"),
            &from.source,
            problems,
        );
    }
    for (index, to) in rule.to.iter().enumerate() {
        operation(
            &format!("{field}.to[{index}].operation"),
            &to.operation,
            problems,
        );
    }
    for (index, one) in rule.when.iter().enumerate() {
        condition(&format!("{field}.when[{index}]"), one, problems);
    }
}

fn source(field: &str, source: &Source, problems: &mut Problems<'_>) {
    for (name, values, check) in [
        ("principals", &source.principals, principal as Check),
        ("notPrincipals", &source.not_principals, principal),
        ("requestPrincipals", &source.request_principals, pattern),
        (
            "notRequestPrincipals",
            &source.not_request_principals,
            pattern,
        ),
        ("namespaces", &source.namespaces, pattern),
        ("notNamespaces", &source.not_namespaces, pattern),
        ("serviceAccounts", &source.service_accounts, account),
        ("notServiceAccounts", &source.not_service_accounts, account),
        ("trustDomains", &source.trust_domains, pattern),
        ("notTrustDomains", &source.not_trust_domains, pattern),
        ("ipBlocks", &source.ip_blocks, names::cidr),
        ("notIpBlocks", &source.not_ip_blocks, names::cidr),
        ("remoteIpBlocks", &source.remote_ip_blocks, names::cidr),
        (
            "notRemoteIpBlocks",
            &source.not_remote_ip_blocks,
            names::cidr,
        ),
    ] {
        each(&format!("{field}.{name}"), values, check, problems);
    }
    for (name, accounts) in [
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
    ] {
        if accounts.len() > MAX_SERVICE_ACCOUNTS {
            problems.error(
                format!("{field}.{name}"),
                format!(
                    "has {} accounts, more than {MAX_SERVICE_ACCOUNTS}",
                    accounts.len()
                ),
            );
        }
        let others = [
            &source.principals,
            &source.not_principals,
            &source.namespaces,
            &source.not_namespaces,
        ];
        if !accounts.is_empty() && others.iter().any(|values| !values.is_empty()) {
            problems.error(
                format!("{field}.{name}"),
                "is there together with principals or namespaces: keep one of them",
            );
        }
    }
}

fn operation(field: &str, operation: &Operation, problems: &mut Problems<'_>) {
    for (name, values, check) in [
        ("hosts", &operation.hosts, pattern as Check),
        ("notHosts", &operation.not_hosts, pattern),
        ("ports", &operation.ports, port),
        ("notPorts", &operation.not_ports, port),
        ("methods", &operation.methods, pattern),
        ("notMethods", &operation.not_methods, pattern),
        ("paths", &operation.paths, path),
        ("notPaths", &operation.not_paths, path),
    ] {
        each(&format!("{field}.{name}"), values, check, problems);
    }
}

fn condition(field: &str, condition: &Condition, problems: &mut Problems<'_>) {
    let known = CONDITION_KEYS
        .iter()
        .any(|known| match known.chars().last() {
            Some('[') => condition.key.starts_with(known) && condition.key.ends_with(']'),
            Some('.') => condition.key.starts_with(known),
            _ => condition.key == *known,
        });
    if !known {
        problems.error(
            format!("{field}.key"),
            format!(
                "{:?} is not a key: use one of {}",
                condition.key,
                CONDITION_KEYS.join(", ")
            ),
        );
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        problems.error(
            format!("{field}.values"),
            "is empty, and so is notValues: give one",
        );
    }
    let check: Check = match condition.key.as_str() {
        "source.ip" | "remote.ip" | "destination.ip" => names::cidr,
        "destination.port" => port,
        "source.principal" => principal,
        "source.serviceAccount" => account,
        _ => pattern,
    };
    for (name, values) in [
        ("values", &condition.values),
        ("notValues", &condition.not_values),
    ] {
        each(&format!("{field}.{name}"), values, check, problems);
    }
}

type Check = fn(&str) -> Result<(), String>;

fn each(field: &str, values: &[String], check: Check, problems: &mut Problems<'_>) {
    for (index, value) in values.iter().enumerate() {
        // Empty ones are reported once, as blanks.
        if !value.is_empty() {
            problems.check(format!("{field}[{index}]"), check(value));
        }
    }
}

/// Exact, `prefix*`, `*suffix` or `*`.
fn pattern(text: &str) -> Result<(), String> {
    if text.matches('*').count() > 1 || text.trim_matches('*').contains('*') {
        return Err(format!(
            "{text:?} has a * that is not its only one at the start or end, and would match \
             nothing: write name, prefix*, *suffix or *"
        ));
    }
    Ok(())
}

fn principal(text: &str) -> Result<(), String> {
    if let Some(rest) = text.strip_prefix("spiffe://") {
        return Err(format!("{text:?} would match nobody: write {rest:?}"));
    }
    pattern(text)
}

fn account(text: &str) -> Result<(), String> {
    let fine = match text.split_once('/') {
        Some((namespace, account)) => {
            names::label(namespace).is_ok() && names::subdomain(account).is_ok()
        }
        None => names::subdomain(text).is_ok(),
    };
    if !fine {
        return Err(format!(
            "{text:?} is not a service account: write namespace/name or name, without wildcards"
        ));
    }
    Ok(())
}

fn port(text: &str) -> Result<(), String> {
    let number = text.parse::<u16>();
    if number.is_err() || number == Ok(0) || text.starts_with('+') {
        return Err(format!(
            "{text:?} is not a port: use a number from 1 to 65535 in quotes"
        ));
    }
    Ok(())
}

/// As a pattern, or a template with `{*}` and, last, `{**}`.
fn path(text: &str) -> Result<(), String> {
    if text.contains(['{', '}']) {
        let plain = text.replace("{**}", "").replace("{*}", "");
        let last = text.find("{**}").is_none_or(|at| at + 4 == text.len());
        if plain.contains(['{', '}', '*']) || !last {
            return Err(format!(
                "{text:?} is not a template: {{*}} stands for one segment, and {{**}} for any \
                 number, last"
            ));
        }
        return Ok(());
    }
    pattern(text)
}
