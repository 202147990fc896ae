//! The resource types of the mesh.

use std::fmt;

use proto::authorization::AUTHORIZATION_TYPE_URL;
use proto::workload::ADDRESS_TYPE_URL;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// Workloads and services.
    Address,
    /// L4 policies.
    Authorization,
}

// === impl ResourceType ===

impl ResourceType {
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    pub fn url(self) -> &'static str {
        match self {
            Self::Address => ADDRESS_TYPE_URL,
            Self::Authorization => AUTHORIZATION_TYPE_URL,
        }
    }

    /// What Istio's metrics call it.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Address => "wds",
            Self::Authorization => "wads",
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
        })
    }
}
