//! Connections to what is behind a waypoint go to the waypoint, over HBONE, and ask it for what
//! the application dialled. While it can't be reached they are refused: nothing goes around it.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::Rng;

use super::{Asked, CANDIDATES, Hop, Plan, Refusal, Route, Transport, Way};
use crate::address::{GatewayAddress, GatewayDestination};
use crate::balancing;
use crate::destination::is_gateway;
use crate::identity::Identity;
use crate::service::Service;
use crate::snapshot::ServiceEntry;
use crate::workload::{Workload, WorkloadStatus};

/// A waypoint whose endpoints are a service's.
#[derive(Debug)]
pub(super) struct Waypoint {
    entry: Arc<ServiceEntry>,
    port: u16,
    /// What is behind it, and its own name: for the reason of a refusal.
    destination: String,
    name: String,
}

// === impl Waypoint ===

impl Waypoint {
    fn not_ready(&self, reason: Refusal) -> Refusal {
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
    pub(super) fn past_waypoints(&self, service: &Service, direct: impl FnOnce() -> Way) -> Way {
        let weighted = &service.weighted_waypoints;
        let calls = |waypoint: &GatewayAddress| is_gateway(self.snapshot, waypoint, self.client);
        let all = weighted.iter().map(|waypoint| &waypoint.destination);
        if all.chain(&service.waypoint).any(calls) {
            return direct();
        }
        let key = service.key();
        let single = match &service.waypoint {
            Some(waypoint) => self.waypoint(waypoint, &key),
            None => direct(),
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
    pub(super) fn waypoint(&self, waypoint: &GatewayAddress, destination: &impl ToString) -> Way {
        self.to_waypoint(waypoint, destination)
            .unwrap_or_else(|reason| {
                Way::Settled(Route::Refuse(not_ready(destination, waypoint, reason)))
            })
    }

    fn to_waypoint(
        &self,
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
                            let hop = hop(self.destination, workload, address, expected);
                            Ok(Way::Settled(Route::Endpoints(vec![hop])))
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
            entry: entry.clone(),
            port,
            destination: destination.to_string(),
            name: waypoint.to_string(),
        }))
    }
}

impl Plan {
    pub(super) fn waypoint(
        &self,
        waypoint: &Waypoint,
        random: &mut impl Rng,
    ) -> Result<Route, Refusal> {
        let Waypoint { entry, port, .. } = waypoint;
        let candidates = balancing::candidates(entry, &self.client, *port, CANDIDATES, random);
        let Some(first) = candidates.first() else {
            return Err(waypoint.not_ready(self.why_none(entry, *port)));
        };
        let hops: Vec<Hop> = candidates
            .iter()
            .filter_map(|endpoint| {
                let workload = &endpoint.workload;
                let address = self.address_of(workload, entry.service.ip_families)?;
                let port = balancing::endpoint_port(entry, endpoint, *port)?;
                let address = SocketAddr::new(address, port);
                let expected = endpoint.expected.clone();
                Some(hop(self.destination, workload, address, expected))
            })
            .collect();
        match hops.is_empty() {
            true => Err(waypoint.not_ready(Refusal::NoAddress(first.workload.uid.clone()))),
            false => Ok(Route::Endpoints(hops)),
        }
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
