//! What a well-formed object must also satisfy, kind by kind, as Kubernetes and Istio
//! check it on admission.

mod authorization_policy;
mod config_map;
mod deployment;
mod gateway;
mod gateway_class;
mod grpc_route;
mod http;
mod http_route;
mod names;
mod peer_authentication;
mod pod;
mod policy_target;
mod reference_grant;
mod request_authentication;
mod route;
mod route_filter;
mod service;
mod service_entry;
mod tcp_route;
mod workload_entry;

use crate::diagnostic::Severity;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::namespace::Namespace;
use crate::kinds::node::Node as ClusterNode;
use crate::kinds::selector::Labels;
use crate::kinds::service_account::ServiceAccount;
use crate::node::{Node, Position};

pub(crate) trait Validate {
    fn validate(&self, problems: &mut Problems<'_>);
}

pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) position: Position,
    pub(crate) field: String,
    pub(crate) message: String,
}

/// Collects problems of one document and finds their places in it.
pub(crate) struct Problems<'a> {
    node: &'a Node,
    problems: Vec<Problem>,
}

// === impl Problems ===

impl<'a> Problems<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self {
            node,
            problems: Vec::new(),
        }
    }

    pub(crate) fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Error, field.into(), message.into());
    }

    pub(crate) fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.add(Severity::Warning, field.into(), message.into());
    }

    /// Reports what a check of one value found wrong with it, once for each field.
    pub(crate) fn check(&mut self, field: impl Into<String>, found: Result<(), String>) {
        let field = field.into();
        if let Err(message) = found
            && !self.problems.iter().any(|problem| problem.field == field)
        {
            self.error(field, message);
        }
    }

    /// Reports a list that is longer than the API admits.
    pub(crate) fn at_most(&mut self, field: impl Into<String>, length: usize, most: usize) {
        if length > most {
            self.error(field, format!("has {length} entries, more than {most}"));
        }
    }

    /// Reports a text that is empty or absent.
    pub(crate) fn given(&mut self, field: impl Into<String>, text: &str) {
        if text.is_empty() {
            self.error(field, "has no value: give one");
        }
    }

    fn add(&mut self, severity: Severity, field: String, message: String) {
        self.problems.push(Problem {
            severity,
            position: self.node.locate(&field),
            field,
            message,
        });
    }

    /// The document as written, for what its type no longer tells (absent or empty).
    pub(crate) fn document(&self) -> &'a Node {
        self.node
    }

    pub(crate) fn into_inner(self) -> Vec<Problem> {
        self.problems
    }
}

/// Annotations of a few values, and what others come to.
const MEANT: [(&str, &[&str], &str); 3] = [
    (
        crate::labels::DRY_RUN,
        &["true", "false", "1", "0", "t", "f"],
        "the policy is enforced",
    ),
    (
        crate::labels::TRAFFIC_DISTRIBUTION,
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
        "no endpoint is preferred",
    ),
    (
        crate::labels::LOAD_BALANCER,
        &["RANDOM", "LEAST_REQUEST"],
        "endpoints are drawn at random",
    ),
];

/// What holds for every kind. Names become parts of identities and of file names.
pub(crate) fn metadata(metadata: &ObjectMeta, problems: &mut Problems<'_>) {
    if metadata.name.is_empty() {
        problems.error("metadata.name", "has no value: every object needs a name");
    } else {
        problems.check("metadata.name", names::subdomain(&metadata.name));
    }
    if !metadata.namespace.is_empty() {
        problems.check("metadata.namespace", names::label(&metadata.namespace));
    }
    labels("metadata.labels", &metadata.labels, problems);
    for key in metadata.annotations.keys() {
        problems.check(
            format!("metadata.annotations[\"{key}\"]"),
            names::qualified(key),
        );
    }
    for (key, admitted, otherwise) in MEANT {
        if let Some(value) = metadata.annotation(key)
            && !admitted.iter().any(|one| one.eq_ignore_ascii_case(value))
        {
            let admitted = admitted.join(", ");
            problems.warn(
                format!("metadata.annotations[\"{key}\"]"),
                format!("{value:?} is not one of {admitted}: {otherwise}"),
            );
        }
    }
}

pub(crate) fn labels(field: &str, labels: &Labels, problems: &mut Problems<'_>) {
    for (key, value) in labels {
        let field = format!("{field}[\"{key}\"]");
        problems.check(field.as_str(), names::qualified(key));
        problems.check(field, names::label_value(value));
    }
}

impl Validate for Namespace {
    fn validate(&self, problems: &mut Problems<'_>) {
        problems.check("metadata.name", names::label(&self.metadata.name));
        if let Some(mode) = self.metadata.label(crate::labels::DATAPLANE_MODE)
            && !["ambient", "none"].contains(&mode)
        {
            problems.warn(
                format!("metadata.labels[\"{}\"]", crate::labels::DATAPLANE_MODE),
                format!("{mode:?} is not a mode: use ambient or none; no pod is captured by it"),
            );
        }
    }
}

impl Validate for ServiceAccount {
    fn validate(&self, _problems: &mut Problems<'_>) {}
}

impl Validate for ClusterNode {
    fn validate(&self, _problems: &mut Problems<'_>) {}
}

#[cfg(test)]
mod tests;
