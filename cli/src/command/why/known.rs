//! The mesh as its objects have it: resources to ask, and where each object was written.

use std::sync::Arc;
use std::time::SystemTime;

use control_plane::index::Index;
use control_plane::source::Event;
use istio_compat::enablement::{Enablement, is_ambient};
use istio_compat::kind::Kind;
use istio_compat::kinds::pod::Pod;
use istio_compat::object::{Object, ObjectKey};
use istio_compat::view::Context;
use istio_compat::waypoint::WaypointName;
use istio_compat::waypoint::binding::Binding;
use mesh::address::NamespacedHostname;
use mesh::policy_target::Gateway;
use mesh::snapshot::Snapshot;
use mesh::workload::Workload;

use super::answer::Place;

/// Gateways that are made on demand are of this class.
const ON_DEMAND_CLASS: &str = "weft-waypoint";

/// What the control plane would know, and serve.
pub(super) struct Known {
    pub(super) index: Index,
    pub(super) snapshot: Snapshot,
    /// Pods and addresses are made up: no mesh runs on these objects.
    pub(super) simulated: bool,
}

// === impl Known ===

impl Known {
    /// What a running mesh has, as it is.
    pub(super) fn new(objects: impl IntoIterator<Item = Object>, context: Context) -> Self {
        let mut known = Self {
            index: Index::new(context),
            snapshot: Snapshot::default(),
            simulated: false,
        };
        known.apply(objects);
        known
    }

    pub(super) fn apply(&mut self, objects: impl IntoIterator<Item = Object>) {
        let changes = self
            .index
            .apply(objects.into_iter().map(Event::Applied), SystemTime::now());
        self.snapshot.apply(changes);
    }

    pub(super) fn context(&self) -> &Context {
        self.index.view().context()
    }

    pub(super) fn place(&self, key: &ObjectKey) -> Option<Place> {
        self.place_in(key, |object| object.origin.line)
    }

    /// Of one of the object's rules, by its index.
    pub(super) fn rule_place(&self, key: &ObjectKey, rule: usize) -> Option<Place> {
        self.place_in(key, |object| object.rule_line(rule))
    }

    pub(super) fn place_in(
        &self,
        key: &ObjectKey,
        line: impl FnOnce(&Object) -> u32,
    ) -> Option<Place> {
        let object = self.index.object(key)?;
        // What is made up has no file.
        (object.origin.line > 0).then(|| Place {
            file: object.origin.file.to_string(),
            line: line(object),
        })
    }

    /// The object that a service was made of.
    pub(super) fn service_object(&self, service: &NamespacedHostname, name: &str) -> ObjectKey {
        let namespace = &service.namespace;
        let hostname = self.context().service_hostname(name, namespace);
        let kind = match *hostname == *service.hostname {
            true => Kind::Service,
            false => Kind::ServiceEntry,
        };
        ObjectKey::new(kind, namespace.clone(), name)
    }

    /// The object that a workload was made of.
    pub(super) fn workload_object(&self, workload: &Workload) -> ObjectKey {
        let kind = match workload.uid.is_pod() {
            true => Kind::Pod,
            false => Kind::WorkloadEntry,
        };
        ObjectKey::new(kind, workload.namespace.clone(), workload.name())
    }

    pub(super) fn pod(&self, workload: &Workload) -> Option<&Arc<Pod>> {
        self.index
            .object(&self.workload_object(workload))?
            .get::<Pod>()
    }

    /// Whether the pod asks to be captured.
    pub(super) fn enablement(&self, pod: &Pod) -> Enablement {
        let namespace = self.index.view().namespace(&pod.metadata.namespace);
        is_ambient(pod, namespace.map(AsRef::as_ref))
    }

    pub(super) fn binding(&self, key: &ObjectKey) -> Option<&Binding> {
        let mut bindings = self.index.bindings();
        bindings.find(|(known, _)| *known == key).map(|(_, it)| it)
    }

    /// The waypoint, as policies may target it.
    pub(super) fn gateway(&self, waypoint: &WaypointName) -> Gateway {
        let object = self.index.view().gateway(waypoint);
        let class = object.map_or(ON_DEMAND_CLASS, |one| &one.spec.gateway_class_name);
        Gateway {
            namespace: waypoint.namespace.clone(),
            name: waypoint.name.clone(),
            class: class.into(),
        }
    }
}
