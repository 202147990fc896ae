//! Workloads of a local mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh::authorization::PolicyKey;
use mesh::identity::Identity;
use mesh::workload::{
    ApplicationProtocol, ApplicationTunnel, Locality, NetworkMode, TunnelProtocol, Workload,
    WorkloadStatus, WorkloadType,
};
use serde::Deserialize;

use super::{LocalGateway, Ports, hostname, ports};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalWorkload {
    uid: String,
    #[serde(default)]
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
    application_tunnel: Option<LocalApplicationTunnel>,
    waypoint: Option<LocalGateway>,
    network_gateway: Option<LocalGateway>,
    workload_name: Option<Arc<str>>,
    #[serde(default)]
    workload_type: LocalWorkloadType,
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
    #[serde(default)]
    request_policies: Vec<String>,
    #[serde(default)]
    request_authentications: Vec<String>,
    /// SPIFFE identities.
    #[serde(default)]
    admitted_waypoints: Vec<String>,
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

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalApplicationTunnel {
    protocol: LocalApplicationProtocol,
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum LocalApplicationProtocol {
    None,
    Proxy,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LocalWorkloadType {
    Deployment,
    CronJob,
    #[default]
    Pod,
    Job,
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

// === impl LocalWorkload ===

impl LocalWorkload {
    pub(super) fn workload(self) -> Result<Workload, String> {
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
        workload.application_tunnel = self.application_tunnel.map(Into::into);
        workload.waypoint = self.waypoint.map(LocalGateway::gateway).transpose()?;
        let network_gateway = self.network_gateway.map(LocalGateway::gateway);
        workload.network_gateway = network_gateway.transpose()?;
        workload.workload_type = match self.workload_type {
            LocalWorkloadType::Deployment => WorkloadType::Deployment,
            LocalWorkloadType::CronJob => WorkloadType::CronJob,
            LocalWorkloadType::Pod => WorkloadType::Pod,
            LocalWorkloadType::Job => WorkloadType::Job,
        };
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
        workload.authorization_policies = policies(&self.authorization_policies)?;
        workload.request_policies = policies(&self.request_policies)?;
        workload.request_authentications = policies(&self.request_authentications)?;
        for text in &self.admitted_waypoints {
            let identity: Result<Identity, _> = text.parse();
            let identity = identity.map_err(|error| format!("{text:?}: {error}"))?;
            workload.admitted_waypoints.push(identity);
        }
        for (key, members) in self.services {
            workload.services.insert(hostname(&key)?, ports(members));
        }
        Ok(workload)
    }
}

fn policies(texts: &[String]) -> Result<Vec<PolicyKey>, String> {
    let key = |text: &String| {
        PolicyKey::parse(text).ok_or_else(|| format!("{text:?} is not namespace/name"))
    };
    texts.iter().map(key).collect()
}

// === impl LocalApplicationTunnel ===

impl From<LocalApplicationTunnel> for ApplicationTunnel {
    fn from(tunnel: LocalApplicationTunnel) -> Self {
        Self {
            protocol: match tunnel.protocol {
                LocalApplicationProtocol::None => ApplicationProtocol::None,
                LocalApplicationProtocol::Proxy => ApplicationProtocol::Proxy,
            },
            port: tunnel.port,
        }
    }
}
