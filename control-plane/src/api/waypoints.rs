//! The waypoints, whether they are ready, and what is bound to each for which reasons.

use std::collections::BTreeMap;

use istio_compat::object::{Object, ObjectKey};
use istio_compat::waypoint::binding::{Binding, Cause};
use istio_compat::waypoint::{WaypointName, gateway};
use serde_json::{Value, json};

use crate::index::Index;

pub(super) fn of(index: &Index) -> Value {
    let mut bound: BTreeMap<WaypointName, Vec<(&ObjectKey, &Binding)>> = BTreeMap::new();
    for gateway in index.view().waypoints() {
        let metadata = &gateway.metadata;
        let name = WaypointName::new(metadata.namespace.as_str(), metadata.name.as_str());
        bound.entry(name).or_default();
    }
    for (key, binding) in index.bindings() {
        let waypoint = bound.entry(binding.waypoint.clone()).or_default();
        waypoint.push((key, binding));
    }
    let waypoints: Vec<Value> = bound
        .iter()
        .map(|(name, bound)| waypoint(index, name, bound))
        .collect();
    json!({
        "apiVersion": "weft.dev/v1",
        "kind": "WaypointList",
        "items": waypoints,
    })
}

fn waypoint(index: &Index, name: &WaypointName, bound: &[(&ObjectKey, &Binding)]) -> Value {
    let view = index.view();
    let gateway = view.gateway(name);
    let demanded = bound.iter().any(|(_, binding)| is_demanded(binding));
    let pods = view.waypoint_pods(name);
    let pods: Vec<Value> = pods
        .map(|pod| {
            json!({
                "name": pod.metadata.name,
                "node": pod.spec.node_name,
                "ready": pod.is_ready(),
            })
        })
        .collect();
    let key = ObjectKey::new(
        istio_compat::kind::Kind::Gateway,
        name.namespace.clone(),
        name.name.clone(),
    );
    let (workloads, services): (Vec<_>, Vec<_>) =
        bound.iter().partition(|(key, _)| is_workload(key));
    let of = |objects: Vec<&(&ObjectKey, &Binding)>| -> Vec<Value> {
        let objects = objects.into_iter();
        objects
            .map(|(key, binding)| object(index, key, binding))
            .collect()
    };
    json!({
        "namespace": name.namespace,
        "name": name.name,
        "class": gateway.map(|gateway| gateway.spec.gateway_class_name.clone()),
        "exists": gateway.is_some(),
        "onDemand": gateway.map_or(demanded, |gateway| gateway::is_on_demand(gateway)),
        "trafficType": gateway.map(|gateway| gateway::traffic_type(view, gateway)),
        "ready": view.is_ready(name),
        "pods": pods,
        "conditions": index.conditions(&key),
        "services": of(services),
        "workloads": of(workloads),
    })
}

fn is_workload(key: &ObjectKey) -> bool {
    use istio_compat::kind::Kind;
    matches!(key.kind, Kind::Pod | Kind::WorkloadEntry)
}

fn is_demanded(binding: &Binding) -> bool {
    match binding.cause {
        Cause::Demand(_) => true,
        Cause::Label(_) => false,
    }
}

fn object(index: &Index, key: &ObjectKey, binding: &Binding) -> Value {
    let reasons: Vec<Value> = match &binding.cause {
        Cause::Label(source) => {
            let said = "says istio.io/use-waypoint".to_owned();
            vec![reason(index, source, said, |object| object.origin.line)]
        }
        Cause::Demand(reasons) => reasons
            .iter()
            .map(|one| {
                reason(index, &one.object, one.sentence(), |object| {
                    one.line(object)
                })
            })
            .collect(),
    };
    json!({
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "refused": binding.refusal.map(|refusal| refusal.sentence()),
        "reasons": reasons,
    })
}

fn reason(
    index: &Index,
    key: &ObjectKey,
    sentence: String,
    line: impl Fn(&Object) -> u32,
) -> Value {
    let object = index.object(key);
    json!({
        "object": key.to_string(),
        "reason": sentence,
        "file": object.map(|object| object.origin.file.clone()),
        "line": object.map(line),
    })
}
