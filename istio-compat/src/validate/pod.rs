//! Pod: containers, ports, probes, environment; also the template of a Deployment.

use std::collections::HashSet;

use crate::exclusions::Exclusions;
use crate::kinds::IntOrString;
use crate::kinds::container::Container;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::pod::{DnsPolicy, Pod, PodSpec};
use crate::kinds::probe::Probe;
use crate::validate::{Problems, Validate, labels, names};

/// What `fieldRef` may name; also `metadata.labels['KEY']` and `metadata.annotations['KEY']`.
const FIELD_PATHS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.podIP",
    "status.podIPs",
];

impl Validate for Pod {
    fn validate(&self, problems: &mut Problems<'_>) {
        exclusions("metadata", &self.metadata, problems);
        pod_spec("spec", &self.spec, problems);
    }
}

pub(super) fn exclusions(field: &str, metadata: &ObjectMeta, problems: &mut Problems<'_>) {
    for mistake in Exclusions::mistakes(metadata) {
        let field = format!("{field}.annotations[\"{}\"]", mistake.annotation);
        problems.warn(field, mistake.message);
    }
}

pub(super) fn pod_spec(field: &str, spec: &PodSpec, problems: &mut Problems<'_>) {
    if !spec.node_name.is_empty() {
        problems.check(
            format!("{field}.nodeName"),
            names::subdomain(&spec.node_name),
        );
    }
    labels(
        &format!("{field}.nodeSelector"),
        &spec.node_selector,
        problems,
    );
    for (name, account) in [
        ("serviceAccountName", &spec.service_account_name),
        ("serviceAccount", &spec.service_account),
    ] {
        if !account.is_empty() {
            problems.check(format!("{field}.{name}"), names::subdomain(account));
        }
    }
    for (name, text) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !text.is_empty() {
            problems.check(format!("{field}.{name}"), names::label(text));
        }
    }
    if spec.dns_policy == DnsPolicy::None && spec.dns_config.nameservers.is_empty() {
        problems.error(
            format!("{field}.dnsConfig.nameservers"),
            "has no server: dnsPolicy None needs one",
        );
    }
    if spec.containers.is_empty() {
        problems.error(
            format!("{field}.containers"),
            "has no container: a pod needs one",
        );
    }
    let mut seen = HashSet::new();
    for (list, containers) in [
        ("initContainers", &spec.init_containers),
        ("containers", &spec.containers),
    ] {
        for (index, one) in containers.iter().enumerate() {
            let field = format!("{field}.{list}[{index}]");
            if !seen.insert(&one.name) {
                problems.error(
                    format!("{field}.name"),
                    format!("{:?} is there twice", one.name),
                );
            }
            container(&field, one, problems);
        }
    }
}

fn container(field: &str, container: &Container, problems: &mut Problems<'_>) {
    problems.check(format!("{field}.name"), names::label(&container.name));
    let mut port_names = HashSet::new();
    for (index, port) in container.ports.iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        problems.check(
            format!("{field}.containerPort"),
            names::port(port.container_port.into()),
        );
        if !port.name.is_empty() {
            problems.check(format!("{field}.name"), names::port_name(&port.name));
            if !port_names.insert(&port.name) {
                problems.error(
                    format!("{field}.name"),
                    format!("{:?} is there twice", port.name),
                );
            }
        }
    }
    for (index, variable) in container.env.iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            problems.error(
                format!("{field}.name"),
                format!("{:?} is not a variable's name", variable.name),
            );
        }
        let Some(source) = &variable.value_from else {
            continue;
        };
        if !variable.value.is_empty() {
            problems.error(
                format!("{field}.valueFrom"),
                "is there together with value: keep one of them",
            );
        }
        if let Some(reference) = &source.field_ref
            && !FIELD_PATHS.contains(&reference.field_path.as_str())
            && !reference.field_path.starts_with("metadata.labels['")
            && !reference.field_path.starts_with("metadata.annotations['")
        {
            problems.error(
                format!("{field}.valueFrom.fieldRef.fieldPath"),
                format!(
                    "{:?} is not one of {}",
                    reference.field_path,
                    FIELD_PATHS.join(", ")
                ),
            );
        }
    }
    for (name, one) in [
        ("readinessProbe", &container.readiness_probe),
        ("livenessProbe", &container.liveness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(one) = one {
            probe(&format!("{field}.{name}"), one, container, problems);
        }
    }
}

fn probe(field: &str, probe: &Probe, container: &Container, problems: &mut Problems<'_>) {
    let handlers = [
        probe.http_get.is_some(),
        probe.tcp_socket.is_some(),
        probe.exec.is_some(),
        probe.grpc.is_some(),
    ];
    if handlers.iter().filter(|set| **set).count() != 1 {
        problems.error(field, "needs exactly one of httpGet, tcpSocket, exec, grpc");
    }
    let named = |port: &IntOrString| match port {
        IntOrString::Int(number) => names::port((*number).into()),
        IntOrString::String(name) if container.ports.iter().any(|port| port.name == *name) => {
            Ok(())
        }
        IntOrString::String(name) => Err(format!(
            "the container has no port named {name:?}: name one of its ports or give a number"
        )),
    };
    if let Some(http) = &probe.http_get {
        problems.check(format!("{field}.httpGet.port"), named(&http.port));
    }
    if let Some(tcp) = &probe.tcp_socket {
        problems.check(format!("{field}.tcpSocket.port"), named(&tcp.port));
    }
    if let Some(grpc) = &probe.grpc {
        problems.check(format!("{field}.grpc.port"), names::port(grpc.port.into()));
    }
    if probe
        .exec
        .as_ref()
        .is_some_and(|exec| exec.command.is_empty())
    {
        problems.error(format!("{field}.exec.command"), "has no word to run");
    }
    for (name, number) in [
        ("periodSeconds", probe.period_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if number == 0 {
            problems.error(format!("{field}.{name}"), "must be at least 1");
        }
    }
}
