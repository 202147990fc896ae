//! Services that lead to the same ports of the same pods: a policy that targets one of them has
//! the pods' nodes let in its waypoint alone, so that the others need the waypoint, too.

use std::collections::BTreeSet;

use crate::kind::Kind;
use crate::kinds::selector::{Labels, labels_match};
use crate::object::{ObjectKey, Resource};
use crate::translate::workload::Endpoint;
use crate::view::{Contents, View};
use crate::waypoint::reasons::{Need, Reason};

impl View {
    /// The policies that target other services and guard ports this one leads to.
    pub(super) fn policies_guarding(&self, service: &ObjectKey) -> Vec<Reason> {
        let Some(contents) = self.contents(&service.namespace) else {
            return Vec::new();
        };
        let mut others = targeted_services(contents, &service.namespace);
        others.remove(service);
        others
            .into_iter()
            .filter(|other| contents.lead_to_one_port(service, other))
            .flat_map(|other| {
                let policies = self.policies_targeting(&other).map(|reason| reason.object);
                let policies: Vec<ObjectKey> = policies.collect();
                policies.into_iter().map(move |object| Reason {
                    object,
                    need: Need::Guard(other.clone()),
                })
            })
            .collect()
    }

    /// Other services of which some pods are the service's, too.
    pub(crate) fn sharing(&self, service: &ObjectKey) -> Vec<ObjectKey> {
        let Some(contents) = self.contents(&service.namespace) else {
            return Vec::new();
        };
        let behind: Vec<Labels> = contents.labels_behind(service).collect();
        let shared = |other: &ObjectKey| {
            let selector = contents.selector(other).filter(|_| other != service);
            let selects = |labels: &Labels| selector.is_some_and(|one| labels_match(one, labels));
            behind.iter().any(selects)
        };
        contents.service_keys().filter(shared).collect()
    }

    /// The services that lead to a pod with these labels, where a policy targets one of them.
    pub(crate) fn guarded_with(&self, namespace: &str, labels: &Labels) -> Vec<ObjectKey> {
        let Some(contents) = self.contents(namespace) else {
            return Vec::new();
        };
        let leads = |service: &ObjectKey| {
            let selector = contents.selector(service);
            selector.is_some_and(|selector| labels_match(selector, labels))
        };
        if !targeted_services(contents, namespace).iter().any(leads) {
            return Vec::new();
        }
        contents.service_keys().filter(leads).collect()
    }
}

/// What the policies of a namespace name.
fn targeted_services(contents: &Contents, namespace: &str) -> BTreeSet<ObjectKey> {
    let policies = contents.authorization_policies.values();
    let policies = policies.flat_map(|policy| policy.spec.targets());
    let tokens = contents.request_authentications.values();
    let tokens = tokens.flat_map(|policy| policy.spec.targets());
    policies
        .chain(tokens)
        .filter_map(|target| {
            let mut kinds = [Kind::Service, Kind::ServiceEntry].into_iter();
            let kind = kinds.find(|kind| kind.name() == target.kind)?;
            Some(ObjectKey::new(kind, namespace, target.name.as_str()))
        })
        .collect()
}

impl Contents {
    fn service_keys(&self) -> impl Iterator<Item = ObjectKey> {
        let services = self.services.values().map(|one| one.key());
        services.chain(self.service_entries.values().map(|one| one.key()))
    }

    /// Whether a port of a workload is one that both services lead to.
    fn lead_to_one_port(&self, one: &ObjectKey, other: &ObjectKey) -> bool {
        let pods = self.pods.values();
        let mut pods = pods.filter(|pod| !pod.is_finished());
        let mut entries = self.workload_entries.values();
        pods.any(|pod| self.share_port(one, other, &pod.metadata.labels, &**pod))
            || entries.any(|entry| self.share_port(one, other, &entry.labels(), &entry.spec))
    }

    fn share_port(
        &self,
        one: &ObjectKey,
        other: &ObjectKey,
        labels: &Labels,
        endpoint: &impl Endpoint,
    ) -> bool {
        let selects = |service| {
            let selector = self.selector(service);
            selector.is_some_and(|selector| labels_match(selector, labels))
        };
        if !selects(one) || !selects(other) {
            return false;
        }
        let ports = self.target_ports(other, endpoint);
        let mut own = self.target_ports(one, endpoint).into_iter();
        own.any(|port| port != 0 && ports.contains(&port))
    }

    fn target_ports(&self, service: &ObjectKey, endpoint: &impl Endpoint) -> Vec<u16> {
        let ports = match service.kind {
            Kind::Service => {
                let service = self.services.get(&service.name);
                service.map(|service| endpoint.service_ports(service))
            }
            _ => {
                let entry = self.service_entries.get(&service.name);
                entry.map(|entry| endpoint.service_entry_ports(entry))
            }
        };
        let ports = ports.unwrap_or_default().into_iter();
        ports.map(|port| port.target_port).collect()
    }

    /// The labels of the workloads that the service selects.
    fn labels_behind(&self, service: &ObjectKey) -> impl Iterator<Item = Labels> {
        let selector = self.selector(service);
        let behind = move |labels: &Labels| selector.is_some_and(|one| labels_match(one, labels));
        let pods = self.pods.values().map(|pod| pod.metadata.labels.clone());
        let entries = self.workload_entries.values().map(|entry| entry.labels());
        pods.chain(entries).filter(behind)
    }
}
