//! The resource types of the mesh, and who needs which.

use std::fmt;

use proto::authorization::AUTHORIZATION_TYPE_URL;
use proto::l7::{AUTHORIZATION_POLICY_TYPE_URL, REQUEST_AUTHENTICATION_TYPE_URL, ROUTE_TYPE_URL};
use proto::workload::ADDRESS_TYPE_URL;

/// In the order in which they are sent: a policy is of no use before its workloads, and what a
/// route leads to is guarded before the route leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// Workloads and services.
    Address,
    /// L4 policies.
    Authorization,
    /// Whole AuthorizationPolicies.
    AuthorizationPolicy,
    RequestAuthentication,
    Route,
}

/// What a proxy enforces besides knowing every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Connections: a node tunnel.
    L4,
    /// Requests: a waypoint.
    L7,
}

// === impl ResourceType ===

impl ResourceType {
    pub const ALL: [Self; 5] = [
        Self::Address,
        Self::Authorization,
        Self::AuthorizationPolicy,
        Self::RequestAuthentication,
        Self::Route,
    ];

    pub fn url(self) -> &'static str {
        match self {
            Self::Address => ADDRESS_TYPE_URL,
            Self::Authorization => AUTHORIZATION_TYPE_URL,
            Self::AuthorizationPolicy => AUTHORIZATION_POLICY_TYPE_URL,
            Self::RequestAuthentication => REQUEST_AUTHENTICATION_TYPE_URL,
            Self::Route => ROUTE_TYPE_URL,
        }
    }

    /// What metrics call it; the first two as Istio's do.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Address => "wds",
            Self::Authorization => "wads",
            Self::AuthorizationPolicy => "authorization_policy",
            Self::RequestAuthentication => "request_authentication",
            Self::Route => "route",
        }
    }

    pub fn from_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::Authorization => "authorization",
            Self::AuthorizationPolicy => "authorization policy",
            Self::RequestAuthentication => "request authentication",
            Self::Route => "route",
        })
    }
}

// === impl Layer ===

impl Layer {
    /// The types a proxy of this layer subscribes to, and the only ones it is given: first what
    /// holds for workloads and services, then these.
    pub fn types(self) -> &'static [ResourceType] {
        match self {
            Self::L4 => &[ResourceType::Authorization, ResourceType::Address],
            Self::L7 => &[
                ResourceType::AuthorizationPolicy,
                ResourceType::RequestAuthentication,
                ResourceType::Route,
                ResourceType::Address,
            ],
        }
    }
}
