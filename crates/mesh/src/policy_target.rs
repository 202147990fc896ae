//! What a policy is attached to by `targetRefs`.

use std::sync::Arc;

use serde::Serialize;

use crate::address::NamespacedHostname;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PolicyTarget {
    /// A Service's or a ServiceEntry's hostname.
    Service(NamespacedHostname),
    /// One waypoint.
    Gateway { namespace: Arc<str>, name: Arc<str> },
    /// Every waypoint of a class.
    GatewayClass(Arc<str>),
}

/// A Gateway that serves as a waypoint, by all that a `targetRef` may name of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub class: Arc<str>,
}
