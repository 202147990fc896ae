//! What the data plane is told of waypoints: where a service's connections go, whom a workload
//! admits, and what denies the ways around.

pub(super) mod status;

use std::collections::BTreeMap;

use mesh::address::GatewayAddress;
use mesh::authorization::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};
use mesh::service::WeightedWaypoint;
use mesh::workload::Workload;

use crate::kind::Kind;
use crate::kinds::metadata::{Condition, ObjectMeta};
use crate::kinds::selector::Labels;
use crate::object::ObjectKey;
use crate::view::View;
use crate::waypoint::binding::{Binding, Cause};
use crate::waypoint::reasons::{Need, Reason};
use crate::waypoint::{WaypointName, is_waypoint_pod};

const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";
/// Policies of this name deny what goes around a waypoint.
const REQUIRED: &str = "weft_waypoint_required";

/// What stands in front of an object.
pub(super) struct Front {
    pub(super) binding: Binding,
    pub(super) address: GatewayAddress,
    /// It and its canary, where there is one.
    pub(super) weighted: Vec<WeightedWaypoint>,
    pub(super) condition: Condition,
}

pub(super) fn of_service(view: &View, kind: Kind, metadata: &ObjectMeta) -> Option<Front> {
    view.binding_of_service(kind, metadata)
        .map(|binding| front(view, binding))
}

/// Sets what stands in front of a workload, whom it admits, and which policies deny the ways
/// around; returns the front and those policies. Each is made by every workload that names it,
/// and all that it says is in its name.
pub(super) fn set(
    view: &View,
    key: &ObjectKey,
    metadata: &ObjectMeta,
    labels: &Labels,
    workload: &mut Workload,
) -> (Option<Front>, Vec<Authorization>) {
    if is_waypoint_pod(metadata) {
        return (None, Vec::new());
    }
    let services = view.owners(&key.namespace, &workload.services);
    let reasons = view.reasons_of_workload(&key.namespace, labels, &services);
    let binding = view.binding_of_workload(key, metadata, &reasons);
    admit(view, workload, &services, binding.as_ref());
    let required = required(view, workload, &services, &reasons, binding.as_ref());
    for policy in &required {
        workload.authorization_policies.push(policy.key());
    }
    workload.authorization_policies.sort();
    let front = binding.map(|binding| front(view, binding));
    workload.waypoint = front.as_ref().map(|front| front.address.clone());
    (front, required)
}

/// Every waypoint of the workload's namespace, for it may have connections open still; of
/// other namespaces those that labels name, for its services and for services whose routes
/// send requests to them.
fn admit(view: &View, workload: &mut Workload, services: &[ObjectKey], binding: Option<&Binding>) {
    let namespace = &*workload.namespace;
    let sources = services.iter().flat_map(|service| {
        let routes = view.routes.sending_to(service);
        routes
            .flat_map(|route| view.routes.parents(route))
            .filter(|parent| *parent.namespace == *namespace)
    });
    let labelled = services
        .iter()
        .chain(sources)
        .flat_map(|service| view.labelled_waypoints(service));
    let own = binding.filter(|binding| binding.refusal.is_none());
    let named = labelled.chain(own.map(|binding| binding.waypoint.clone()));
    let mut admitted: Vec<_> = named.map(|name| view.waypoint_identity(&name)).collect();
    admitted.extend(view.waypoints_of(namespace));
    admitted.retain(|one| !view.is_shared(&one.namespace, &one.service_account));
    admitted.sort();
    admitted.dedup();
    workload.admitted_waypoints = admitted;
}

