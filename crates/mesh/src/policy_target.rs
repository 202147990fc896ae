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

/// The class that Istio gives to waypoints, and that its users' policies name.
const ISTIO_WAYPOINT: &str = "istio-waypoint";
/// Ours, of those that are made on demand.
const WEFT_WAYPOINT: &str = "weft-waypoint";

/// A Gateway that serves as a waypoint, by all that a `targetRef` may name of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub class: Arc<str>,
}

// === impl Gateway ===

impl Gateway {
    /// The classes whose policies are for it: what guards every waypoint of Istio's guards ours, as
    /// nobody asked for them by class.
    pub fn classes(&self) -> impl Iterator<Item = Arc<str>> + use<> {
        let istio = (&*self.class == WEFT_WAYPOINT).then(|| ISTIO_WAYPOINT.into());
        std::iter::once(self.class.clone()).chain(istio)
    }
}
