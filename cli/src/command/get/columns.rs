//! The columns of each kind's table.

use std::net::IpAddr;

use chrono::Utc;
use istio_compat::kind::Kind;
use istio_compat::kinds::deployment::Deployment;
use istio_compat::kinds::metadata::Condition;
use istio_compat::kinds::node::Node;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::service::Service;
use istio_compat::object::Object;
use istio_compat::waypoint::is_own;
use serde_json::{Map, Value};

use crate::command::status::age;
use crate::table::Table;

/// What marks a pod whose traffic the node's ztunnel carries.
const REDIRECTION: &str = "ambient.istio.io/redirection";
const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";

/// An object, and what the control plane makes of it.
pub(super) struct Row<'a> {
    pub(super) object: &'a Object,
    /// With its status.
    pub(super) json: Value,
    pub(super) conditions: Vec<Condition>,
    pub(super) is_in_force: bool,
}

/// One kind's objects as a table; `wide` adds columns.
pub(super) fn table(kind: Kind, rows: &[Row<'_>], namespaces: bool, wide: bool) -> Table {
    let (narrow, more) = header(kind);
    let mut names = vec!["NAME"];
    if namespaces && kind.is_namespaced() {
        names.insert(0, "NAMESPACE");
    }
    names.extend(narrow);
    if wide {
        names.extend(more);
    }
    // Only where something of the mesh's own is shown: what it made, and not the user.
    let own = rows.iter().any(|row| is_own(row.object.metadata()));
    if own {
        names.push("MADE BY");
    }
    let mut table = Table::new(&names);
    for row in rows {
        let metadata = row.object.metadata();
        let mut shown = vec![metadata.name.clone()];
        if namespaces && kind.is_namespaced() {
            shown.insert(0, metadata.namespace.clone());
        }
        let (narrow, more) = cells(row);
        shown.extend(narrow);
        if wide {
            shown.extend(more);
        }
        if own {
            let maker = if is_own(metadata) { "weft" } else { "" };
            shown.push(maker.to_owned());
        }
        table.row(shown);
    }
    table.sorted()
}

type Columns<T> = (Vec<T>, Vec<T>);

fn header(kind: Kind) -> Columns<&'static str> {
    match kind {
        Kind::Pod => (
            vec!["READY", "STATUS", "RESTARTS", "AGE"],
            vec!["IP", "NODE", "SERVICE ACCOUNT", "CAPTURED"],
        ),
        Kind::Service => (vec!["TYPE", "CLUSTER-IP", "PORT(S)"], vec!["SELECTOR"]),
        Kind::Deployment => (vec!["READY"], vec!["SELECTOR"]),
        Kind::Namespace => (vec!["DATAPLANE MODE"], vec!["LABELS"]),
        Kind::Node => (vec!["ADDRESS"], vec!["REGION", "ZONE"]),
        Kind::ServiceAccount => (vec![], vec![]),
        Kind::ConfigMap => (vec!["DATA"], vec!["FILE"]),
        Kind::AuthorizationPolicy => (vec!["ACTION", "STATUS"], vec!["FILE"]),
        Kind::PeerAuthentication => (vec!["MODE"], vec!["FILE"]),
        Kind::ServiceEntry => (vec!["HOSTS", "LOCATION", "RESOLUTION"], vec!["STATUS"]),
        Kind::WorkloadEntry => (vec!["ADDRESS"], vec!["STATUS"]),
        Kind::RequestAuthentication => (vec!["ISSUERS", "STATUS"], vec!["FILE"]),
        Kind::Gateway => (
            vec!["CLASS", "ADDRESS", "PROGRAMMED"],
            vec!["LISTENERS", "FILE"],
        ),
        Kind::GatewayClass => (vec!["CONTROLLER", "ACCEPTED"], vec!["FILE"]),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => {
            (vec!["PARENTS", "RULES", "STATUS"], vec!["FILE"])
        }
        Kind::ReferenceGrant => (vec!["FROM", "TO"], vec!["FILE"]),
    }
}

