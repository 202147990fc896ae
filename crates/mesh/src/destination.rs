//! Where a captured connection goes, and whether an HBONE request may come in.
//!
//! The rules are rows of one table (Istio's ztunnel request flow); the first that applies
//! decides. What can't be resolved is refused, with the reason.
//!
//! - `outbound`: connections that a pod opens, planned when the configuration changes.
//! - `outside`: the addresses of what has only a name.
//! - `inbound`: HBONE requests for a pod.

mod inbound;

mod outbound;

mod outside;

pub use self::inbound::{Authority, Inbound, InboundRefusal, MalformedAuthority, inbound};
pub use self::outbound::{
    ATTEMPTS, Crossing, Hop, Hops, Outbound, Plan, Proxies, Refusal, Route, Transport,
};
pub use self::outside::{NotOutside, outside};
use crate::address::{GatewayAddress, GatewayDestination};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// TCP port of the tunnel's HBONE listener.
pub const HBONE_PORT: u16 = 15008;

/// Ports in every pod's namespace that the tunnel always listens on: outbound, inbound plaintext,
/// HBONE.
pub const OWN_PORTS: [u16; 3] = [15001, 15006, HBONE_PORT];

/// Whether `workload` is behind `gateway`: one of the proxies that the gateway names.
pub fn is_gateway(snapshot: &Snapshot, gateway: &GatewayAddress, workload: &Workload) -> bool {
    match &gateway.destination {
        GatewayDestination::Hostname(service) => workload.services.contains_key(service),
        GatewayDestination::Address(address) => {
            let own = workload.network == address.network
                && workload.addresses.contains(&address.address);
            own || workload.services.keys().any(|service| {
                snapshot
                    .service(service)
                    .is_some_and(|entry| entry.service.addresses.contains(address))
            })
        }
    }
}

#[cfg(test)]
mod tests;
