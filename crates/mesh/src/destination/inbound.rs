//! Whether an HBONE request may come in, and to which port of the pod.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{OWN_PORTS, is_gateway};
use crate::address::{GatewayAddress, NetworkAddress};
use crate::snapshot::{ServiceEntry, Snapshot};
use crate::workload::Workload;

/// The authority of an HBONE CONNECT request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    Address(SocketAddr),
    Hostname(Arc<str>, u16),
}

/// Not `address:port` or `hostname:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a hostname with a port")]
pub struct MalformedAuthority;

/// An accepted inbound request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Where the application listens: the pod's address and the target port.
    pub application: SocketAddr,
}

/// Why an inbound HBONE request is refused before policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboundRefusal {
    /// Answered 400.
    #[error("the authority {0} is missing a port or is not one of this workload's addresses")]
    WrongAddress(String),
    /// Answered 503.
    #[error("the host {0} is unknown or has no such port here")]
    UnknownHost(String),
    /// Answered 503.
    #[error("port {0} is one of the tunnel's own")]
    OwnPort(u16),
}

// === impl Authority ===

impl Serialize for Authority {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl From<SocketAddr> for Authority {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Authority {
    type Err = MalformedAuthority;

    /// IPv6 stands in brackets; IPv4 mapped into IPv6 is read as IPv4.
    fn from_str(text: &str) -> Result<Self, MalformedAuthority> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let ip = address.ip().to_canonical();
            return Ok(Self::Address(SocketAddr::new(ip, address.port())));
        }
        let (host, port) = text.rsplit_once(':').ok_or(MalformedAuthority)?;
        // `parse` alone would take a sign.
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 && is_name(host) => {
                Ok(Self::Hostname(host.into(), port))
            }
            Ok(_) | Err(_) => Err(MalformedAuthority),
        }
    }
}

/// What is nearly an address is no name: 10.0.0.256 would be looked up for nothing.
fn is_name(host: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let labels = host.strip_suffix('.').unwrap_or(host);
    let last = labels.rsplit('.').next().unwrap_or_default();
    host.bytes().all(is_allowed) && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decides whether a CONNECT that arrived at `local` (this pod's address) for
/// `authority` may go on to policy.
pub fn inbound(
    snapshot: &Snapshot,
    workload: &Workload,
    local: IpAddr,
    authority: &Authority,
) -> Result<Inbound, InboundRefusal> {
    let local = local.to_canonical();
    let asked = match authority {
        Authority::Address(address) => address_port(snapshot, workload, local, *address)?,
        Authority::Hostname(host, port) => host_port(snapshot, workload, host, *port)?,
    };
    let tunnel = workload.application_tunnel.as_ref();
    let port = tunnel.and_then(|tunnel| tunnel.port).unwrap_or(asked);
    if OWN_PORTS.contains(&port) {
        return Err(InboundRefusal::OwnPort(port));
    }
    Ok(Inbound {
        application: SocketAddr::new(local, port),
    })
}

fn address_port(
    snapshot: &Snapshot,
    workload: &Workload,
    local: IpAddr,
    asked: SocketAddr,
) -> Result<u16, InboundRefusal> {
    let ip = asked.ip().to_canonical();
    let ours = ip == local
        || workload.application_tunnel.is_some()
        || is_waypoint_of(snapshot, workload, ip);
    if ours && asked.port() != 0 {
        Ok(asked.port())
    } else {
        Err(InboundRefusal::WrongAddress(asked.to_string()))
    }
}

/// Whether traffic for `ip` is meant to come through this workload.
fn is_waypoint_of(snapshot: &Snapshot, workload: &Workload, ip: IpAddr) -> bool {
    let address = NetworkAddress::new(workload.network.clone(), ip);
    let through_us = |waypoint: &GatewayAddress| is_gateway(snapshot, waypoint, workload);
    snapshot
        .service_at(&address, &workload.namespace)
        .is_some_and(|entry| waypoints(entry).any(through_us))
        || snapshot
            .workload_at(&address)
            .is_some_and(|other| other.waypoint.as_ref().is_some_and(through_us))
}

fn waypoints(entry: &ServiceEntry) -> impl Iterator<Item = &GatewayAddress> {
    let weighted = entry.service.weighted_waypoints.iter();
    weighted
        .map(|waypoint| &waypoint.destination)
        .chain(&entry.service.waypoint)
}

fn host_port(
    snapshot: &Snapshot,
    workload: &Workload,
    host: &str,
    port: u16,
) -> Result<u16, InboundRefusal> {
    let unknown = || InboundRefusal::UnknownHost(format!("{host}:{port}"));
    let entry = snapshot
        .service_named(host, &workload.namespace)
        .ok_or_else(unknown)?;
    let service = &entry.service;
    if let Some(own) = workload.services.get(&service.key()) {
        let target = own
            .iter()
            .chain(&service.ports)
            .find(|known| known.service_port == port && known.target_port != 0);
        return target.map(|known| known.target_port).ok_or_else(unknown);
    }
    let through_us = waypoints(entry).any(|waypoint| is_gateway(snapshot, waypoint, workload));
    if port != 0 && (through_us || workload.application_tunnel.is_some()) {
        Ok(port)
    } else {
        Err(unknown())
    }
}
