//! The status of a waypoint's Gateway, and of a GatewayClass.

use crate::kinds::gateway::{Gateway, GatewayAddress, GatewayStatus, Listener, ListenerStatus};
use crate::kinds::gateway_class::GatewayClass;
use crate::kinds::metadata::Condition;
use crate::object::ObjectKey;
use crate::translate::Translation;
use crate::view::View;
use crate::waypoint::binding::Binding;
use crate::waypoint::deployment::{self, Obstacle};
use crate::waypoint::gateway::{self, Conflict, Unfit, UnfitListener};
use crate::waypoint::{WaypointName, parameters};

const RESOLVED_WAYPOINTS: &str = "ResolvedWaypoints";
const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";
const CONFLICTED: &str = "Conflicted";
const RESOLVED_REFS: &str = "ResolvedRefs";
const ONE_LISTENER: &str = "a waypoint has one listener, on port 15008 with protocol HBONE";

pub(in crate::translate) fn of_gateway(view: &View, gateway: &Gateway) -> Translation {
    if !gateway::is_waypoint(view, gateway) {
        return Translation::default();
    }
    let accepted = accepted(view, gateway);
    let programmed = match accepted.is_true() {
        true => programmed(view, gateway),
        false => Condition::new(PROGRAMMED, false, "Invalid", accepted.message.clone()),
    };
    let status = GatewayStatus {
        addresses: match accepted.is_true() {
            true => addresses(view, gateway),
            false => Vec::new(),
        },
        listeners: listeners(gateway, &programmed),
        conditions: Vec::new(),
    };
    let resolved = summary(&status.listeners);
    Translation {
        conditions: vec![accepted, programmed, resolved],
        gateway: Some(status),
        ..Translation::default()
    }
}

/// Where the waypoint is, once its Service has an address: numbers first, then the name.
fn addresses(view: &View, gateway: &Gateway) -> Vec<GatewayAddress> {
    let metadata = &gateway.metadata;
    let name = gateway::name_of_objects(metadata);
    let contents = view.contents(&metadata.namespace);
    let service = contents.and_then(|contents| contents.services.get(name));
    let of_type = |type_: &str, value: String| GatewayAddress {
        type_: Some(type_.to_owned()),
        value,
    };
    let mut addresses: Vec<GatewayAddress> = service
        .map_or(Vec::new(), |service| service.cluster_ips())
        .into_iter()
        .map(|address| of_type("IPAddress", address.to_string()))
        .collect();
    if !addresses.is_empty() {
        let hostname = view.context.service_hostname(name, &metadata.namespace);
        addresses.push(of_type("Hostname", hostname));
    }
    addresses
}

fn listeners(gateway: &Gateway, programmed: &Condition) -> Vec<ListenerStatus> {
    let listeners = gateway.spec.listeners.iter();
    listeners
        .map(|listener| {
            let unfit = gateway::unfit_listener(gateway, listener);
            let accepted = match unfit {
                None => Condition::new(ACCEPTED, true, ACCEPTED, "the waypoint listens there"),
                Some(UnfitListener::Protocol) => {
                    Condition::new(ACCEPTED, false, "UnsupportedProtocol", ONE_LISTENER)
                }
                Some(UnfitListener::Port | UnfitListener::Conflict(_)) => {
                    Condition::new(ACCEPTED, false, "PortUnavailable", ONE_LISTENER)
                }
            };
            let conflicted = match gateway::conflict(gateway, listener) {
                None => {
                    let message = "no other listener has the port";
                    Condition::new(CONFLICTED, false, "NoConflicts", message)
                }
                Some(conflict) => {
                    let reason = match conflict {
                        Conflict::Protocol => "ProtocolConflict",
                        Conflict::Hostname => "HostnameConflict",
                    };
                    let message = "another listener has the same port";
                    Condition::new(CONFLICTED, true, reason, message)
                }
            };
            ListenerStatus {
                name: listener.name.clone(),
                conditions: vec![accepted, programmed.clone(), conflicted, resolved(listener)],
                ..ListenerStatus::default()
            }
        })
        .collect()
}

/// Routes of a mesh are attached to services, and none to a waypoint's listener: it supports no
/// kind of them.
fn resolved(listener: &Listener) -> Condition {
    let kinds = listener.allowed_routes.iter().flat_map(|one| &one.kinds);
    let kinds: Vec<&str> = kinds.map(|one| one.kind.as_str()).collect();
    if kinds.is_empty() {
        return Condition::new(RESOLVED_REFS, true, RESOLVED_REFS, "it refers to nothing");
    }
    let message = format!(
        "allowedRoutes.kinds: {}: routes are attached to services, not to a waypoint",
        kinds.join(", ")
    );
    Condition::new(RESOLVED_REFS, false, "InvalidRouteKinds", message)
}

