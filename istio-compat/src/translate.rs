//! From objects to what the data plane is told: one pure function for each kind.

mod authorization_policy;
mod namespace;
mod node;
mod peer_authentication;
mod pod;
mod ports;
mod service;
mod service_entry;
mod waypoint;
mod workload;
mod workload_entry;

use mesh::authorization::Authorization;
use mesh::service::Service;
use mesh::workload::Workload;

use crate::kind::Kind;
use crate::kinds::metadata::Condition;
use crate::object::ObjectKey;
use crate::view::View;
use crate::waypoint::binding::Binding;

pub use peer_authentication::STATIC_STRICT;

/// All that one object comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
    pub authorizations: Vec<Authorization>,
    /// For the object's status.
    pub conditions: Vec<Condition>,
    /// Which waypoint stands in front of it.
    pub binding: Option<Binding>,
}

impl View {
    /// What an object comes to, given all others. Nothing where it does not exist.
    pub fn translate(&self, key: &ObjectKey) -> Translation {
        if key.kind == Kind::GatewayClass {
            let class = self.gateway_classes.get(&key.name);
            return class.map_or_else(Translation::default, |class| {
                waypoint::status::of_class(class)
            });
        }
        let Some(contents) = self.contents(&key.namespace) else {
            return Translation::default();
        };
        let name = &*key.name;
        match key.kind {
            Kind::Pod => contents.pods.get(name).map(|pod| pod::translate(self, pod)),
            Kind::Service => contents
                .services
                .get(name)
                .map(|service| service::translate(self, service)),
            Kind::ServiceEntry => contents
                .service_entries
                .get(name)
                .map(|entry| service_entry::translate(self, entry)),
            Kind::WorkloadEntry => contents
                .workload_entries
                .get(name)
                .map(|entry| workload_entry::translate(self, entry)),
            Kind::AuthorizationPolicy => contents
                .authorization_policies
                .get(name)
                .map(|policy| authorization_policy::translate(self, policy)),
            Kind::PeerAuthentication => contents
                .peer_authentications
                .get(name)
                .map(|policy| peer_authentication::translate(self, policy)),
            Kind::Gateway => contents
                .gateways
                .get(name)
                .map(|gateway| waypoint::status::of_gateway(self, gateway)),
            Kind::Namespace
            | Kind::Node
            | Kind::GatewayClass
            | Kind::ServiceAccount
            | Kind::Deployment
            | Kind::RequestAuthentication
            | Kind::HttpRoute
            | Kind::GrpcRoute
            | Kind::TcpRoute
            | Kind::ReferenceGrant => None,
        }
        .unwrap_or_default()
    }
}
