//! What the certificate authority needs to know of pods, from the objects in force.

use istio_compat::enablement::is_ambient;
use istio_compat::kind::Kind;
use istio_compat::kinds::namespace::Namespace;
use istio_compat::kinds::pod::Pod;
use istio_compat::labels;
use istio_compat::object::ObjectKey;
use istio_compat::waypoint::is_waypoint_pod;

use crate::ca::{PodRecord, Pods};
use crate::controller::Knowledge;
use crate::index::Index;

impl Pods for Knowledge {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodRecord> {
        let state = self.read();
        let object = state
            .index
            .object(&ObjectKey::new(Kind::Pod, namespace, name))?;
        let pod = object.get::<Pod>()?;
        Some(PodRecord {
            uid: pod.metadata.uid.clone(),
            service_account: pod.service_account().to_owned(),
            node: Some(pod.spec.node_name.clone()).filter(|node| !node.is_empty()),
            finished: pod.is_finished(),
            native_tunnel: (pod.metadata.labels.get(labels::TUNNEL))
                .is_some_and(|tunnel| tunnel == "http"),
            waypoint: is_waypoint_pod(&pod.metadata),
        })
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let state = self.read();
        let mut pods = state
            .index
            .pods_on(node)
            .filter_map(|object| object.get::<Pod>());
        pods.any(|pod| {
            pod.metadata.namespace == namespace
                && pod.service_account() == service_account
                && !pod.is_finished()
                && is_enrolled(&state.index, pod)
        })
    }
}

/// Whether the pod is captured or will be at once. Its node says so only afterwards, and
/// the certificate is needed before; a pod being released is captured still.
fn is_enrolled(index: &Index, pod: &Pod) -> bool {
    if pod.metadata.annotation(labels::REDIRECTION) == Some("enabled") {
        return true;
    }
    let key = ObjectKey::new(Kind::Namespace, "", &*pod.metadata.namespace);
    let namespace = index.object(&key);
    let namespace = namespace.and_then(|object| object.get::<Namespace>());
    is_ambient(pod, namespace.map(|namespace| &**namespace)).is_captured()
}

#[cfg(test)]
mod tests;
