//! Pod to workload.

use mesh::service::Port;
use mesh::workload::{NetworkMode, WorkloadStatus};

use crate::kinds::container::Protocol;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::pod::Pod;
use crate::kinds::service::Service;
use crate::kinds::service_entry::ServiceEntry;
use crate::labels;
use crate::object::Resource;
use crate::translate::workload::Endpoint;
use crate::translate::{Translation, node, ports, waypoint, workload};
use crate::view::View;

/// Nothing for a pod that has run to its end or has no address yet. One that is still
/// starting counts: its init containers need the mesh.
pub(super) fn translate(view: &View, pod: &Pod) -> Translation {
    let addresses = pod.ips();
    if pod.is_finished() || addresses.is_empty() {
        return Translation::default();
    }
    let metadata = &pod.metadata;
    let (name, namespace) = (&metadata.name, &metadata.namespace);
    let uid = format!("{}//Pod/{namespace}/{name}", view.context.cluster_id);
    let mut workload = workload::new(view, &uid, name, namespace);
    workload.addresses = addresses.into();
    workload.service_account = pod.service_account().into();
    workload.node = pod.spec.node_name.as_str().into();
    workload.locality = node::locality(view, &pod.spec.node_name).into();
    workload.workload_name = workload_name(metadata).into();
    workload.network_mode = match pod.spec.host_network {
        true => NetworkMode::HostNetwork,
        false => NetworkMode::Standard,
    };
    workload.status = match pod.is_ready() {
        true => WorkloadStatus::Healthy,
        false => WorkloadStatus::Unhealthy,
    };
    workload.authorization_policies = workload::policies(view, namespace, &metadata.labels);
    workload.services = workload::services(view, namespace, &metadata.labels, pod);
    workload::set_tunnel(&mut workload, metadata, &metadata.labels);
    workload::set_request_policies(&mut workload, view, &metadata.labels);
    workload::set_canonical(&mut workload, &metadata.labels);
    let (front, authorizations) =
        waypoint::set(view, &pod.key(), metadata, &metadata.labels, &mut workload);
    Translation {
        workloads: vec![workload],
        authorizations,
        binding: front.map(|front| front.binding),
        ..Translation::default()
    }
}

/// The label; else, for a pod made from a template, what made it; else the pod's name.
fn workload_name(metadata: &ObjectMeta) -> &str {
    if let Some(name) = metadata.label(labels::WORKLOAD_NAME) {
        return name;
    }
    let owner = metadata
        .owner_references
        .iter()
        .find(|owner| owner.controller);
    let Some(owner) = owner.filter(|_| !metadata.generate_name.is_empty()) else {
        return &metadata.name;
    };
    let template = || {
        let hash = metadata.label(labels::POD_TEMPLATE_HASH)?;
        owner.name.strip_suffix(hash)?.strip_suffix('-')
    };
    match owner.kind.as_str() {
        "ReplicaSet" => template().unwrap_or(&owner.name),
        "Job" => scheduled(&owner.name).unwrap_or(&owner.name),
        _ => &owner.name,
    }
}

/// The CronJob of a Job: its name ends in the minute it was made for.
fn scheduled(job: &str) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let digits = minute.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (8..=10).contains(&minute.len())).then_some(name)
}

impl Endpoint for Pod {
    /// A named target that no container has leaves its port out.
    fn service_ports(&self, service: &Service) -> Vec<Port> {
        ports::tcp_ports(service)
            .filter_map(|port| {
                let target = ports::numeric_target(port)
                    .or_else(|| container_port(self, ports::target_name(port)?))?;
                Some(Port {
                    service_port: port.port,
                    target_port: target,
                    app_protocol: ports::service_protocol(port),
                })
            })
            .collect()
    }

    fn service_entry_ports(&self, entry: &ServiceEntry) -> Vec<Port> {
        ports::of_entry_endpoint(entry, |name| container_port(self, name))
    }
}

fn container_port(pod: &Pod, name: &str) -> Option<u16> {
    pod.lasting_containers()
        .flat_map(|container| &container.ports)
        .find(|port| port.name == name && port.protocol == Protocol::Tcp)
        .map(|port| port.container_port)
}
