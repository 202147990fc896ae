//! Workloads and services as they travel over xDS; here the workload itself.

mod address;
mod gateway_address;
mod load_balancing;
mod network_address;
mod port;
mod repeated;
mod service;

use mesh::address::NamespacedHostname as ServiceKey;
use mesh::authorization::PolicyKey;
use mesh::identity::{DEFAULT_TRUST_DOMAIN, Identity};
use mesh::workload as model;

use self::repeated::text;
use crate::error::{self, ConversionError, known};
pub use crate::generated::istio::workload::{
    Address, AppProtocol, ApplicationTunnel, Extension, GatewayAddress, IpFamilies, LoadBalancing,
    Locality, NamespacedHostname, NetworkAddress, NetworkMode, Port, PortList, Service,
    TunnelProtocol, WeightedWaypoint, Workload, WorkloadStatus, WorkloadType,
    address::Type as AddressType, application_tunnel::Protocol as ApplicationProtocol,
};
use crate::ip;

/// Resource type of [`Address`].
pub const ADDRESS_TYPE_URL: &str = "type.googleapis.com/istio.workload.Address";

const DEFAULT_SERVICE_ACCOUNT: &str = "default";
const DEFAULT_CLUSTER: &str = "Kubernetes";

// === Workload ===

impl TryFrom<Workload> for model::Workload {
    type Error = ConversionError;

    fn try_from(wire: Workload) -> Result<Self, Self::Error> {
        if wire.uid.is_empty() {
            return Err(ConversionError::Missing("uid"));
        }
        let tunnel_protocol = match known("tunnel_protocol", wire.tunnel_protocol)? {
            TunnelProtocol::None => model::TunnelProtocol::None,
            TunnelProtocol::Hbone => model::TunnelProtocol::Hbone,
            TunnelProtocol::LegacyIstioMtls => return Err(ConversionError::LegacyTunnel),
        };
        let template = model::Template {
            namespace: text(wire.namespace),
            service_account: text(or_default(wire.service_account, DEFAULT_SERVICE_ACCOUNT)),
            trust_domain: text(or_default(wire.trust_domain, DEFAULT_TRUST_DOMAIN)),
            cluster_id: text(or_default(wire.cluster_id, DEFAULT_CLUSTER)),
            network: text(wire.network),
            hostname: (!wire.hostname.is_empty()).then(|| wire.hostname.into()),
            tunnel_protocol,
            native_tunnel: wire.native_tunnel,
            network_mode: match known("network_mode", wire.network_mode)? {
                NetworkMode::Standard => model::NetworkMode::Standard,
                NetworkMode::HostNetwork => model::NetworkMode::HostNetwork,
            },
            network_gateway: wire.network_gateway.map(TryInto::try_into).transpose()?,
            waypoint: wire.waypoint.map(TryInto::try_into).transpose()?,
            application_tunnel: wire.application_tunnel.map(TryInto::try_into).transpose()?,
            canonical_name: text(wire.canonical_name),
            canonical_revision: text(wire.canonical_revision),
            workload_name: text(wire.workload_name),
            // Nothing is decided by it.
            workload_type: WorkloadType::try_from(wire.workload_type)
                .unwrap_or_default()
                .into(),
            capacity: wire.capacity.unwrap_or(1),
            authorization_policies: policy_keys(
                "authorization_policies",
                wire.authorization_policies,
            )?,
            request_policies: policy_keys("request_policies", wire.request_policies)?,
            request_authentications: policy_keys(
                "request_authentications",
                wire.request_authentications,
            )?,
            admitted_waypoints: wire
                .admitted_waypoints
                .into_iter()
                .map(identity)
                .collect::<Result<_, _>>()?,
            services: wire
                .services
                .into_iter()
                .map(membership)
                .collect::<Result<_, _>>()?,
        };
        let template = repeated::template(template);
        let mut workload = Self::of_template(&wire.uid, &wire.name, template);
        workload.node = text(wire.node);
        workload.addresses = wire
            .addresses
            .iter()
            .map(|bytes| ip::decode("addresses", bytes))
            .collect::<Result<_, _>>()?;
        workload.locality = repeated::locality(wire.locality.unwrap_or_default().into());
        workload.status = match known("status", wire.status)? {
            WorkloadStatus::Healthy => model::WorkloadStatus::Healthy,
            WorkloadStatus::Unhealthy => model::WorkloadStatus::Unhealthy,
        };
        Ok(workload)
    }
}

fn or_default(text: String, default: &str) -> String {
    if text.is_empty() {
        default.to_owned()
    } else {
        text
    }
}

fn policy_keys(field: &'static str, keys: Vec<String>) -> Result<Vec<PolicyKey>, ConversionError> {
    let parse =
        |value: String| PolicyKey::parse(&value).ok_or(ConversionError::Key { field, value });
    keys.into_iter().map(parse).collect()
}

fn identity(text: String) -> Result<Identity, ConversionError> {
    text.parse().map_err(|_| ConversionError::Key {
        field: "admitted_waypoints",
        value: text,
    })
}

fn membership(
    (key, ports): (String, PortList),
) -> Result<(ServiceKey, Vec<mesh::service::Port>), ConversionError> {
    let service = ServiceKey::parse(&key).ok_or(ConversionError::Key {
        field: "services",
        value: key,
    })?;
    let service = ServiceKey {
        namespace: text(service.namespace),
        hostname: text(service.hostname),
    };
    let ports: Result<_, _> = ports.ports.into_iter().map(TryInto::try_into).collect();
    Ok((service, ports?))
}

