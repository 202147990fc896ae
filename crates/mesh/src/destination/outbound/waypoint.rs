//! Connections to what is behind a waypoint go to the waypoint, over HBONE, and ask it for what
//! the application dialled. While it can't be reached they are refused: nothing goes around it.

use std::net::SocketAddr;
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;

use super::{Asked, CANDIDATES, Hop, Refusal, Route, Transport};
use crate::address::{GatewayAddress, GatewayDestination};
use crate::balancing;
use crate::destination::is_gateway;
use crate::identity::Identity;
use crate::service::Service;
use crate::workload::{Workload, WorkloadStatus};

impl Asked<'_> {
    /// The waypoint that this connection to a service has to pass. Weights draw one of several;
    /// where none carries any, the single one counts. A waypoint of the service passes none.
    pub(super) fn waypoint_of<'a>(
        &self,
        service: &'a Service,
        random: &mut impl Rng,
    ) -> Option<&'a GatewayAddress> {
        let weighted = &service.weighted_waypoints;
        let drawn = weighted.choose_weighted(random, |waypoint| u64::from(waypoint.weight));
        let drawn = drawn.map(|waypoint| &waypoint.destination).ok();
        let calls = |waypoint: &GatewayAddress| is_gateway(self.snapshot, waypoint, self.client);
        let all = weighted.iter().map(|waypoint| &waypoint.destination);
        match all.chain(&service.waypoint).any(calls) {
            true => None,
            false => drawn.or(service.waypoint.as_ref()),
        }
    }

    /// To a waypoint, which is asked for what the application dialled.
    pub(super) fn waypoint(
        &self,
        waypoint: &GatewayAddress,
        destination: &impl ToString,
        random: &mut impl Rng,
    ) -> Result<Route, Refusal> {
        self.waypoint_hops(waypoint, random)
            .map(Route::Endpoints)
            .map_err(|reason| Refusal::WaypointNotReady {
                destination: destination.to_string(),
                waypoint: waypoint.to_string(),
                reason: Box::new(reason),
            })
    }

    fn waypoint_hops(
        &self,
        waypoint: &GatewayAddress,
        random: &mut impl Rng,
    ) -> Result<Vec<Hop>, Refusal> {
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
                            Ok(vec![self.waypoint_hop(workload, address, expected)])
                        }
                        WorkloadStatus::Unhealthy => Err(Refusal::Unhealthy(workload.uid.clone())),
                    };
                }
                let client_namespace = &self.client.namespace;
                let entry = self.snapshot.service_at(address, client_namespace);
                entry.ok_or_else(unknown)?
            }
        };
        let candidates = balancing::candidates(entry, self.client, port, CANDIDATES, random);
        let Some(first) = candidates.first() else {
            return Err(self.why_none(entry, port));
        };
        let hops: Vec<Hop> = candidates
            .iter()
            .filter_map(|endpoint| {
                let workload = &endpoint.workload;
                let address = self.address_of(workload, entry.service.ip_families)?;
                let port = balancing::endpoint_port(entry, endpoint, port)?;
                let address = SocketAddr::new(address, port);
                Some(self.waypoint_hop(workload, address, endpoint.expected.clone()))
            })
            .collect();
        match hops.is_empty() {
            true => Err(Refusal::NoAddress(first.workload.uid.clone())),
            false => Ok(hops),
        }
    }

    fn waypoint_hop(
        &self,
        workload: &Arc<Workload>,
        address: SocketAddr,
        expected: Arc<[Identity]>,
    ) -> Hop {
        Hop {
            workload: workload.clone(),
            target: self.destination,
            transport: Transport::Hbone { address, expected },
        }
    }
}
