//! What the user's folder and the control plane ask for, by kind.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use istio_compat::enablement::is_ambient;
use istio_compat::kind::Kind;
use istio_compat::kinds::deployment::Deployment;
use istio_compat::kinds::namespace::Namespace;
use istio_compat::kinds::node::Node;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::service::Service;
use istio_compat::object::{Body, ObjectKey};

/// Namespace and name.
pub(crate) type Name = (String, String);

#[derive(Default)]
pub(crate) struct Desired {
    pub(crate) pods: BTreeMap<Name, Arc<Pod>>,
    pub(crate) deployments: BTreeMap<Name, Arc<Deployment>>,
    /// Those of them that the control plane made.
    waypoints: BTreeSet<Name>,
    pub(crate) services: BTreeMap<Name, Arc<Service>>,
    pub(crate) namespaces: BTreeMap<String, Arc<Namespace>>,
    pub(crate) nodes: BTreeMap<String, Arc<Node>>,
}

/// Who wrote an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Author {
    User,
    ControlPlane,
}

// === impl Desired ===

impl Desired {
    pub(crate) fn apply(&mut self, body: &Body, author: Author) {
        let metadata = body.metadata();
        let name = (metadata.namespace.clone(), metadata.name.clone());
        match body {
            Body::Pod(pod) => drop(self.pods.insert(name, pod.clone())),
            Body::Deployment(deployment) => {
                match author {
                    Author::User => self.waypoints.remove(&name),
                    Author::ControlPlane => self.waypoints.insert(name.clone()),
                };
                self.deployments.insert(name, deployment.clone());
            }
            Body::Service(service) => drop(self.services.insert(name, service.clone())),
            Body::Namespace(namespace) => drop(self.namespaces.insert(name.1, namespace.clone())),
            Body::Node(node) => drop(self.nodes.insert(name.1, node.clone())),
            // The control plane's alone.
            Body::ServiceAccount(_)
            | Body::ConfigMap(_)
            | Body::AuthorizationPolicy(_)
            | Body::PeerAuthentication(_)
            | Body::ServiceEntry(_)
            | Body::WorkloadEntry(_)
            | Body::RequestAuthentication(_)
            | Body::Gateway(_)
            | Body::GatewayClass(_)
            | Body::HttpRoute(_)
            | Body::GrpcRoute(_)
            | Body::TcpRoute(_)
            | Body::ReferenceGrant(_) => {}
        }
    }

    pub(crate) fn delete(&mut self, key: &ObjectKey) {
        let name = (key.namespace.to_string(), key.name.to_string());
        match key.kind {
            Kind::Pod => drop(self.pods.remove(&name)),
            Kind::Deployment => {
                self.waypoints.remove(&name);
                self.deployments.remove(&name);
            }
            Kind::Service => drop(self.services.remove(&name)),
            Kind::Namespace => drop(self.namespaces.remove(&name.1)),
            Kind::Node => drop(self.nodes.remove(&name.1)),
            Kind::ServiceAccount
            | Kind::ConfigMap
            | Kind::AuthorizationPolicy
            | Kind::PeerAuthentication
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::RequestAuthentication
            | Kind::Gateway
            | Kind::GatewayClass
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::ReferenceGrant => {}
        }
    }

    /// Whether the Deployment's pods are waypoints: a user's Deployment never is one, whatever
    /// its labels say.
    pub(crate) fn is_waypoint(&self, deployment: &Name) -> bool {
        self.waypoints.contains(deployment)
    }

    /// Whether the mesh is to capture the pod.
    pub(crate) fn captures(&self, pod: &Pod) -> bool {
        let namespace = self.namespaces.get(&pod.metadata.namespace);
        is_ambient(pod, namespace.map(Arc::as_ref)).is_captured()
    }
}
