//! Workloads, services and policies from a YAML text (`LOCAL_XDS`, `LOCAL_XDS_PATH`), for demos and tests
//! without a control plane. Keys are those of Istio's text and of our own `/config_dump`, which is such a
//! text; what is not known is a mistake.

mod workload;

mod service;

mod policy;

use std::collections::BTreeMap;

use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress};
use mesh::destination::HBONE_PORT;
use mesh::service::{AppProtocol, Port};
use mesh::snapshot::{Change, Snapshot};
use serde::Deserialize;
use serde::de::IgnoredAny;

use self::policy::LocalPolicy;
use self::service::LocalService;
use self::workload::LocalWorkload;

type Ports = BTreeMap<u16, u16>;

/// What a dump says of the process that made it is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LocalXds {
    workloads: Vec<LocalWorkload>,
    services: Vec<LocalService>,
    policies: Vec<LocalPolicy>,
    #[serde(rename = "ejections")]
    _ejections: IgnoredAny,
    #[serde(rename = "stagedServices")]
    _staged_services: IgnoredAny,
    #[serde(rename = "staticConfig")]
    _static_config: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    #[serde(rename = "config")]
    _config: IgnoredAny,
    #[serde(rename = "certificates")]
    _certificates: IgnoredAny,
    #[serde(rename = "workloadState")]
    _workload_state: IgnoredAny,
    #[serde(rename = "time")]
    _time: IgnoredAny,
    #[serde(rename = "staleSince")]
    _stale_since: IgnoredAny,
}

/// `network/address` or `namespace/hostname`, and where its HBONE listener is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalGateway {
    destination: String,
    hbone_mtls_port: Option<u16>,
}

/// Reads the mesh from YAML.
pub fn snapshot(yaml: &str) -> Result<Snapshot, String> {
    let local: LocalXds = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let mut changes = Vec::new();
    let mut endpoints = Vec::new();
    for policy in local.policies {
        changes.push(Change::Authorization(policy.into()));
    }
    for service in local.services {
        endpoints.extend(service.endpoints());
        changes.push(Change::Service(service.service()?));
    }
    for workload in local.workloads {
        changes.push(Change::Workload(workload.workload()?));
    }
    let mut snapshot = Snapshot::default();
    snapshot.apply(changes);
    for (service, uid) in endpoints {
        let workload = snapshot.workload(&uid);
        if workload.is_none_or(|workload| !workload.services.contains_key(&service)) {
            return Err(format!(
                "service {service} has endpoint {uid}, but no workload of that uid has the service"
            ));
        }
    }
    Ok(snapshot)
}

fn ports(ports: Ports) -> Vec<Port> {
    ports
        .into_iter()
        .map(|(service_port, target_port)| Port {
            service_port,
            target_port,
            app_protocol: AppProtocol::Unknown,
        })
        .collect()
}

fn hostname(text: &str) -> Result<NamespacedHostname, String> {
    NamespacedHostname::parse(text).ok_or_else(|| format!("{text:?} is not namespace/hostname"))
}

fn address(text: &str) -> Option<NetworkAddress> {
    let (network, address) = text.split_once('/')?;
    Some(NetworkAddress::new(network, address.parse().ok()?))
}

// === impl LocalGateway ===

impl LocalGateway {
    fn gateway(self) -> Result<GatewayAddress, String> {
        let destination = match address(&self.destination) {
            Some(address) => GatewayDestination::Address(address),
            None => GatewayDestination::Hostname(hostname(&self.destination)?),
        };
        Ok(GatewayAddress {
            destination,
            hbone_mtls_port: self.hbone_mtls_port.unwrap_or(HBONE_PORT),
        })
    }
}

#[cfg(test)]
mod tests;
