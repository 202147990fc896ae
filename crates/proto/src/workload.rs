//! Workloads and services as they travel over xDS.

pub use crate::generated::istio::workload::{
    Address, AppProtocol, ApplicationTunnel, Extension, GatewayAddress, IpFamilies, LoadBalancing,
    Locality, NamespacedHostname, NetworkAddress, NetworkMode, Port, PortList, Service,
    TunnelProtocol, WeightedWaypoint, Workload, WorkloadStatus, WorkloadType, address,
    application_tunnel, gateway_address, load_balancing, service,
};

/// Resource type of [`Address`].
pub const ADDRESS_TYPE_URL: &str = "type.googleapis.com/istio.workload.Address";
