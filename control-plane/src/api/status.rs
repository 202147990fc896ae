//! The status: who is connected and in sync, and what is wrong with which file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use istio_compat::diagnostic::{Diagnostic, Severity};
use istio_compat::kinds::metadata::Condition;
use serde_json::{Value, json};
use xds::server::{Peer, TypeStatus};

use crate::controller::State;

pub(super) fn of(state: &State, peers: &[Peer]) -> Value {
    json!({
        "apiVersion": "weft.dev/v1",
        "kind": "ControlPlaneStatus",
        "version": env!("CARGO_PKG_VERSION"),
        "time": time(SystemTime::now()),
        "folders": state.report.places,
        "problems": problems(state),
        "proxies": peers.iter().map(proxy).collect::<Vec<_>>(),
        "resources": state.index.counts(),
        "objects": objects(state),
    })
}

fn problems(state: &State) -> Vec<String> {
    let places = state.report.places.iter().filter_map(|place| {
        let trouble = place.trouble.as_ref()?;
        Some(format!(
            "{} {} (since {})",
            place.name, trouble.message, trouble.since
        ))
    });
    places.chain(state.problems.iter().cloned()).collect()
}

fn proxy(peer: &Peer) -> Value {
    let types: BTreeMap<&str, Value> = peer
        .types
        .iter()
        .map(|(kind, status)| (kind.url(), type_status(status)))
        .collect();
    json!({
        "id": peer.node.id,
        "type": peer.node.proxy_type,
        "node": peer.node.node_name,
        "connectedSince": time(peer.connected_since),
        "types": types,
    })
}

fn type_status(status: &TypeStatus) -> Value {
    let nacks: Vec<Value> = status
        .nacks
        .iter()
        .map(|nack| json!({ "time": time(nack.time), "message": nack.message }))
        .collect();
    json!({
        "sent": status.sent,
        "acked": status.acked,
        "resources": status.resources,
        "nacks": nacks,
    })
}

/// Objects in force with their conditions, then what files say that is not in force.
fn objects(state: &State) -> Vec<Value> {
    let in_force = state.index.objects().map(|(key, object)| {
        let conditions = state.index.conditions(key);
        // What keeps a Gateway from being accepted keeps it from being programmed: said once.
        let mut said = BTreeSet::new();
        let warnings: Vec<Value> = conditions
            .iter()
            .filter(|condition| condition.is_amiss() && said.insert(&condition.message))
            .map(|condition| json!({ "message": unmet(condition) }))
            .collect();
        let mut entry = json!({
            "file": object.origin.file,
            "line": object.origin.line,
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
        });
        if let Some(generation) = state.index.generation(key) {
            entry["generation"] = json!(generation);
        }
        if !conditions.is_empty() {
            entry["conditions"] = json!(conditions);
        }
        if let Some(gateway) = state.index.gateway(key) {
            entry["gateway"] = json!(gateway);
        }
        let parents = state.index.parents(key);
        if !parents.is_empty() {
            entry["parents"] = json!(parents);
        }
        if !warnings.is_empty() {
            entry["warnings"] = json!(warnings);
        }
        entry
    });
    in_force
        .chain(state.report.diagnostics.iter().map(diagnostic))
        .collect()
}

fn unmet(condition: &Condition) -> String {
    format!("{}: {}", condition.reason, condition.message)
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    let (kind, object) = diagnostic.object.split_once(' ').unwrap_or_default();
    let (namespace, name) = object.split_once('/').unwrap_or(("", object));
    let severity = match diagnostic.severity {
        Severity::Error => "errors",
        Severity::Warning => "warnings",
    };
    let message = match diagnostic.field.as_str() {
        "" => diagnostic.message.clone(),
        field => format!("{field}: {}", diagnostic.message),
    };
    json!({
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "kind": kind,
        "namespace": namespace,
        "name": name,
        severity: [{ "message": message }],
    })
}

fn time(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}
