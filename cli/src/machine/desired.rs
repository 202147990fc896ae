//! What the user's folder and the control plane ask for, by kind.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cni::rules::{InterfaceName, Options};
use istio_compat::enablement::is_ambient;
use istio_compat::exclusions::{Exclusions, bypasses_inbound};
use istio_compat::kind::Kind;
use istio_compat::kinds::deployment::Deployment;
use istio_compat::kinds::namespace::Namespace;
use istio_compat::kinds::node::Node;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::service::Service;
use istio_compat::labels;
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

    /// How the mesh is to capture the pod, if it is.
    pub(crate) fn capture(&self, pod: &Pod) -> Option<Options> {
        let namespace = self.namespaces.get(&pod.metadata.namespace);
        let ambient = is_ambient(pod, namespace.map(Arc::as_ref));
        ambient.is_captured().then(|| options(pod))
    }
}

/// How a pod is captured, by its annotations.
fn options(pod: &Pod) -> Options {
    let annotation = |name: &str| pod.metadata.annotation(name);
    let interfaces = annotation(labels::REROUTE_VIRTUAL_INTERFACES).unwrap_or_default();
    let interfaces = interfaces.split(',').map(str::trim);
    let exclusions = Exclusions::of(&pod.metadata);
    Options {
        virtual_interfaces: interfaces
            .filter_map(|name| InterfaceName::try_from(name).ok())
            .collect(),
        exclude: cni::rules::Exclusions {
            inbound_ports: exclusions.inbound_ports.into_iter().collect(),
            outbound_ports: exclusions.outbound_ports.into_iter().collect(),
            outbound_ranges: exclusions.outbound_ranges.into_iter().collect(),
        },
        bypass_inbound: bypasses_inbound(&pod.metadata),
        dns_capture: annotation(labels::DNS_CAPTURE) != Some("false"),
        ..Options::default()
    }
}
