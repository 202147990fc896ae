//! Which tunnelled connections are for this waypoint: those to services and workloads that are
//! bound to it.

use std::net::SocketAddr;
use std::time::Instant;

use mesh::address::{GatewayAddress, GatewayDestination, NetworkAddress};
use mesh::destination::{Authority, is_gateway};
use mesh::route::select::RouteTable;
use mesh::service::{AppProtocol, LoadBalancingMode, Service};

use super::Worker;
use super::plan::Plans;
use crate::message::{Admission, Arrival, Downstream, Refusal};

// === impl Worker ===

impl<U> Worker<U> {
    pub(super) fn admit(&self, arrival: &Arrival<'_>) -> Result<Admission, Refusal> {
        let admitted = self.judge(arrival);
        if let Err(refusal) = &admitted {
            let reason = match refusal {
                Refusal::Unknown(_) => "unknown_destination",
                Refusal::NotInFront(_) => "not_bound",
                Refusal::NoIdentity => "no_identity",
                Refusal::UnknownPort(..) => "unknown_port",
            };
            metrics::counter!("waypoint_connections_refused_total", "reason" => reason)
                .increment(1);
            tracing::info!(
                peer = %arrival.peer_address,
                identity = arrival.peer_identity.map(tracing::field::display),
                authority = ?arrival.authority,
                %refusal,
                "connection refused"
            );
        }
        admitted
    }

    fn judge(&self, arrival: &Arrival<'_>) -> Result<Admission, Refusal> {
        let identity = arrival.peer_identity.ok_or(Refusal::NoIdentity)?;
        let proxy = &self.shared.config.proxy;
        let (service, workload, destination) = self.plans(|plans| {
            let snapshot = &plans.snapshot;
            let bound = |waypoint: &GatewayAddress| self.is_own(plans, waypoint);
            let of_service = |service: &Service| {
                let weighted = service.weighted_waypoints.iter();
                let waypoints = weighted.map(|one| &one.destination);
                waypoints.chain(&service.waypoint).any(bound)
            };
            let (entry, address) = match &arrival.authority {
                Authority::Hostname(host, port) => {
                    let entry = snapshot.service_named(host, &identity.namespace);
                    let entry = entry.ok_or_else(|| Refusal::Unknown(host.to_string()))?;
                    let addresses = entry.service.addresses.iter();
                    let address = addresses.map(|one| one.address).next();
                    let address = address.unwrap_or(proxy.address);
                    (Some(entry), SocketAddr::new(address, *port))
                }
                Authority::Address(address) => {
                    let key = NetworkAddress::new(proxy.network.clone(), address.ip());
                    (snapshot.service_at(&key, &identity.namespace), *address)
                }
            };
            if let Some(entry) = entry {
                let service = &entry.service;
                let any_port = service.load_balancing.mode == LoadBalancingMode::Passthrough;
                return match (of_service(service), service.port(address.port())) {
                    (false, _) => Err(Refusal::NotInFront(service.key().to_string())),
                    (true, None) if !any_port => Err(Refusal::UnknownPort(
                        service.key().to_string(),
                        address.port(),
                    )),
                    (true, _) => Ok((Some(service.clone()), None, address)),
                };
            }
            let key = NetworkAddress::new(proxy.network.clone(), address.ip());
            let workload = snapshot
                .workload_at(&key)
                .ok_or_else(|| Refusal::Unknown(address.to_string()))?;
            match workload.waypoint.as_ref().is_some_and(bound) {
                true => Ok((None, Some(workload.clone()), address)),
                false => Err(Refusal::NotInFront(workload.uid.to_string())),
            }
        })?;
        let port = service
            .as_ref()
            .and_then(|service| service.port(destination.port()));
        let downstream = Downstream {
            source_identity: Some(identity.clone()),
            source: arrival.peer_address,
            destination,
            service: service.as_ref().map(|service| service.key()),
            workload,
            opened: Instant::now(),
            remembered: Default::default(),
        };
        let routed = self.destination(&downstream);
        let protocol = match routed.as_deref().map(|destination| &destination.routes) {
            // TCPRoute: connections are routed, whatever they carry.
            Some(RouteTable::Tcp(_)) => AppProtocol::Tcp,
            Some(RouteTable::Http(_) | RouteTable::Unrouted) | None => {
                port.map_or(AppProtocol::Unknown, |port| port.app_protocol)
            }
        };
        Ok(Admission {
            downstream,
            protocol,
        })
    }

    /// Whether a binding names this waypoint.
    fn is_own(&self, plans: &Plans, waypoint: &GatewayAddress) -> bool {
        let by_name = match &waypoint.destination {
            GatewayDestination::Hostname(name) => *name == self.shared.config.proxy.hostname(),
            GatewayDestination::Address(_) => false,
        };
        by_name || is_gateway(&plans.snapshot, waypoint, plans.own_workload())
    }
}
