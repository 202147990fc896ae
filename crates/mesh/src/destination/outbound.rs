//! Where a connection goes that a captured pod opens: a [`Plan`] of what the configuration alone
//! decides, and a draw for each connection.
//!
//! - `waypoint`: the rows of what is behind one.

mod waypoint;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;
use rand::seq::IndexedRandom;

use self::waypoint::Waypoint;
use super::{HBONE_PORT, OWN_PORTS, is_gateway};
use crate::address::NetworkAddress;
use crate::balancing;
use crate::identity::Identity;
use crate::service::{IpFamilies, LoadBalancingMode, Service};
use crate::snapshot::{Endpoint, ServiceEntry, Snapshot};
use crate::workload::{TunnelProtocol, Workload, WorkloadUid};

/// Endpoints tried for one connection before it is given up.
const CANDIDATES: usize = 5;

/// What to do with one outbound connection.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// The service that was asked for, when the address was one's.
    pub service: Option<Arc<Service>>,
    pub route: Route,
}

#[derive(Clone, Debug)]
pub enum Route {
    /// Plain TCP to the original destination: not the mesh's, or a passthrough service.
    Passthrough,
    /// Try these endpoints in order.
    Endpoints(Vec<Hop>),
    /// Plain TCP to whatever addresses these endpoints' hostnames have now, in order.
    Resolve(Vec<NamedHop>),
    /// Nothing may be sent, and why.
    Refuse(Refusal),
}

/// One endpoint and how to reach it.
#[derive(Clone, Debug)]
pub struct Hop {
    pub workload: Arc<Workload>,
    /// Application address on the endpoint: address and target port. Of a waypoint, what the
    /// application dialled.
    pub target: SocketAddr,
    pub transport: Transport,
}

/// One endpoint that has only a name.
#[derive(Clone, Debug)]
pub struct NamedHop {
    pub workload: Arc<Workload>,
    pub hostname: Arc<str>,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub enum Transport {
    /// Plain TCP straight to [`Hop::target`].
    Tcp,
    /// HBONE to `address`, CONNECT to [`Hop::target`], accepting only these identities.
    Hbone {
        address: SocketAddr,
        expected: Arc<[Identity]>,
    },
}

/// Why an outbound connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no healthy upstream: service {0} has no usable endpoint")]
    NoHealthyUpstream(String),
    #[error("service {0} has no port {1}")]
    UnknownPort(String, u16),
    #[error("{destination} needs its waypoint {waypoint}, which is not ready: {reason}")]
    WaypointNotReady {
        destination: String,
        waypoint: String,
        reason: Box<Refusal>,
    },
    #[error("no service or workload of the mesh is at {0}")]
    UnknownGateway(String),
    #[error("workload {0} is not healthy")]
    Unhealthy(WorkloadUid),
    #[error("workload {0} is in network {1:?} and is reached through a gateway only")]
    RemoteNetwork(WorkloadUid, String),
    #[error("workload {0} has no address")]
    NoAddress(WorkloadUid),
    #[error("destination {0} is one of the tunnel's own ports")]
    OwnPort(SocketAddr),
}

/// All of a decision but the draw: it holds for every connection of one client to one address
/// until the configuration changes.
#[derive(Debug)]
pub struct Plan {
    client: Arc<Workload>,
    destination: SocketAddr,
    service: Option<Arc<Service>>,
    way: Way,
}

/// What is drawn for each connection.
#[derive(Debug)]
enum Way {
    /// Nothing: all go the same.
    Settled(Route),
    /// Endpoints of a service.
    Service(Arc<ServiceEntry>),
    /// Endpoints of a waypoint.
    Waypoint(Waypoint),
    /// One of several ways; where no weight counts, the other one.
    Weighted(Vec<(u32, Way)>, Box<Way>),
}

// === impl Plan ===

impl Plan {
    /// Plans the outbound connections of `client` to `destination`, the address the application
    /// dials.
    pub fn new(snapshot: &Snapshot, client: &Arc<Workload>, destination: SocketAddr) -> Self {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        if destination.ip().is_loopback() && OWN_PORTS.contains(&destination.port()) {
            return Self {
                client: client.clone(),
                destination,
                service: None,
                way: Way::Settled(Route::Refuse(Refusal::OwnPort(destination))),
            };
        }
        let address = NetworkAddress::new(client.network.clone(), destination.ip());
        let service = snapshot.service_at(&address, &client.namespace);
        let workload = snapshot.workload_at(&address);
        let asked = Asked {
            snapshot,
            client,
            destination,
        };
        let way = match (service, workload) {
            (None, None) => Way::Settled(Route::Passthrough),
            (None, Some(workload)) => asked.workload(workload),
            (Some(entry), workload) => asked.service(entry, workload),
        };
        Self {
            client: client.clone(),
            destination,
            service: service.map(|entry| entry.service.clone()),
            way,
        }
    }

    /// Whose connections the plan is for.
    pub fn client(&self) -> &Arc<Workload> {
        &self.client
    }

    /// Decides one connection.
    pub fn draw(&self, random: &mut impl Rng) -> Outbound {
        let route = self.follow(&self.way, random);
        Outbound {
            service: self.service.clone(),
            route: route.unwrap_or_else(Route::Refuse),
        }
    }

    fn follow(&self, way: &Way, random: &mut impl Rng) -> Result<Route, Refusal> {
        match way {
            Way::Settled(route) => Ok(route.clone()),
            Way::Service(entry) => self.endpoints(entry, random),
            Way::Waypoint(waypoint) => self.waypoint(waypoint, random),
            Way::Weighted(ways, other) => {
                let drawn = ways.choose_weighted(random, |(weight, _)| u64::from(*weight));
                let way = drawn.map_or(&**other, |(_, way)| way);
                self.follow(way, random)
            }
        }
    }

