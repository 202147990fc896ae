//! Waypoints, made where something needs HTTP: why a service needs one, which one stands in
//! front of it, and the objects that run it. Pure, as the rest of the crate.
//!
//! - [`attributes`]: what of an AuthorizationPolicy only a waypoint can know
//! - [`reasons`]: why a service, or a workload, needs a waypoint
//! - `guards`: services that lead to the same pods
//! - [`gateway`]: what a Gateway says of its waypoint
//! - [`canary`]: the second waypoint that gets a share of connections
//! - [`binding`]: which waypoint stands in front of what
//! - [`deployment`]: Gateway to Deployment, Service and ServiceAccount
//! - `parameters`: what a ConfigMap lays over them

pub mod attributes;

pub mod reasons;

mod guards;

pub mod gateway;

pub mod canary;

pub mod binding;

pub mod deployment;

pub(crate) mod parameters;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::kinds::metadata::ObjectMeta;
use crate::labels;

/// The name of a waypoint that is needed and that no label names.
pub const DEFAULT_NAME: &str = "waypoint";

/// Where a waypoint takes HBONE.
pub const HBONE_PORT: u16 = 15008;

/// A waypoint, by its Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct WaypointName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// Whether an object was made for a Gateway: what belongs to a waypoint never has one itself.
pub fn is_managed(metadata: &ObjectMeta) -> bool {
    metadata.label(labels::MANAGED).is_some()
}

/// Whether a pod runs a waypoint.
pub fn is_waypoint_pod(metadata: &ObjectMeta) -> bool {
    is_managed(metadata) && metadata.label(labels::GATEWAY_NAME).is_some()
}

/// Whether the object is the mesh's own, and not the user's.
pub fn is_own(metadata: &ObjectMeta) -> bool {
    is_managed(metadata) || metadata.label(labels::ON_DEMAND).is_some()
}

// === impl WaypointName ===

impl WaypointName {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The one that is made for a namespace.
    pub fn on_demand(namespace: impl Into<Arc<str>>) -> Self {
        Self::new(namespace, DEFAULT_NAME)
    }
}

impl fmt::Display for WaypointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests;
