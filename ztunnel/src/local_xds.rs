//! Workloads, services and policies from a YAML text (`LOCAL_XDS`, `LOCAL_XDS_PATH`), for demos and tests
//! without a control plane. Keys are those of `/config_dump`; what is not known is a mistake.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress};
use mesh::authorization::{self, Action, Authorization, PolicyKey, Scope};
use mesh::destination::HBONE_PORT;
use mesh::service::{AppProtocol, Port, Service};
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::{Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus};
use serde::Deserialize;

type Ports = BTreeMap<u16, u16>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LocalXds {
    workloads: Vec<LocalWorkload>,
    services: Vec<LocalService>,
    policies: Vec<LocalPolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalWorkload {
    uid: String,
    name: Arc<str>,
    namespace: Arc<str>,
    service_account: Option<Arc<str>>,
    trust_domain: Option<Arc<str>>,
    cluster_id: Option<Arc<str>>,
    #[serde(default)]
    network: Arc<str>,
    #[serde(default)]
    node: Arc<str>,
    #[serde(default)]
    workload_ips: Vec<IpAddr>,
    hostname: Option<Arc<str>>,
    #[serde(default)]
    protocol: LocalProtocol,
    #[serde(default)]
    native_tunnel: bool,
    #[serde(default)]
    network_mode: LocalNetworkMode,
    waypoint: Option<LocalGateway>,
    network_gateway: Option<LocalGateway>,
    workload_name: Option<Arc<str>>,
    #[serde(default)]
    canonical_name: Arc<str>,
    #[serde(default)]
    canonical_revision: Arc<str>,
    #[serde(default)]
    locality: LocalLocality,
    #[serde(default)]
    status: LocalStatus,
    capacity: Option<u32>,
    #[serde(default)]
    authorization_policies: Vec<String>,
    /// `namespace/hostname` to service port to target port.
    #[serde(default)]
    services: BTreeMap<String, Ports>,
}

#[derive(Debug, Default, Deserialize)]
enum LocalProtocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "HBONE")]
    Hbone,
}

#[derive(Debug, Default, Deserialize)]
enum LocalNetworkMode {
    #[default]
    Standard,
    HostNetwork,
}