    fn endpoints(&self, entry: &ServiceEntry, random: &mut impl Rng) -> Result<Route, Refusal> {
        let port = self.destination.port();
        let candidates = balancing::candidates(entry, &self.client, port, CANDIDATES, random);
        let Some(first) = candidates.first() else {
            return Err(self.why_none(entry, port));
        };
        if first.workload.addresses.is_empty() && first.workload.hostname.is_some() {
            let named: Vec<NamedHop> = candidates
                .iter()
                .filter_map(|endpoint| self.named(entry, endpoint))
                .collect();
            if !named.is_empty() {
                return Ok(Route::Resolve(named));
            }
        }
        let hops: Vec<Hop> = candidates
            .iter()
            .filter_map(|endpoint| self.endpoint(entry, endpoint))
            .collect();
        if hops.is_empty() {
            return Err(Refusal::NoAddress(first.workload.uid.clone()));
        }
        Ok(Route::Endpoints(hops))
    }

    /// An endpoint without an address. DNS is no authority on where a tunnel ends.
    fn named(&self, entry: &ServiceEntry, endpoint: &Endpoint) -> Option<NamedHop> {
        let workload = &endpoint.workload;
        let plain = workload.tunnel_protocol == TunnelProtocol::None;
        if !plain || !workload.addresses.is_empty() {
            return None;
        }
        Some(NamedHop {
            workload: workload.clone(),
            hostname: workload.hostname.clone()?,
            port: balancing::endpoint_port(entry, endpoint, self.destination.port())?,
        })
    }

    fn endpoint(&self, entry: &ServiceEntry, endpoint: &Endpoint) -> Option<Hop> {
        let workload = &endpoint.workload;
        let address = self.address_of(workload, entry.service.ip_families)?;
        let port = balancing::endpoint_port(entry, endpoint, self.destination.port())?;
        let target = SocketAddr::new(address, port);
        Some(hop(workload, target, || endpoint.expected.clone()))
    }

    /// The address asked for if the workload has it, else the first that the service's
    /// families admit, of the family asked for if there is one.
    fn address_of(&self, workload: &Workload, families: IpFamilies) -> Option<IpAddr> {
        let asked = self.destination.ip();
        if workload.addresses.contains(&asked) {
            return Some(asked);
        }
        let admitted = |address: &&IpAddr| match families {
            IpFamilies::Automatic | IpFamilies::Dual => true,
            IpFamilies::Ipv4Only => address.is_ipv4(),
            IpFamilies::Ipv6Only => address.is_ipv6(),
        };
        workload
            .addresses
            .iter()
            .filter(admitted)
            .min_by_key(|address| address.is_ipv4() != asked.is_ipv4())
            .copied()
    }

    /// Why no endpoint of the service can be used.
    fn why_none(&self, entry: &ServiceEntry, port: u16) -> Refusal {
        let key = entry.service.key().to_string();
        let mapped =
            |endpoint: &&Endpoint| balancing::endpoint_port(entry, endpoint, port).is_some();
        if entry.service.port(port).is_none() && !entry.endpoints.iter().any(|one| mapped(&one)) {
            return Refusal::UnknownPort(key, port);
        }
        let mut endpoints = entry.endpoints.iter().filter(mapped);
        match endpoints.find(|endpoint| endpoint.workload.network != self.client.network) {
            Some(remote) => Refusal::RemoteNetwork(
                remote.workload.uid.clone(),
                remote.workload.network.to_string(),
            ),
            None => Refusal::NoHealthyUpstream(key),
        }
    }
}

/// A connection to plan for.
struct Asked<'a> {
    snapshot: &'a Snapshot,
    client: &'a Workload,
    destination: SocketAddr,
}

// === impl Asked ===

impl Asked<'_> {
    /// A workload dialled by its own address. Its health is the caller's business.
    fn workload(&self, workload: &Arc<Workload>) -> Way {
        if let Some(waypoint) = &workload.waypoint
            && !is_gateway(self.snapshot, waypoint, self.client)
        {
            return self.waypoint(waypoint, &workload.uid);
        }
        let expected = || Arc::new([workload.identity()]) as Arc<[Identity]>;
        let hop = hop(workload, self.destination, expected);
        Way::Settled(Route::Endpoints(vec![hop]))
    }

    fn service(&self, entry: &Arc<ServiceEntry>, workload: Option<&Arc<Workload>>) -> Way {
        let service = &entry.service;
        let direct = || match service.load_balancing.mode {
            // Where a workload of the mesh sits at that very address, plaintext would be
            // a leak that the service's author did not ask for.
            LoadBalancingMode::Passthrough => match workload {
                Some(workload) => self.workload(workload),
                None => Way::Settled(Route::Passthrough),
            },
            LoadBalancingMode::Standard
            | LoadBalancingMode::Strict
            | LoadBalancingMode::Failover => Way::Service(entry.clone()),
        };
        self.past_waypoints(service, direct)
    }
}

fn hop(
    workload: &Arc<Workload>,
    target: SocketAddr,
    expected: impl Fn() -> Arc<[Identity]>,
) -> Hop {
    let transport = match workload.tunnel_protocol {
        TunnelProtocol::None => Transport::Tcp,
        TunnelProtocol::Hbone => Transport::Hbone {
            address: SocketAddr::new(target.ip(), HBONE_PORT),
            expected: expected(),
        },
    };
    Hop {
        workload: workload.clone(),
        target,
        transport,
    }
}
