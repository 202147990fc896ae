//! From objects to what the data plane is told: one pure function for each kind.

mod authorization_policy;
mod grpc_route;
mod http_route;
mod namespace;
mod node;
mod peer_authentication;
mod pod;
mod policy_target;
mod ports;
mod request_authentication;
mod route;
mod route_conflict;
mod route_filter;
mod service;
mod service_entry;
mod tcp_route;
mod waypoint;
pub(crate) mod workload;
mod workload_entry;

use mesh::authorization::Authorization;
use mesh::request_authentication::RequestAuthentication;
use mesh::route::Route;
use mesh::service::Service;
use mesh::workload::Workload;

use crate::kind::Kind;
use crate::kinds::gateway::GatewayStatus;
use crate::kinds::metadata::Condition;
use crate::kinds::route::RouteParentStatus;
use crate::object::ObjectKey;
use crate::view::View;
use crate::waypoint::binding::Binding;

pub use peer_authentication::{ModeSource, STATIC_STRICT};

/// All that one object comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    pub workloads: Vec<Workload>,
    pub services: Vec<Service>,
    /// What nodes enforce.
    pub authorizations: Vec<Authorization>,
    /// AuthorizationPolicies whole, as waypoints evaluate them.
    pub authorization_policies: Vec<Authorization>,
    pub request_authentications: Vec<RequestAuthentication>,
    pub routes: Vec<Route>,
    /// For the object's status; of a route, what its parents say together.
    pub conditions: Vec<Condition>,
    /// Which waypoint stands in front of it.
    pub binding: Option<Binding>,
    /// For a route's status.
    pub parents: Vec<RouteParentStatus>,
    /// Of a Gateway's status, what is no condition of its own.
    pub gateway: Option<GatewayStatus>,
}

impl View {
    /// What an object comes to, given all others. Nothing where it does not exist.
    pub fn translate(&self, key: &ObjectKey) -> Translation {
        if key.kind == Kind::GatewayClass {
            let class = self.gateway_classes.get(&key.name);
            return class.map_or_else(Translation::default, |class| {
                waypoint::status::of_class(self, class)
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
            Kind::RequestAuthentication => contents
                .request_authentications
                .get(name)
                .map(|policy| request_authentication::translate(self, policy)),
            Kind::HttpRoute => contents
                .http_routes
                .get(name)
                .map(|route| http_route::translate(self, route)),
            Kind::GrpcRoute => contents
                .grpc_routes
                .get(name)
                .map(|route| grpc_route::translate(self, route)),
            Kind::TcpRoute => contents
                .tcp_routes
                .get(name)
                .map(|route| tcp_route::translate(self, route)),
            Kind::Namespace
            | Kind::Node
            | Kind::GatewayClass
            | Kind::ServiceAccount
            | Kind::ConfigMap
            | Kind::Deployment
            | Kind::ReferenceGrant => None,
        }
        .unwrap_or_default()
    }
}