fn cells(row: &Row<'_>) -> Columns<String> {
    let Row {
        object,
        json,
        conditions,
        ..
    } = row;
    let spec = &json["spec"];
    let state = || state(conditions, row.is_in_force);
    match object.kind() {
        Kind::Pod => object
            .get::<Pod>()
            .map_or_else(Default::default, |pod| pod_cells(pod)),
        Kind::Service => object
            .get::<Service>()
            .map_or_else(Default::default, |service| service_cells(service)),
        Kind::Deployment => {
            object
                .get::<Deployment>()
                .map_or_else(Default::default, |deployment| {
                    let status = &deployment.status;
                    (
                        vec![format!(
                            "{}/{}",
                            status.ready_replicas,
                            deployment.replicas()
                        )],
                        vec![labels(deployment.spec.selector.match_labels.iter())],
                    )
                })
        }
        Kind::Namespace => {
            let written = &object.metadata().labels;
            (
                vec![written.get(DATAPLANE_MODE).cloned().unwrap_or_default()],
                vec![labels(written.iter())],
            )
        }
        Kind::Node => object.get::<Node>().map_or_else(Default::default, |node| {
            let label = |key| node.metadata.labels.get(key).cloned().unwrap_or_default();
            let addresses: Vec<_> = node
                .status
                .addresses
                .iter()
                .filter(|address| address.type_ == "InternalIP")
                .map(|address| address.address.clone())
                .collect();
            (
                vec![addresses.join(",")],
                vec![
                    label("topology.kubernetes.io/region"),
                    label("topology.kubernetes.io/zone"),
                ],
            )
        }),
        Kind::AuthorizationPolicy => (
            vec![text(&spec["action"], "ALLOW"), state()],
            vec![object.origin.to_string()],
        ),
        Kind::PeerAuthentication => (
            vec![text(&spec["mtls"]["mode"], "UNSET")],
            vec![object.origin.to_string()],
        ),
        Kind::ServiceEntry => (
            vec![
                list(&spec["hosts"]),
                text(&spec["location"], "MESH_EXTERNAL"),
                text(&spec["resolution"], "NONE"),
            ],
            vec![state()],
        ),
        Kind::WorkloadEntry => (vec![text(&spec["address"], "")], vec![state()]),
        Kind::RequestAuthentication => (
            vec![
                each(&spec["jwtRules"], |rule| rule["issuer"].as_str()),
                state(),
            ],
            vec![object.origin.to_string()],
        ),
        Kind::Gateway => (
            vec![
                text(&spec["gatewayClassName"], ""),
                each(&json["status"]["addresses"], |one| one["value"].as_str()),
                holds(conditions, &json["status"]["conditions"], "Programmed"),
            ],
            vec![
                each(&spec["listeners"], |listener| listener["name"].as_str()),
                object.origin.to_string(),
            ],
        ),
        Kind::GatewayClass => (
            vec![
                text(&spec["controllerName"], ""),
                holds(conditions, &json["status"]["conditions"], "Accepted"),
            ],
            vec![object.origin.to_string()],
        ),
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => (
            vec![
                each(&spec["parentRefs"], |parent| parent["name"].as_str()),
                spec["rules"].as_array().map_or(0, Vec::len).to_string(),
                state(),
            ],
            vec![object.origin.to_string()],
        ),
        Kind::ReferenceGrant => (
            vec![
                each(&spec["from"], |from| from["namespace"].as_str()),
                each(&spec["to"], |to| to["kind"].as_str()),
            ],
            vec![object.origin.to_string()],
        ),
        Kind::ServiceAccount => Default::default(),
        Kind::ConfigMap => (
            vec![json["data"].as_object().map_or(0, Map::len).to_string()],
            vec![object.origin.to_string()],
        ),
    }
}

fn pod_cells(pod: &Pod) -> Columns<String> {
    let status = &pod.status;
    let ready = status
        .container_statuses
        .iter()
        .filter(|container| container.ready)
        .count();
    let restarts: u32 = status
        .container_statuses
        .iter()
        .map(|container| container.restart_count)
        .sum();
    let waiting = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .find_map(|container| container.state.waiting.as_ref())
        .map(|waiting| waiting.reason.clone())
        .filter(|reason| !reason.is_empty());
    let phase = status
        .phase
        .map_or_else(|| "Unknown".to_owned(), |phase| format!("{phase:?}"));
    let shown = if pod.metadata.deletion_timestamp.is_some() {
        "Terminating".to_owned()
    } else if !status.reason.is_empty() {
        status.reason.clone()
    } else {
        waiting.unwrap_or(phase)
    };
    let ips: Vec<_> = pod.ips().iter().map(IpAddr::to_string).collect();
    let captured = pod
        .metadata
        .annotations
        .get(REDIRECTION)
        .map_or(
            "no",
            |value| if value == "enabled" { "yes" } else { "pending" },
        );
    (
        vec![
            format!("{ready}/{}", pod.spec.containers.len()),
            shown,
            restarts.to_string(),
            status
                .start_time
                .as_deref()
                .map_or_else(String::new, |since| age(since, Utc::now())),
        ],
        vec![
            ips.join(","),
            pod.spec.node_name.clone(),
            pod.service_account().to_owned(),
            captured.to_owned(),
        ],
    )
}

fn service_cells(service: &Service) -> Columns<String> {
    let addresses: Vec<_> = service
        .cluster_ips()
        .iter()
        .map(IpAddr::to_string)
        .collect();
    let ports: Vec<_> = service
        .spec
        .ports
        .iter()
        .map(|port| {
            format!(
                "{}/{}",
                port.port,
                format!("{:?}", port.protocol).to_uppercase()
            )
        })
        .collect();
    // As it is written: ClusterIP, not the variant's name.
    let service_type = serde_json::to_value(service.spec.type_)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default();
    let shown = if service.is_headless() {
        "None".to_owned()
    } else {
        addresses.join(",")
    };
    (
        vec![service_type, shown, ports.join(",")],
        vec![labels(service.spec.selector.iter())],
    )
}

/// `Accepted`, also where there is nothing to say of what is in force, or the reason of the
/// first condition by which something is amiss.
fn state(conditions: &[Condition], is_in_force: bool) -> String {
    let mut all = conditions.iter();
    let unmet = all.find(|condition| condition.status != "Unknown" && condition.is_amiss());
    match unmet.or(conditions.first()) {
        Some(condition) => condition.reason.clone(),
        None if is_in_force => "Accepted".to_owned(),
        None => String::new(),
    }
}

fn labels<'a>(labels: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The status of a condition: as the control plane has it, else as it is written.
fn holds(conditions: &[Condition], written: &Value, type_: &str) -> String {
    let known = conditions.iter().find(|condition| condition.type_ == type_);
    known.map_or_else(
        || {
            let mut written = written.as_array().into_iter().flatten();
            let condition = written.find(|condition| condition["type"] == type_);
            condition.map_or_else(String::new, |condition| text(&condition["status"], ""))
        },
        |condition| condition.status.clone(),
    )
}

fn list(value: &Value) -> String {
    each(value, Value::as_str)
}

/// One text of each item of a list.
fn each(value: &Value, item: impl Fn(&Value) -> Option<&str>) -> String {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(item)
        .collect::<Vec<_>>()
        .join(",")
}

fn text(value: &Value, default: &str) -> String {
    value.as_str().unwrap_or(default).to_owned()
}
