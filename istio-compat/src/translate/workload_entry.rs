//! WorkloadEntry to workload; also the inline endpoints of a ServiceEntry.

use mesh::service::Port;
use mesh::workload::{Locality, Workload, WorkloadStatus};

use crate::kinds::metadata::ObjectMeta;
use crate::kinds::service::Service;
use crate::kinds::service_entry::ServiceEntry;
use crate::kinds::workload_entry::{WorkloadEntry, WorkloadEntrySpec};
use crate::labels;
use crate::object::Resource;
use crate::translate::workload::Endpoint;
use crate::translate::{Translation, ports, waypoint, workload};
use crate::view::View;

pub(super) fn translate(view: &View, entry: &WorkloadEntry) -> Translation {
    let metadata = &entry.metadata;
    let (name, namespace) = (&metadata.name, &metadata.namespace);
    let labels = entry.labels();
    let uid = format!(
        "{}/networking.istio.io/WorkloadEntry/{namespace}/{name}",
        view.context.cluster_id
    );
    let mut workload = workload::new(view, &uid, name, namespace);
    workload.workload_name = workload_name(metadata).into();
    workload.status = health(entry);
    workload.authorization_policies = workload::policies(view, namespace, &labels);
    workload.services = workload::services(view, namespace, &labels, &entry.spec);
    set_spec(&mut workload, &entry.spec);
    workload::set_tunnel(&mut workload, metadata, &labels);
    workload::set_request_policies(&mut workload, view, &labels);
    workload::set_canonical(&mut workload, &labels);
    let (front, authorizations) =
        waypoint::set(view, &entry.key(), metadata, &labels, &mut workload);
    let conditions = front.iter().map(|front| front.condition.clone()).collect();
    Translation {
        workloads: vec![workload],
        authorizations,
        conditions,
        binding: front.map(|front| front.binding),
        ..Translation::default()
    }
}

/// What the spec itself says of the workload.
pub(super) fn set_spec(workload: &mut Workload, spec: &WorkloadEntrySpec) {
    match spec.address.parse() {
        Ok(address) => workload.addresses = [address].into(),
        Err(_) => workload.hostname = Some(spec.address.as_str().into()),
    }
    if !spec.network.is_empty() {
        workload.network = spec.network.as_str().into();
    }
    if !spec.service_account.is_empty() {
        workload.service_account = spec.service_account.as_str().into();
    }
    let mut locality = spec.locality.splitn(3, '/').map(Into::into);
    let mut next = || locality.next().unwrap_or_default();
    let locality = Locality {
        region: next(),
        zone: next(),
        subzone: next(),
    };
    workload.locality = locality.into();
    workload.capacity = spec.weight.max(1);
}

fn workload_name(metadata: &ObjectMeta) -> &str {
    metadata
        .annotation(labels::AUTO_REGISTRATION_GROUP)
        .or_else(|| metadata.label(labels::WORKLOAD_NAME))
        .unwrap_or(&metadata.name)
}

/// Healthy unless a condition of the status says that it is not.
fn health(entry: &WorkloadEntry) -> WorkloadStatus {
    let reported = |one: &str| ["Healthy", "Ready"].contains(&one);
    let mut conditions = entry.status.conditions.iter();
    match conditions.any(|one| reported(&one.type_) && !one.is_true()) {
        true => WorkloadStatus::Unhealthy,
        false => WorkloadStatus::Healthy,
    }
}

impl Endpoint for WorkloadEntrySpec {
    /// A named target that the entry does not have leaves its port out.
    fn service_ports(&self, service: &Service) -> Vec<Port> {
        ports::tcp_ports(service)
            .filter_map(|port| {
                let target = match ports::numeric_target(port) {
                    Some(number) => *self.ports.get(&port.name).unwrap_or(&number),
                    None => *self.ports.get(ports::target_name(port)?)?,
                };
                Some(Port {
                    service_port: port.port,
                    target_port: target,
                    app_protocol: ports::service_protocol(port),
                })
            })
            .collect()
    }

    fn service_entry_ports(&self, entry: &ServiceEntry) -> Vec<Port> {
        ports::of_entry_endpoint(entry, |name| self.ports.get(name).copied())
    }
}
