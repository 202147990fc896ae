//! `/config_dump`: what the tunnel holds, under the keys that istioctl and others read.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::time::SystemTime;

use identity::manager::CertificateManager;
use mesh::address::{GatewayAddress, GatewayDestination};
use mesh::authorization::{Authorization, Match, StringMatch};
use mesh::balancing::Ejected;
use mesh::service::{Port, Service, WeightedWaypoint};
use mesh::snapshot::ServiceEntry;
use mesh::workload::Workload;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::Config;
use crate::proxy::Shared;
use crate::proxy::connections::PodConnections;
use crate::sync::Freshness;

/// Everything a dump is made of.
#[derive(Clone)]
pub struct Dumped {
    pub config: Arc<Config>,
    pub proxy: Arc<Shared>,
    /// None where there is no CA.
    pub certificates: Option<CertificateManager>,
    /// None where no control plane is asked.
    pub freshness: Option<Freshness>,
}

/// A list whose items are made as they are written.
struct Each<F>(F);

// === impl Dumped ===

impl Dumped {
    /// Writes the dump as JSON, in which each resource is made when it is written: a large mesh's
    /// dump is many times what the mesh takes in memory.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        let mut to = BufWriter::new(to);
        let mut serializer = serde_json::Serializer::pretty(&mut to);
        self.serialize(&mut serializer)?;
        to.flush()
    }

    fn stale_since(&self) -> Option<String> {
        let since = self.freshness.as_ref().and_then(Freshness::stale_since)?;
        Some(humantime::format_rfc3339_seconds(since).to_string())
    }

    /// Ours: endpoints that are left alone because they could not be connected to.
    fn ejections(&self) -> Vec<Value> {
        let ejections = self.proxy.ejections.load();
        let ejected = ejections.ejected(Instant::now().into_std());
        let mut ejected: Vec<_> = ejected.collect();
        ejected.sort_by_key(|one| (one.destination.service.clone(), one.endpoint.clone()));
        let one = |one: &Ejected<'_>| {
            json!({
                "service": one.destination.service.to_string(),
                "port": one.destination.port,
                "workloadUid": one.endpoint,
                "failures": one.failures,
                "remaining": format!("{:.1}s", one.remaining.as_secs_f64()),
            })
        };
        ejected.iter().map(one).collect()
    }

    fn workload_state(&self) -> BTreeMap<String, Value> {
        let mut connections = self.proxy.connections.by_pod();
        let snapshot = self.proxy.state.snapshot();
        let mut state = |state: &str, uid: &Arc<str>, info: Value| {
            let connections: PodConnections = connections.remove(uid).unwrap_or_default();
            let state = json!({
                "state": state,
                "info": info,
                "connections": connections,
            });
            (uid.to_string(), state)
        };
        let mut states = BTreeMap::new();
        for (uid, info) in &*self.proxy.pods.pending() {
            states.extend([state("Pending", uid, to_value(info))]);
        }
        for pod in self.proxy.pods.all() {
            let mut info = to_value(&pod.info);
            if let Some(identity) = pod.known_identity(&snapshot, &self.proxy.config) {
                info["trustDomain"] = (*identity.trust_domain).into();
            }
            states.extend([state("Up", &pod.uid, info)]);
        }
        states
    }
}

impl Serialize for Dumped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let snapshot = self.proxy.state.snapshot();
        let mut workloads: Vec<_> = snapshot.workloads().collect();
        workloads.sort_by(|one, other| one.uid.cmp(&other.uid));
        let mut services: Vec<_> = snapshot.services().collect();
        services.sort_by_key(|entry| entry.service.key());
        let mut policies: Vec<_> = snapshot.policies().collect();
        policies.sort_by_key(|policy| policy.key());
        let certificates = self.certificates.as_ref().map(CertificateManager::dump);

        let mut dump = serializer.serialize_map(None)?;
        let workloads = Each(|| workloads.iter().map(|one| workload(one)));
        dump.serialize_entry("workloads", &workloads)?;
        let services = Each(|| services.iter().map(|one| service(one)));
        dump.serialize_entry("services", &services)?;
        dump.serialize_entry("ejections", &self.ejections())?;
        let policies = Each(|| policies.iter().map(|one| policy(one)));
        dump.serialize_entry("policies", &policies)?;
        // Memberships wait in the snapshot itself until their service arrives.
        dump.serialize_entry("stagedServices", &json!({}))?;
        dump.serialize_entry("staticConfig", &Value::Null)?;
        let version = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "component": "ztunnel",
        });
        dump.serialize_entry("version", &version)?;
        dump.serialize_entry("config", &self.config)?;
        dump.serialize_entry("certificates", &certificates.unwrap_or_default())?;
        dump.serialize_entry("workloadState", &self.workload_state())?;
        // Ours: what the clock here says, to be compared with others.
        let time = humantime::format_rfc3339_seconds(SystemTime::now());
        dump.serialize_entry("time", &time.to_string())?;
        // Ours: since when the control plane has not been heard of, if it hasn't.
        dump.serialize_entry("staleSince", &self.stale_since())?;
        dump.end()
    }
}

// === impl Each ===

