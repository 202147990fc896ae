//! What the routes of Gateway API share: parents, hostnames, rules by name, backends.

use std::collections::HashSet;

use crate::kinds::route::{BackendRef, GATEWAY_GROUP, ParentReference};
use crate::validate::{Problems, names};

const MAX_PARENTS: usize = 32;
const MAX_HOSTNAMES: usize = 16;
const MAX_RULES: usize = 16;
/// Over all rules.
const MAX_MATCHES: usize = 128;
const MAX_BACKENDS: usize = 16;
const MAX_WEIGHT: i32 = 1_000_000;

pub(super) fn parents(parents: &[ParentReference], problems: &mut Problems<'_>) {
    problems.at_most("spec.parentRefs", parents.len(), MAX_PARENTS);
    if parents.is_empty() {
        problems.warn(
            "spec.parentRefs",
            "has no parent: the route is attached to nothing; name a Service",
        );
    }
    let mut seen = HashSet::new();
    for (index, parent) in parents.iter().enumerate() {
        let field = format!("spec.parentRefs[{index}]");
        problems.check(format!("{field}.name"), names::subdomain(&parent.name));
        if let Some(namespace) = &parent.namespace {
            problems.check(format!("{field}.namespace"), names::label(namespace));
        }
        if let Some(port) = parent.port {
            problems.check(format!("{field}.port"), names::port(port.into()));
        }
        let identity = (
            (parent.group(), parent.kind(), &parent.namespace),
            (&parent.name, &parent.section_name, parent.port),
        );
        if !seen.insert(identity) {
            problems.error(field, "is there twice: keep one of them");
        }
    }
}

/// Hosts are for Gateways: a request to a service is the service's whatever host it names.
pub(super) fn hostnames(
    hostnames: &[String],
    parents: &[ParentReference],
    problems: &mut Problems<'_>,
) {
    problems.at_most("spec.hostnames", hostnames.len(), MAX_HOSTNAMES);
    for (index, hostname) in hostnames.iter().enumerate() {
        let plain = hostname.strip_prefix("*.").unwrap_or(hostname);
        problems.check(format!("spec.hostnames[{index}]"), names::host(plain));
    }
    let mesh = parents.iter().any(|parent| parent.group() != GATEWAY_GROUP);
    if mesh && !hostnames.is_empty() {
        problems.warn(
            "spec.hostnames",
            "is for Gateways: a route on a service applies to all of its requests",
        );
    }
}

/// Of HTTPRoute and GRPCRoute: each rule with its name and how many matches it has.
pub(super) fn http_rules<'a>(
    parents: &[ParentReference],
    rules: impl ExactSizeIterator<Item = (Option<&'a String>, usize)> + Clone,
    problems: &mut Problems<'_>,
) {
    self::parents(parents, problems);
    let names = rules.clone().map(|(name, _)| name);
    self::rules(rules.len(), names, problems);
    let matches = rules.map(|(_, matches)| matches).sum();
    problems.at_most("spec.rules", matches, MAX_MATCHES);
}

pub(super) fn rules<'a>(
    count: usize,
    rule_names: impl Iterator<Item = Option<&'a String>>,
    problems: &mut Problems<'_>,
) {
    problems.at_most("spec.rules", count, MAX_RULES);
    if count == 0 {
        problems.error("spec.rules", "has no rule: give one");
    }
    let mut seen = HashSet::new();
    for (index, name) in rule_names.enumerate() {
        let Some(name) = name else { continue };
        let field = format!("spec.rules[{index}].name");
        problems.check(field.as_str(), names::subdomain(name));
        if !seen.insert(name) {
            problems.error(field, format!("{name:?} is there twice"));
        }
    }
}

pub(super) fn backends(field: &str, backends: &[BackendRef], problems: &mut Problems<'_>) {
    problems.at_most(field, backends.len(), MAX_BACKENDS);
    for (index, one) in backends.iter().enumerate() {
        backend(&format!("{field}[{index}]"), one, problems);
    }
}

pub(super) fn backend(field: &str, backend: &BackendRef, problems: &mut Problems<'_>) {
    problems.given(format!("{field}.name"), &backend.name);
    if backend.kind.as_deref() == Some("") {
        problems.error(
            format!("{field}.kind"),
            "is empty: use Service, or leave it out",
        );
    }
    if let Some(namespace) = &backend.namespace {
        problems.check(format!("{field}.namespace"), names::label(namespace));
    }
    match backend.port {
        Some(port) => problems.check(format!("{field}.port"), names::port(port.into())),
        None if backend.kind() == "Service" => problems.error(
            format!("{field}.port"),
            "has no value: a Service is referred to with one of its ports",
        ),
        None => {}
    }
    if let Some(weight) = backend.weight
        && !(0..=MAX_WEIGHT).contains(&weight)
    {
        problems.error(
            format!("{field}.weight"),
            format!("{weight} is not a weight: use a number from 0 to {MAX_WEIGHT}"),
        );
    }
}
