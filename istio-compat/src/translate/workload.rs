//! What pods, WorkloadEntries and inline endpoints have in common.

use mesh::address::NamespacedHostname;
use mesh::authorization::PolicyKey;
use mesh::service::Port;
use mesh::workload::{Memberships, TunnelProtocol, Workload};

use crate::kinds::metadata::ObjectMeta;
use crate::kinds::selector::{Labels, labels_match};
use crate::kinds::service::{Service, ServiceType};
use crate::kinds::service_entry::ServiceEntry;
use crate::labels;
use crate::translate::{authorization_policy, peer_authentication, request_authentication};
use crate::view::View;

/// A workload with what is the same for all of this mesh.
pub(super) fn new(view: &View, uid: &str, name: &str, namespace: &str) -> Workload {
    let context = &view.context;
    let mut workload = Workload::new(uid, name, namespace);
    workload.cluster_id = context.cluster_id.clone();
    workload.trust_domain = context.trust_domain.clone();
    workload.network = context.network.clone();
    workload
}

/// Sets how the workload is reached: HBONE once its node has captured it, or where it
/// says that it speaks HBONE itself.
pub(super) fn set_tunnel(workload: &mut Workload, metadata: &ObjectMeta, labels: &Labels) {
    let native = labels.get(labels::TUNNEL).is_some_and(|own| own == "http");
    let captured = metadata.annotation(labels::REDIRECTION) == Some("enabled");
    if native || captured {
        workload.tunnel_protocol = TunnelProtocol::Hbone;
    }
    workload.native_tunnel = native;
}

/// Sets the names that telemetry uses.
pub(super) fn set_canonical(workload: &mut Workload, labels: &Labels) {
    let first = |keys: [&str; 3]| keys.iter().find_map(|key| labels.get(*key));
    workload.canonical_name = first([labels::CANONICAL_NAME, labels::APP_NAME, labels::APP])
        .map_or_else(
            || workload.workload_name.clone(),
            |name| name.as_str().into(),
        );
    workload.canonical_revision = first([
        labels::CANONICAL_REVISION,
        labels::APP_VERSION,
        labels::VERSION,
    ])
    .map_or("latest", String::as_str)
    .into();
}

/// The policies that select a workload by its labels, sorted.
pub(super) fn policies(view: &View, namespace: &str, labels: &Labels) -> Vec<PolicyKey> {
    let mut keys = authorization_policy::selecting(view, namespace, labels);
    keys.extend(peer_authentication::selecting(view, namespace, labels));
    keys.sort();
    keys.dedup();
    keys
}

/// Sets the policies that its waypoint evaluates, sorted.
pub(super) fn set_request_policies(workload: &mut Workload, view: &View, labels: &Labels) {
    let namespace = workload.namespace.clone();
    workload.request_policies = authorization_policy::selecting_whole(view, &namespace, labels);
    workload.request_authentications = request_authentication::selecting(view, &namespace, labels);
}

/// Where each port of a Service or ServiceEntry leads on the workload.
pub(crate) trait Endpoint {
    fn service_ports(&self, service: &Service) -> Vec<Port>;
    fn service_entry_ports(&self, entry: &ServiceEntry) -> Vec<Port>;
}

/// The services of the workload's namespace that select it.
pub(super) fn services(
    view: &View,
    namespace: &str,
    labels: &Labels,
    endpoint: &impl Endpoint,
) -> Memberships {
    let mut memberships = Memberships::default();
    let Some(contents) = view.contents(namespace) else {
        return memberships;
    };
    for service in contents.services.values() {
        let selector = &service.spec.selector;
        if !selector.is_empty()
            && service.spec.type_ != ServiceType::ExternalName
            && labels_match(selector, labels)
        {
            let hostname = view
                .context
                .service_hostname(&service.metadata.name, namespace);
            memberships.insert(
                NamespacedHostname::new(namespace, hostname),
                endpoint.service_ports(service),
            );
        }
    }
    for entry in contents.service_entries.values() {
        let Some(selector) = &entry.spec.workload_selector else {
            continue;
        };
        if selector.labels.is_empty() || !labels_match(&selector.labels, labels) {
            continue;
        }
        for host in super::service_entry::owned_hosts(view, entry) {
            memberships.insert(
                NamespacedHostname::new(namespace, host),
                endpoint.service_entry_ports(entry),
            );
        }
    }
    memberships
}
