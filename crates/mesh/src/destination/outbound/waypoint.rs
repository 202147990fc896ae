//! Connections to what is behind a waypoint go to the waypoint, over HBONE, and ask it for what
//! the application dialled. While it can't be reached they are refused: nothing goes around it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::network_gateway::NetworkGateways;
use super::{Asked, Hop, Plan, Refusal, Transport, Way};
use crate::address::{GatewayAddress, GatewayDestination};
use crate::balancing::{self, Drawn, Selection};
use crate::destination::is_gateway;
use crate::identity::Identity;
use crate::service::Service;
use crate::workload::{Workload, WorkloadStatus};

/// A waypoint whose endpoints are a service's.
#[derive(Debug)]
pub(super) struct Waypoint {
    pub(super) selection: Arc<Selection>,
    pub(super) gateways: NetworkGateways,
    /// What is behind it, and its own name: for the reason of a refusal.
    destination: String,
    name: String,
}

// === impl Waypoint ===

impl Waypoint {
    pub(super) fn not_ready(&self, reason: Refusal) -> Refusal {
        not_ready(&self.destination, &self.name, reason)
    }
}

fn not_ready(destination: &impl ToString, waypoint: &impl ToString, reason: Refusal) -> Refusal {
    Refusal::WaypointNotReady {
        destination: destination.to_string(),
        waypoint: waypoint.to_string(),
        reason: Box::new(reason),
    }
}

impl Asked<'_> {
    /// The waypoint that connections to a service have to pass, else `direct`. Weights draw one
    /// of several; where none carries any, the single one counts. A waypoint of the service
    /// passes none.
    pub(super) fn past_waypoints(
        &mut self,
        service: &Service,
        direct: impl FnOnce(&mut Self) -> Way,
    ) -> Way {
        let weighted = &service.weighted_waypoints;
        let calls = |waypoint: &GatewayAddress| is_gateway(self.snapshot, waypoint, self.client);
        let all = weighted.iter().map(|waypoint| &waypoint.destination);
        if all.chain(&service.waypoint).any(calls) {
            return direct(self);
        }
        let key = service.key();
        let single = match &service.waypoint {
            Some(waypoint) => self.waypoint(waypoint, &key),
            None => direct(self),
        };
        if weighted.is_empty() {
            return single;
        }
        let ways = weighted.iter().map(|waypoint| {
            let way = self.waypoint(&waypoint.destination, &key);
            (waypoint.weight, way)
        });
        Way::Weighted(ways.collect(), Box::new(single))
    }

    /// To a waypoint, which is asked for what the application dialled.
    pub(super) fn waypoint(
        &mut self,
        waypoint: &GatewayAddress,
        destination: &impl ToString,
    ) -> Way {
        self.toward_waypoint(waypoint, destination)
            .unwrap_or_else(|reason| Way::Refuse(not_ready(destination, waypoint, reason)))
    }

    fn toward_waypoint(
        &mut self,
        waypoint: &GatewayAddress,
        destination: &impl ToString,
    ) -> Result<Way, Refusal> {
        let port = waypoint.hbone_mtls_port;
        let unknown = || Refusal::UnknownGateway(waypoint.to_string());
        let entry = match &waypoint.destination {
            GatewayDestination::Hostname(key) => self.snapshot.service(key).ok_or_else(unknown)?,
            GatewayDestination::Address(address) => {
                // Another network's addresses mean nothing here.
                if address.network != self.client.network {
                    return Err(unknown());
                }
                if let Some(workload) = self.snapshot.workload_at(address) {
                    let expected = Arc::new([workload.identity()]);
                    let address = SocketAddr::new(address.address, port);
                    return match workload.status {
                        WorkloadStatus::Healthy => {
                            Ok(Way::Hop(hop(self.destination, workload, address, expected)))
                        }
                        WorkloadStatus::Unhealthy => Err(Refusal::Unhealthy(workload.uid.clone())),
                    };
                }
                let client_namespace = &self.client.namespace;
                let entry = self.snapshot.service_at(address, client_namespace);
                entry.ok_or_else(unknown)?
            }
        };
        Ok(Way::Waypoint(Waypoint {
            gateways: NetworkGateways::of(self.snapshot, entry),
            selection: self.selection(entry, port),
            destination: destination.to_string(),
            name: waypoint.to_string(),
        }))
    }
}

impl Plan {
    pub(super) fn waypoint(&self, waypoint: &Waypoint, drawn: Drawn) -> Option<Hop> {
        let selection = &waypoint.selection;
        let (entry, endpoint) = (selection.entry(), selection.endpoint(drawn));
        let workload = &endpoint.workload;
        let address = self.address_of(workload, entry.service.ip_families)?;
        let port = balancing::endpoint_port(entry, endpoint, selection.destination().port)?;
        let address = SocketAddr::new(address, port);
        let expected = endpoint.expected.clone();
        Some(hop(self.destination, workload, address, expected))
    }
}

fn hop(
    target: SocketAddr,
    waypoint: &Arc<Workload>,
    address: SocketAddr,
    expected: Arc<[Identity]>,
) -> Hop {
    Hop {
        workload: waypoint.clone(),
        target,
        transport: Transport::Hbone { address, expected },
    }
}