impl From<&model::Workload> for Workload {
    fn from(workload: &model::Workload) -> Self {
        let tunnel_protocol = match workload.tunnel_protocol {
            model::TunnelProtocol::None => TunnelProtocol::None,
            model::TunnelProtocol::Hbone => TunnelProtocol::Hbone,
        };
        let network_mode = match workload.network_mode {
            model::NetworkMode::Standard => NetworkMode::Standard,
            model::NetworkMode::HostNetwork => NetworkMode::HostNetwork,
        };
        let status = match workload.status {
            model::WorkloadStatus::Healthy => WorkloadStatus::Healthy,
            model::WorkloadStatus::Unhealthy => WorkloadStatus::Unhealthy,
        };
        let trust_domain = match &*workload.trust_domain {
            DEFAULT_TRUST_DOMAIN => "",
            other => other,
        };
        Self {
            uid: workload.uid.0.as_ref().to_owned(),
            name: workload.name().to_owned(),
            namespace: workload.namespace.as_ref().to_owned(),
            addresses: workload.addresses.iter().copied().map(ip::encode).collect(),
            hostname: workload.hostname.as_deref().unwrap_or_default().to_owned(),
            network: workload.network.as_ref().to_owned(),
            tunnel_protocol: tunnel_protocol.into(),
            trust_domain: trust_domain.to_owned(),
            service_account: workload.service_account.as_ref().to_owned(),
            waypoint: workload.waypoint.as_ref().map(Into::into),
            network_gateway: workload.network_gateway.as_ref().map(Into::into),
            node: workload.node.as_ref().to_owned(),
            canonical_name: workload.canonical_name.as_ref().to_owned(),
            canonical_revision: workload.canonical_revision.as_ref().to_owned(),
            workload_type: WorkloadType::from(workload.workload_type).into(),
            workload_name: workload.workload_name.as_ref().to_owned(),
            native_tunnel: workload.native_tunnel,
            application_tunnel: workload.application_tunnel.as_ref().map(Into::into),
            services: workload
                .services
                .iter()
                .map(|(key, ports)| {
                    let ports = ports.iter().map(Into::into).collect();
                    (key.to_string(), PortList { ports })
                })
                .collect(),
            authorization_policies: workload
                .authorization_policies
                .iter()
                .map(ToString::to_string)
                .collect(),
            request_policies: workload
                .request_policies
                .iter()
                .map(ToString::to_string)
                .collect(),
            request_authentications: workload
                .request_authentications
                .iter()
                .map(ToString::to_string)
                .collect(),
            admitted_waypoints: workload
                .admitted_waypoints
                .iter()
                .map(ToString::to_string)
                .collect(),
            status: status.into(),
            cluster_id: workload.cluster_id.as_ref().to_owned(),
            locality: (*workload.locality != model::Locality::default())
                .then(|| (&*workload.locality).into()),
            network_mode: network_mode.into(),
            extensions: Vec::new(),
            capacity: (workload.capacity != 1).then_some(workload.capacity),
        }
    }
}

// === WorkloadType ===

impl From<WorkloadType> for model::WorkloadType {
    fn from(wire: WorkloadType) -> Self {
        match wire {
            WorkloadType::Deployment => Self::Deployment,
            WorkloadType::Cronjob => Self::CronJob,
            WorkloadType::Pod => Self::Pod,
            WorkloadType::Job => Self::Job,
        }
    }
}

impl From<model::WorkloadType> for WorkloadType {
    fn from(workload_type: model::WorkloadType) -> Self {
        match workload_type {
            model::WorkloadType::Deployment => Self::Deployment,
            model::WorkloadType::CronJob => Self::Cronjob,
            model::WorkloadType::Pod => Self::Pod,
            model::WorkloadType::Job => Self::Job,
        }
    }
}

// === Locality ===

impl From<Locality> for model::Locality {
    fn from(wire: Locality) -> Self {
        Self {
            region: wire.region.into(),
            zone: wire.zone.into(),
            subzone: wire.subzone.into(),
        }
    }
}

impl From<&model::Locality> for Locality {
    fn from(locality: &model::Locality) -> Self {
        Self {
            region: locality.region.as_ref().to_owned(),
            zone: locality.zone.as_ref().to_owned(),
            subzone: locality.subzone.as_ref().to_owned(),
        }
    }
}

// === ApplicationTunnel ===

impl TryFrom<ApplicationTunnel> for model::ApplicationTunnel {
    type Error = ConversionError;

    fn try_from(wire: ApplicationTunnel) -> Result<Self, Self::Error> {
        Ok(Self {
            protocol: match known("application_tunnel.protocol", wire.protocol)? {
                ApplicationProtocol::None => model::ApplicationProtocol::None,
                ApplicationProtocol::Proxy => model::ApplicationProtocol::Proxy,
            },
            port: Some(error::port("application_tunnel.port", wire.port)?)
                .filter(|port| *port != 0),
        })
    }
}

impl From<&model::ApplicationTunnel> for ApplicationTunnel {
    fn from(tunnel: &model::ApplicationTunnel) -> Self {
        let protocol = match tunnel.protocol {
            model::ApplicationProtocol::None => ApplicationProtocol::None,
            model::ApplicationProtocol::Proxy => ApplicationProtocol::Proxy,
        };
        Self {
            protocol: protocol.into(),
            port: tunnel.port.unwrap_or_default().into(),
        }
    }
}

#[cfg(test)]
mod tests;
