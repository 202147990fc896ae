//! A Kubernetes Service: one name and address for the pods a selector chooses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::kinds::container::Protocol;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::selector::Labels;
use crate::kinds::{ConditionsStatus, IntOrString, unset};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
    #[serde(skip_serializing_if = "unset")]
    pub status: ConditionsStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type", skip_serializing_if = "unset")]
    pub type_: ServiceType,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    pub selector: Labels,
    /// An address, `None` for a headless service, or empty where none is assigned yet.
    #[serde(rename = "clusterIP", skip_serializing_if = "String::is_empty")]
    pub cluster_ip: String,
    #[serde(rename = "clusterIPs", skip_serializing_if = "Vec::is_empty")]
    pub cluster_ips: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ip_families: Vec<IpFamily>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_family_policy: Option<IpFamilyPolicy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ServicePort>,
    /// Kept as text: what is not known means no preference, as Kubernetes has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub traffic_distribution: String,
    #[serde(skip_serializing_if = "unset")]
    pub internal_traffic_policy: InternalTrafficPolicy,
    #[serde(skip_serializing_if = "unset")]
    pub publish_not_ready_addresses: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub external_name: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IpFamily {
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "IPv6")]
    Ipv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpFamilyPolicy {
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InternalTrafficPolicy {
    #[default]
    Cluster,
    Local,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub port: u16,
    /// The same as `port` where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<IntOrString>,
    #[serde(skip_serializing_if = "unset")]
    pub protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

// === impl Service ===

impl Service {
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip == "None"
    }

    /// The assigned addresses; none when headless or not assigned yet.
    pub fn cluster_ips(&self) -> Vec<IpAddr> {
        let mut ips: Vec<IpAddr> = Vec::new();
        for text in std::iter::once(&self.spec.cluster_ip).chain(&self.spec.cluster_ips) {
            if let Ok(ip) = text.parse()
                && !ips.contains(&ip)
            {
                ips.push(ip);
            }
        }
        ips
    }
}