impl<F, I> Serialize for Each<F>
where
    F: Fn() -> I,
    I: Iterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn workload(workload: &Workload) -> Value {
    let mut value = to_value(workload);
    if let Value::Object(fields) = &mut value {
        fields.insert("waypoint".to_owned(), gateway(workload.waypoint.as_ref()));
        let kind = format!("{:?}", workload.workload_type).to_lowercase();
        fields.insert("workloadType".to_owned(), kind.into());
        let network_gateway = gateway(workload.network_gateway.as_ref());
        fields.insert("networkGateway".to_owned(), network_gateway);
        let services = workload.services.iter().map(|(key, ports)| {
            let ports = port_map(ports);
            (key.to_string(), ports)
        });
        fields.insert(
            "services".to_owned(),
            to_value(&services.collect::<BTreeMap<_, _>>()),
        );
        // Where there is nothing to say, Istio says nothing.
        fields.retain(|_, value| !value.is_null() && value != "" && *value != json!([]));
    }
    value
}

fn service(entry: &ServiceEntry) -> Value {
    let service: &Service = &entry.service;
    let endpoints: BTreeMap<String, Value> = entry
        .endpoints
        .iter()
        .map(|endpoint| {
            let uid = endpoint.workload.uid.to_string();
            let own = endpoint.workload.services.of(service);
            let value = json!({
                "workloadUid": uid,
                "service": service.key().to_string(),
                "port": port_map(own.unwrap_or_default()),
                "status": endpoint.workload.status,
            });
            (uid, value)
        })
        .collect();
    let strings = |items: Vec<String>| items;
    let mut value = json!({
        "name": service.name,
        "namespace": service.namespace,
        "hostname": service.hostname,
        "vips": strings(service.addresses.iter().map(ToString::to_string).collect()),
        "cidrVips": strings(
            service
                .cidr_vips
                .iter()
                .map(|range| format!("{}/{}", range.network, range.cidr))
                .collect()
        ),
        "ports": port_map(&service.ports),
        "endpoints": endpoints,
        "members": entry.members,
        "subjectAltNames": service.subject_alt_names,
        "waypoint": gateway(service.waypoint.as_ref()),
        "weightedWaypoints": weighted(&service.weighted_waypoints),
        "loadBalancer": service.load_balancing,
        "ipFamilies": service.ip_families,
        "canonical": service.canonical,
        "visibility": service.visibility,
    });
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, value| {
            let is_rare = ["cidrVips", "weightedWaypoints"].contains(&name.as_str());
            !(value.is_null() || (is_rare && *value == json!([])))
        });
    }
    value
}

/// Rules are three nested lists: any of, all of, any of.
fn policy(policy: &Authorization) -> Value {
    let rules: Vec<Vec<Vec<Value>>> = policy
        .rules
        .iter()
        .map(|rule| {
            let clauses = rule.clauses.iter();
            clauses
                .map(|clause| clause.matches.iter().map(policy_match).collect())
                .collect()
        })
        .collect();
    json!({
        "name": policy.name,
        "namespace": policy.namespace,
        "scope": policy.scope,
        "action": policy.action,
        "dryRun": policy.dry_run,
        "rules": rules,
    })
}

/// Texts are objects of one key each. One that is a mere word makes istioctl give up the whole dump.
fn policy_match(from: &Match) -> Value {
    let mut value = to_value(from);
    if let Value::Object(fields) = &mut value {
        for (name, texts) in [
            ("namespaces", &from.namespaces),
            ("notNamespaces", &from.not_namespaces),
            ("principals", &from.principals),
            ("notPrincipals", &from.not_principals),
        ] {
            if !texts.is_empty() {
                let texts = texts.iter().map(string_match).collect();
                fields.insert(name.to_owned(), Value::Array(texts));
            }
        }
    }
    value
}

fn string_match(from: &StringMatch) -> Value {
    match from {
        StringMatch::Exact(text) => json!({ "Exact": text }),
        StringMatch::Prefix(text) => json!({ "Prefix": text }),
        StringMatch::Suffix(text) => json!({ "Suffix": text }),
        StringMatch::Presence => json!({ "Presence": [] }),
    }
}

/// Service port to target port.
fn port_map(ports: &[Port]) -> BTreeMap<String, u16> {
    ports
        .iter()
        .map(|port| (port.service_port.to_string(), port.target_port))
        .collect()
}

/// `network/address` or `namespace/hostname`.
fn gateway(gateway: Option<&GatewayAddress>) -> Value {
    let Some(gateway) = gateway else {
        return Value::Null;
    };
    let destination = match &gateway.destination {
        GatewayDestination::Address(address) => address.to_string(),
        GatewayDestination::Hostname(hostname) => hostname.to_string(),
    };
    json!({
        "destination": destination,
        "hboneMtlsPort": gateway.hbone_mtls_port,
    })
}

fn weighted(waypoints: &[WeightedWaypoint]) -> Vec<Value> {
    let one = |one: &WeightedWaypoint| {
        json!({
            "destination": gateway(Some(&one.destination)),
            "weight": one.weight,
        })
    };
    waypoints.iter().map(one).collect()
}

fn to_value(value: &impl Serialize) -> Value {
    // The mesh's types have text keys only and always serialise.
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests;