/// Of all listeners. What the Gateway itself refers to are its parameters, of which Accepted tells.
fn summary(listeners: &[ListenerStatus]) -> Condition {
    let conditions = listeners.iter().flat_map(|one| &one.conditions);
    let mut resolved = conditions.filter(|one| one.type_ == RESOLVED_REFS);
    match resolved.find(|one| !one.is_true()) {
        Some(one) => Condition::new(
            RESOLVED_REFS,
            false,
            "ListenersNotResolved",
            one.message.as_str(),
        ),
        None => Condition::new(RESOLVED_REFS, true, RESOLVED_REFS, "all references resolve"),
    }
}

pub(in crate::translate) fn of_class(view: &View, class: &GatewayClass) -> Translation {
    if !gateway::is_ours(class) {
        return Translation::default();
    }
    let accepted = match class.spec.parameters_ref {
        None => {
            let message = "its Gateways are waypoints of this mesh";
            Condition::new(ACCEPTED, true, ACCEPTED, message)
        }
        Some(_) => {
            let message = parameters::of_class(view, &class.metadata.name);
            Condition::new(ACCEPTED, false, "InvalidParameters", message)
        }
    };
    Translation {
        conditions: vec![accepted],
        ..Translation::default()
    }
}

/// Whether a waypoint serves what a route is attached to. Says nothing of readiness, which the
/// service's own status tells.
pub(in crate::translate) fn of_route_parent(view: &View, service: &ObjectKey) -> Condition {
    let resolved = |status, reason: &str, message: String| {
        Condition::new(RESOLVED_WAYPOINTS, status, reason, message)
    };
    match view.binding(service) {
        Some(Binding {
            waypoint,
            refusal: None,
            ..
        }) => resolved(
            true,
            RESOLVED_WAYPOINTS,
            format!("served by waypoint {waypoint}"),
        ),
        Some(Binding {
            waypoint,
            refusal: Some(refusal),
            ..
        }) => resolved(
            false,
            refusal.reason(),
            format!(
                "waypoint {waypoint} {}: connections are refused",
                refusal.sentence()
            ),
        ),
        None => resolved(
            false,
            "NoWaypoint",
            format!("{service} has no waypoint: the route has no effect"),
        ),
    }
}

fn accepted(view: &View, gateway: &Gateway) -> Condition {
    let refused = |reason: &str, message: String| Condition::new(ACCEPTED, false, reason, message);
    match gateway::unfit(gateway) {
        None => {}
        Some(Unfit::Listener(listener, _)) => {
            let message = format!("listener {:?}: {ONE_LISTENER}", listener.name);
            return refused("ListenersNotValid", message);
        }
        Some(Unfit::Address(address)) => {
            let message = format!(
                "spec.addresses: {address:?}: a waypoint has the address of its Service, and no other"
            );
            return refused("UnsupportedAddress", message);
        }
    }
    match deployment::obstacle(view, gateway) {
        None => {
            let mut message = "the waypoint is run by the mesh".to_owned();
            for left_out in view.not_honoured(gateway) {
                message = format!("{message}; {left_out}");
            }
            Condition::new(ACCEPTED, true, ACCEPTED, message)
        }
        Some(Obstacle::Parameters(why)) => refused("InvalidParameters", why),
        Some(Obstacle::Replicas(text)) => refused(
            "InvalidParameters",
            format!("annotation weft.dev/replicas: {text:?} is no number of pods from 0 to 100"),
        ),
        Some(Obstacle::Account(account)) => refused(
            "InvalidParameters",
            format!(
                "pods that are no waypoints run under service account {account} too: what the \
                 waypoint may do, they could; give it another with annotation \
                 gateway.istio.io/service-account"
            ),
        ),
        Some(Obstacle::Service(name)) => refused(
            "InvalidParameters",
            format!("there is a Service {name} already that is not the waypoint's"),
        ),
    }
}

fn programmed(view: &View, gateway: &Gateway) -> Condition {
    let metadata = &gateway.metadata;
    let waypoint = WaypointName::new(metadata.namespace.as_str(), metadata.name.as_str());
    let pending = |reason: &str, message: String| {
        Condition::new(
            PROGRAMMED,
            false,
            reason,
            format!("{message}: connections are refused until it is"),
        )
    };
    let name = gateway::name_of_objects(metadata);
    let service = view
        .contents(&metadata.namespace)
        .and_then(|contents| contents.services.get(name));
    let addressed = service.is_some_and(|service| !service.cluster_ips().is_empty());
    let ready = view.waypoint_pods(&waypoint).filter(|pod| pod.is_ready());
    let (ready, pods) = (ready.count(), view.waypoint_pods(&waypoint).count());
    if !addressed {
        return pending(
            "AddressNotAssigned",
            format!("Service {name} has no address yet"),
        );
    }
    match (ready, pods) {
        (0, 0) => pending("Pending", "no pod of the waypoint is there yet".to_owned()),
        (0, pods) => pending(
            "Pending",
            format!("none of {pods} pods of the waypoint is ready"),
        ),
        (ready, pods) => Condition::new(
            PROGRAMMED,
            true,
            PROGRAMMED,
            format!(
                "{ready} of {pods} pods ready at {}",
                view.context.service_hostname(name, &metadata.namespace)
            ),
        ),
    }
}