#[derive(Debug, Default, Deserialize)]
enum LocalStatus {
    #[default]
    Healthy,
    Unhealthy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LocalLocality {
    region: Arc<str>,
    zone: Arc<str>,
    subzone: Arc<str>,
}

/// `network/address` or `namespace/hostname`, and where its HBONE listener is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalGateway {
    destination: String,
    hbone_mtls_port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalService {
    name: Arc<str>,
    namespace: Arc<str>,
    hostname: Arc<str>,
    /// `network/address`.
    #[serde(default)]
    vips: Vec<String>,
    #[serde(default)]
    ports: Ports,
    #[serde(default)]
    subject_alt_names: Vec<Arc<str>>,
    waypoint: Option<LocalGateway>,
    #[serde(default)]
    canonical: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalPolicy {
    name: Arc<str>,
    namespace: Arc<str>,
    scope: LocalScope,
    action: LocalAction,
    #[serde(default)]
    dry_run: bool,
    /// Any of, all of, any of.
    #[serde(default)]
    rules: Vec<Vec<Vec<LocalMatch>>>,
}

#[derive(Debug, Deserialize)]
enum LocalScope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Debug, Deserialize)]
enum LocalAction {
    Allow,
    Deny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct LocalMatch {
    namespaces: Vec<StringMatch>,
    not_namespaces: Vec<StringMatch>,
    principals: Vec<StringMatch>,
    not_principals: Vec<StringMatch>,
    service_accounts: Vec<ServiceAccountMatch>,
    not_service_accounts: Vec<ServiceAccountMatch>,
    source_ips: Vec<IpNet>,
    not_source_ips: Vec<IpNet>,
    destination_ips: Vec<IpNet>,
    not_destination_ips: Vec<IpNet>,
    destination_ports: Vec<u16>,
    not_destination_ports: Vec<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StringMatch {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    Presence,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceAccountMatch {
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Reads the mesh from YAML.
pub fn snapshot(yaml: &str) -> Result<Snapshot, String> {
    let local: LocalXds = serde_saphyr::from_str(yaml).map_err(|error| error.to_string())?;
    let mut changes = Vec::new();
    for policy in local.policies {
        changes.push(Change::Authorization(policy.into()));
    }
    for service in local.services {
        changes.push(Change::Service(service.service()?));
    }
    for workload in local.workloads {
        changes.push(Change::Workload(workload.workload()?));
    }
    let mut snapshot = Snapshot::default();
    snapshot.apply(changes);
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

// === impl LocalWorkload ===

impl LocalWorkload {
    fn workload(self) -> Result<Workload, String> {
        let mut workload = Workload::new(&self.uid, &self.name, &self.namespace);
        let set = |field: &mut Arc<str>, value: Option<Arc<str>>| {
            if let Some(value) = value {
                *field = value;
            }
        };
        set(&mut workload.service_account, self.service_account);
        set(&mut workload.trust_domain, self.trust_domain);
        set(&mut workload.cluster_id, self.cluster_id);
        let workload_name = self.workload_name.or_else(|| Some(self.name.clone()));
        set(&mut workload.workload_name, workload_name);
        workload.network = self.network;
        workload.node = self.node;
        workload.addresses = self.workload_ips.into();
        workload.hostname = self.hostname;
        workload.tunnel_protocol = match self.protocol {
            LocalProtocol::Tcp => TunnelProtocol::None,
            LocalProtocol::Hbone => TunnelProtocol::Hbone,
        };
        workload.native_tunnel = self.native_tunnel;
        workload.network_mode = match self.network_mode {
            LocalNetworkMode::Standard => NetworkMode::Standard,
            LocalNetworkMode::HostNetwork => NetworkMode::HostNetwork,
        };
        workload.waypoint = self.waypoint.map(LocalGateway::gateway).transpose()?;
        let network_gateway = self.network_gateway.map(LocalGateway::gateway);
        workload.network_gateway = network_gateway.transpose()?;
        workload.canonical_name = self.canonical_name;
        workload.canonical_revision = self.canonical_revision;
        let locality = Locality {
            region: self.locality.region,
            zone: self.locality.zone,
            subzone: self.locality.subzone,
        };
        workload.locality = locality.into();
        workload.status = match self.status {
            LocalStatus::Healthy => WorkloadStatus::Healthy,
            LocalStatus::Unhealthy => WorkloadStatus::Unhealthy,
        };
        workload.capacity = self.capacity.unwrap_or(workload.capacity);
        for text in &self.authorization_policies {
            let key = PolicyKey::parse(text);
            let key = key.ok_or_else(|| format!("{text:?} is not namespace/name"))?;
            workload.authorization_policies.push(key);
        }
        for (key, members) in self.services {
            workload.services.insert(hostname(&key)?, ports(members));
        }
        Ok(workload)
    }
}

// === impl LocalService ===

impl LocalService {
    fn service(self) -> Result<Service, String> {
        let mut service = Service::new(&self.name, &self.namespace, &self.hostname);
        for vip in &self.vips {
            let parsed = address(vip);
            let parsed = parsed.ok_or_else(|| format!("{vip:?} is not network/address"))?;
            service.addresses.push(parsed);
        }
        service.ports = ports(self.ports);
        service.subject_alt_names = self.subject_alt_names;
        service.waypoint = self.waypoint.map(LocalGateway::gateway).transpose()?;
        service.canonical = self.canonical;
        Ok(service)
    }
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

// === impl LocalPolicy, LocalMatch ===

impl From<LocalPolicy> for Authorization {
    fn from(policy: LocalPolicy) -> Self {
        let clause = |matches: Vec<LocalMatch>| authorization::Clause {
            matches: matches.into_iter().map(Into::into).collect(),
        };
        let rule = |clauses: Vec<Vec<LocalMatch>>| authorization::Rule {
            clauses: clauses.into_iter().map(clause).collect(),
        };
        Self {
            name: policy.name,
            namespace: policy.namespace,
            scope: match policy.scope {
                LocalScope::Global => Scope::Global,
                LocalScope::Namespace => Scope::Namespace,
                LocalScope::WorkloadSelector => Scope::WorkloadSelector,
            },
            action: match policy.action {
                LocalAction::Allow => Action::Allow,
                LocalAction::Deny => Action::Deny,
            },
            dry_run: policy.dry_run,
            targets: Vec::new(),
            rules: policy.rules.into_iter().map(rule).collect(),
        }
    }
}

impl From<LocalMatch> for authorization::Match {
    fn from(from: LocalMatch) -> Self {
        let texts = |texts: Vec<StringMatch>| texts.into_iter().map(Into::into).collect();
        let accounts = |accounts: Vec<ServiceAccountMatch>| {
            accounts
                .into_iter()
                .map(|account| authorization::ServiceAccountMatch {
                    namespace: account.namespace,
                    service_account: account.service_account,
                })
                .collect()
        };
        Self {
            namespaces: texts(from.namespaces),
            not_namespaces: texts(from.not_namespaces),
            principals: texts(from.principals),
            not_principals: texts(from.not_principals),
            service_accounts: accounts(from.service_accounts),
            not_service_accounts: accounts(from.not_service_accounts),
            source_ips: from.source_ips,
            not_source_ips: from.not_source_ips,
            destination_ips: from.destination_ips,
            not_destination_ips: from.not_destination_ips,
            destination_ports: from.destination_ports,
            not_destination_ports: from.not_destination_ports,
            ..Self::default()
        }
    }
}

impl From<StringMatch> for authorization::StringMatch {
    fn from(from: StringMatch) -> Self {
        match from {
            StringMatch::Exact(text) => Self::Exact(text),
            StringMatch::Prefix(text) => Self::Prefix(text),
            StringMatch::Suffix(text) => Self::Suffix(text),
            StringMatch::Presence => Self::Presence,
        }
    }
}

#[cfg(test)]
mod tests;
