//! Which waypoint stands in front of a service or workload.
//!
//! No waypoint runs yet. One that is asked for is named all the same, so that its
//! connections are refused with that reason instead of going around it.

use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname};
use mesh::destination::HBONE_PORT;

use crate::kinds::authorization_policy::AuthorizationPolicy;
use crate::kinds::metadata::{Condition, ObjectMeta};
use crate::labels;
use crate::view::View;

pub(super) const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";

/// The name of a waypoint that is needed and that no label names.
const DEFAULT_NAME: &str = "waypoint";
/// `off`: policies that need a waypoint do not ask for one by themselves.
const ON_DEMAND: &str = "weft.dev/waypoint";

/// A waypoint that is asked for, and why.
pub(super) struct Binding {
    pub(super) address: GatewayAddress,
    pub(super) condition: Condition,
}

/// Of a service: the label's, its own or its namespace's; else one for the policies that
/// target it, which only a waypoint can enforce.
pub(super) fn of_service(view: &View, kind: &str, metadata: &ObjectMeta) -> Option<Binding> {
    let namespace = view.namespace(&metadata.namespace);
    let labelled = [Some(metadata), namespace.map(|one| &one.metadata)]
        .into_iter()
        .flatten()
        .find(|one| one.label(labels::USE_WAYPOINT).is_some());
    if let Some(source) = labelled {
        return labelled_waypoint(view, source, &metadata.namespace);
    }
    if namespace.is_some_and(|one| one.metadata.label(ON_DEMAND) == Some("off")) {
        return None;
    }
    let policy = targeting(view, kind, metadata).next()?;
    let why = format!(
        "AuthorizationPolicy {} targets it and needs a waypoint",
        policy.metadata.name
    );
    Some(binding(view, DEFAULT_NAME, &metadata.namespace, &why))
}

/// Of a workload: its own label's only. A namespace's waypoint is for services, unless
/// its Gateway says otherwise.
pub(super) fn of_workload(view: &View, metadata: &ObjectMeta) -> Option<Binding> {
    metadata.label(labels::USE_WAYPOINT)?;
    labelled_waypoint(view, metadata, &metadata.namespace)
}

/// The policies that target an object.
fn targeting<'a>(
    view: &'a View,
    kind: &'a str,
    metadata: &'a ObjectMeta,
) -> impl Iterator<Item = &'a AuthorizationPolicy> {
    view.contents(&metadata.namespace)
        .into_iter()
        .flat_map(|contents| contents.authorization_policies.values())
        .map(AsRef::as_ref)
        .filter(move |policy| {
            let mut targets = policy.spec.targets();
            targets.any(|target| target.kind == kind && target.name == metadata.name)
        })
}

fn labelled_waypoint(view: &View, source: &ObjectMeta, namespace: &str) -> Option<Binding> {
    let name = source.label(labels::USE_WAYPOINT)?;
    if name == "none" {
        return None;
    }
    let namespace = source
        .label(labels::USE_WAYPOINT_NAMESPACE)
        .unwrap_or(namespace);
    let why = format!("label {} asks for it", labels::USE_WAYPOINT);
    Some(binding(view, name, namespace, &why))
}

fn binding(view: &View, name: &str, namespace: &str, why: &str) -> Binding {
    let hostname = view.context.service_hostname(name, namespace);
    Binding {
        address: GatewayAddress {
            destination: GatewayDestination::Hostname(NamespacedHostname::new(namespace, hostname)),
            hbone_mtls_port: HBONE_PORT,
        },
        condition: Condition::new(
            WAYPOINT_BOUND,
            false,
            "WaypointIsNotReady",
            format!(
                "{why}, and waypoint {namespace}/{name} is not there: \
                 connections are refused until it is"
            ),
        ),
    }
}