/// What denies all but the waypoint where policies about requests cover the workload: on all
/// its ports, or on those of the services that the policies target.
fn required(
    view: &View,
    workload: &Workload,
    services: &[ObjectKey],
    reasons: &[Reason],
    binding: Option<&Binding>,
) -> Vec<Authorization> {
    if reasons.is_empty() {
        return Vec::new();
    }
    let of_services: BTreeMap<&ObjectKey, WaypointName> = services
        .iter()
        .filter_map(|service| Some((service, view.binding(service)?.waypoint)))
        .collect();
    let own = binding.map(|binding| binding.waypoint.clone());
    let everything = reasons.iter().any(|reason| reason.need != Need::Target);
    if everything {
        let waypoint = own.or_else(|| of_services.into_values().next());
        let policy = waypoint.map(|waypoint| deny_all_but(view, workload, &waypoint, &[]));
        return policy.into_iter().collect();
    }
    let targeted = of_services.into_iter().filter(|(service, _)| {
        let mut policies = view.policies_targeting(service);
        policies.next().is_some()
    });
    let mut ports: BTreeMap<WaypointName, Vec<u16>> = BTreeMap::new();
    for (service, waypoint) in targeted {
        let targets = workload.services.iter().filter(|(key, _)| {
            let owner = view.owner(&key.hostname, Some(&workload.namespace));
            owner == Some(service)
        });
        let targets = targets.flat_map(|(_, ports)| ports.iter().map(|port| port.target_port));
        ports.entry(waypoint).or_default().extend(targets);
    }
    ports
        .into_iter()
        .filter_map(|(waypoint, mut ports)| {
            ports.retain(|port| *port != 0);
            ports.sort_unstable();
            ports.dedup();
            (!ports.is_empty()).then(|| deny_all_but(view, workload, &waypoint, &ports))
        })
        .collect()
}

/// `weft_waypoint_required_NAMESPACE_NAME`, with the ports where it is about some.
fn deny_all_but(
    view: &View,
    workload: &Workload,
    waypoint: &WaypointName,
    ports: &[u16],
) -> Authorization {
    let identity = view.waypoint_identity(waypoint);
    let mut name = format!("{REQUIRED}_{}_{}", waypoint.namespace, waypoint.name);
    let clause = |one: Match| Clause { matches: vec![one] };
    let mut clauses = vec![clause(Match {
        not_principals: vec![StringMatch::Exact(identity.principal().into())],
        ..Match::default()
    })];
    if !ports.is_empty() {
        for port in ports {
            name.push_str(&format!("_{port}"));
        }
        clauses.push(clause(Match {
            destination_ports: ports.to_vec(),
            ..Match::default()
        }));
    }
    Authorization {
        name: name.into(),
        namespace: workload.namespace.clone(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule { clauses }],
    }
}

fn front(view: &View, binding: Binding) -> Front {
    let address = view.address(&binding);
    let canary = binding.canary.as_ref().filter(|canary| canary.has_share());
    let weighted = canary.map_or(Vec::new(), |canary| {
        let second = view.address_of(&canary.waypoint, None);
        let shares = [
            (address.clone(), 100 - canary.weight),
            (second, canary.weight),
        ];
        let shares = shares.into_iter();
        shares
            .map(|(destination, weight)| WeightedWaypoint {
                destination,
                weight,
            })
            .collect()
    });
    Front {
        address,
        weighted,
        condition: condition(view, &binding),
        binding,
    }
}

fn condition(view: &View, binding: &Binding) -> Condition {
    let waypoint = &binding.waypoint;
    let why = match &binding.cause {
        Cause::Label(source) if source.kind == Kind::Namespace => {
            format!("label istio.io/use-waypoint of {source} asks for it")
        }
        Cause::Label(_) => "label istio.io/use-waypoint asks for it".to_owned(),
        Cause::Demand(reasons) => match reasons.split_first() {
            Some((first, [])) => first.to_string(),
            Some((first, rest)) => format!("{first}, and {} more", rest.len()),
            None => String::new(),
        },
    };
    let unusable = |reason: &str, what: &str| {
        let message =
            format!("{why}, and waypoint {waypoint} {what}: connections are refused until it is");
        Condition::new(WAYPOINT_BOUND, false, reason, message)
    };
    match binding.refusal {
        Some(refusal) => {
            let message = format!(
                "{why}, and waypoint {waypoint} {}: connections are refused",
                refusal.sentence()
            );
            Condition::new(WAYPOINT_BOUND, false, refusal.reason(), message)
        }
        None if view.is_ready(waypoint) => {
            let canary = binding.canary.as_ref();
            let canary = canary.map_or(String::new(), |one| format!("; {}", one.sentence()));
            let message = format!("bound to waypoint {waypoint}: {why}{canary}");
            Condition::new(WAYPOINT_BOUND, true, "WaypointAccepted", message)
        }
        None => unusable("WaypointIsNotReady", "is not ready"),
    }
}
