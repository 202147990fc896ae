//! Where a connection goes that a captured pod opens: a [`Plan`] of what the configuration alone
//! decides, and for each connection the [`Hops`] that are drawn from it.
//!
//! - `waypoint`: the rows of what is behind one.
//! - `network_gateway`: the rows of what is in another network.
//! - `withheld`: the addresses that get no plaintext.

mod network_gateway;

mod waypoint;

mod withheld;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use self::network_gateway::NetworkGateways;
pub use self::network_gateway::{Crossing, Proxies};
use self::waypoint::Waypoint;
use self::withheld::Withheld;
use super::{HBONE_PORT, NotOutside, OWN_PORTS, is_gateway};
use crate::address::{GatewayAddress, NetworkAddress};
use crate::balancing::{self, Drawn, Observed, Selection, Selections};
use crate::identity::Identity;
use crate::service::{IpFamilies, LoadBalancingMode, Service};
use crate::snapshot::{Endpoint, ServiceEntry, Snapshot};
use crate::workload::{TunnelProtocol, Workload, WorkloadUid};

/// Endpoints tried for one connection before it is given up.
pub const ATTEMPTS: usize = 5;

/// What to do with one outbound connection.
#[derive(Debug)]
pub struct Outbound {
    /// The service that was asked for, when the address was one's.
    pub service: Option<Arc<Service>>,
    pub route: Route,
}

#[derive(Debug)]
pub enum Route {
    /// Plain TCP to the original destination, of a service whose author wants it so.
    Passthrough,
    /// Nothing that is known has the address: plain TCP to it, unless it is the cluster's own. There
    /// it is only not known *yet*, and plaintext may be for a pod of the mesh.
    Unknown,
    /// Try these endpoints in order.
    Endpoints(Hops),
    /// Nothing may be sent, and why.
    Refuse(Refusal),
}

/// One endpoint and how to reach it.
#[derive(Clone, Debug)]
pub struct Hop {
    pub workload: Arc<Workload>,
    /// Application address on the endpoint: address and target port. Of a waypoint, in another
    /// network, and where only a name is known, what the application dialled.
    pub target: SocketAddr,
    pub transport: Transport,
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
    /// HBONE within HBONE to a gateway of the endpoint's network.
    DoubleHbone(Box<Crossing>),
    /// Plain TCP to whatever addresses the host has now.
    Resolve { hostname: Arc<str>, port: u16 },
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
    #[error(
        "workload {0} is in network {1:?} and is reached through a gateway only, which it has none of"
    )]
    NoNetworkGateway(WorkloadUid, String),
    #[error("the gateway {1} of network {0:?} is not known to the mesh or has no usable endpoint")]
    UnknownNetworkGateway(String, String),
    #[error(
        "no identity may answer for service {0} in network {1:?}: it names no subject alternative names"
    )]
    NobodyVouchedFor(String, String),
    #[error("what answers for {0} is in network {1:?}, where only services are reached")]
    NotAService(String, String),
    #[error("workload {0} has no address")]
    NoAddress(WorkloadUid),
    #[error(transparent)]
    NotOutside(NotOutside),
    #[error("destination {0} is one of the tunnel's own ports")]
    OwnPort(SocketAddr),
    #[error("{0} is an address of the cluster that nothing known has")]
    Unknown(IpAddr),
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
    Passthrough,
    Unknown,
    Refuse(Refusal),
    /// Always the same endpoint.
    Hop(Hop),
    /// Endpoints of a service.
    Service {
        selection: Arc<Selection>,
        gateways: NetworkGateways,
        withheld: Withheld,
    },
    /// Endpoints of a waypoint.
    Waypoint(Waypoint),
    /// One of several ways; where no weight counts, the other one.
    Weighted(Vec<(u32, Way)>, Box<Way>),
}

// === impl Way ===

impl Way {
    fn selection(&self) -> Option<&Selection> {
        match self {
            Self::Service { selection, .. } => Some(selection),
            Self::Waypoint(waypoint) => Some(&waypoint.selection),
            Self::Hop(_)
            | Self::Passthrough
            | Self::Unknown
            | Self::Refuse(_)
            | Self::Weighted(..) => None,
        }
    }
}

// === impl Plan ===

impl Plan {
    /// Plans the outbound connections of `client` to `destination`, the address the application
    /// dials.
    pub fn new(
        snapshot: &Snapshot,
        client: &Arc<Workload>,
        destination: SocketAddr,
        selections: &mut Selections,
    ) -> Self {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        if destination.ip().is_loopback() && OWN_PORTS.contains(&destination.port()) {
            return Self {
                client: client.clone(),
                destination,
                service: None,
                way: Way::Refuse(Refusal::OwnPort(destination)),
            };
        }
        let address = NetworkAddress::new(client.network.clone(), destination.ip());
        let service = snapshot.service_at(&address, &client.namespace);
        let workload = snapshot.workload_at(&address);
        let mut asked = Asked {
            snapshot,
            client,
            destination,
            selections,
        };
        let way = match (service, workload) {
            (None, None) => Way::Unknown,
            (None, Some(workload)) => asked.workload(workload),
            (Some(entry), Some(workload)) => {
                // The waypoint is the workload's also where a service covers its address.
                let past_waypoint = asked.past_waypoint(workload);
                past_waypoint.unwrap_or_else(|| asked.service(entry, Some(workload)))
            }
            (Some(entry), None) => asked.service(entry, None),
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
    pub fn draw(self: &Arc<Self>, observed: Observed<'_>, random: &mut impl Rng) -> Outbound {
        let weighted = match &self.way {
            Way::Weighted(ways, _) => draw_weighted(ways, random),
            _ => None,
        };
        let way = self.way(weighted);
        let route = match way {
            Way::Passthrough => Route::Passthrough,
            Way::Unknown => Route::Unknown,
            Way::Refuse(refusal) => Route::Refuse(refusal.clone()),
            Way::Hop(_) | Way::Service { .. } | Way::Waypoint(_) | Way::Weighted(..) => {
                let mut hops = Hops {
                    plan: self.clone(),
                    weighted,
                    first: None,
                    attempts: 0,
                    exhausted: [Drawn::default(); ATTEMPTS],
                    count: 0,
                    crossed: Vec::new(),
                    postponed: Vec::new(),
                    repeats: false,
                };
                hops.first = hops.draw(observed, random);
                match hops.first {
                    Some(_) => Route::Endpoints(hops),
                    None => Route::Refuse(self.why_none(way)),
                }
            }
        };
        Outbound {
            service: self.service.clone(),
            route,
        }
    }

    fn way(&self, weighted: Option<usize>) -> &Way {
        match (&self.way, weighted) {
            (Way::Weighted(ways, _), Some(at)) => &ways[at].1,
            (Way::Weighted(_, other), None) => other,
            (way, _) => way,
        }
    }

    /// Whether the endpoint's addresses are of the client's network.
    fn is_here(&self, endpoint: &Endpoint) -> bool {
        endpoint.workload.network == self.client.network
    }

    fn endpoint(&self, selection: &Selection, drawn: Drawn) -> Option<Hop> {
        let (entry, endpoint) = (selection.entry(), selection.endpoint(drawn));
        let workload = &endpoint.workload;
        let port = balancing::endpoint_port(entry, endpoint, self.destination.port())?;
        let address = self.address_of(workload, entry.service.ip_families);
        let Some(address) = address else {
            return Some(Hop {
                workload: workload.clone(),
                target: self.destination,
                transport: Transport::Resolve {
                    hostname: workload.hostname.clone()?,
                    port,
                },
            });
        };
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
        let admitted = |address: &&IpAddr| families.admit(address);
        workload
            .addresses
            .iter()
            .filter(admitted)
            .min_by_key(|address| address.is_ipv4() != asked.is_ipv4())
            .copied()
    }

    /// Why there is nothing to draw.
    fn why_none(&self, way: &Way) -> Refusal {
        match way {
            Way::Service {
                selection,
                gateways,
                withheld,
            } => {
                let why = self.why_none_of(selection.entry(), gateways, self.destination.port());
                match (why, withheld.reason()) {
                    (Refusal::NoHealthyUpstream(_), Some(reason)) => {
                        Refusal::NotOutside(reason.clone())
                    }
                    (why, _) => why,
                }
            }
            Way::Waypoint(waypoint) => {
                let selection = &waypoint.selection;
                let port = selection.destination().port;
                waypoint.not_ready(self.why_none_of(selection.entry(), &waypoint.gateways, port))
            }
            Way::Refuse(refusal) => refusal.clone(),
            Way::Passthrough | Way::Unknown | Way::Hop(_) | Way::Weighted(..) => {
                Refusal::NoHealthyUpstream(self.destination.to_string())
            }
        }
    }

    /// Why no endpoint of the service can be used.
    fn why_none_of(&self, entry: &ServiceEntry, gateways: &NetworkGateways, port: u16) -> Refusal {
        let key = entry.service.key().to_string();
        let mapped =
            |endpoint: &&Endpoint| balancing::endpoint_port(entry, endpoint, port).is_some();
        if entry.service.port(port).is_none() && !entry.endpoints.iter().any(|one| mapped(&one)) {
            return Refusal::UnknownPort(key, port);
        }
        let endpoints = || entry.endpoints.iter().filter(mapped);
        if let Some(remote) = endpoints().find(|one| !self.is_here(one)) {
            return self.why_not_crossed(entry, gateways, remote);
        }
        let families = entry.service.ip_families;
        let mut nowhere =
            endpoints().filter(|one| self.address_of(&one.workload, families).is_none());
        match nowhere.next() {
            Some(nowhere) => Refusal::NoAddress(nowhere.workload.uid.clone()),
            None => Refusal::NoHealthyUpstream(key),
        }
    }
}

/// The endpoints of one connection, drawn one at a time, so that what the attempts before have
/// taught counts for the next.
#[derive(Debug)]
pub struct Hops {
    plan: Arc<Plan>,
    /// Which of the weighted ways, where there are any.
    weighted: Option<usize>,
    /// Drawn and not taken yet.
    first: Option<Hop>,
    attempts: usize,
    /// Endpoints that there is no other way to, the first `count`.
    exhausted: [Drawn; ATTEMPTS],
    count: usize,
    /// Endpoints in other networks, and which proxy of their gateway has been tried.
    crossed: Vec<(Drawn, usize)>,
    /// Those to come back to, in turn.
    postponed: Vec<Hop>,
    /// Whether all have been tried once.
    repeats: bool,
}

// === impl Hops ===

impl Hops {
    /// The next endpoint to try; none where all have been tried, or as many as may be, and none has
    /// been postponed.
    pub fn next(&mut self, observed: Observed<'_>, random: &mut impl Rng) -> Option<Hop> {
        if let Some(hop) = self.first.take().or_else(|| self.draw(observed, random)) {
            return Some(hop);
        }
        (self.attempts, self.repeats) = (ATTEMPTS, true);
        (!self.postponed.is_empty()).then(|| self.postponed.remove(0))
    }

    /// Whether the last had been tried before.
    pub fn repeats(&self) -> bool {
        self.repeats
    }

    /// Whether there may be another to try than the last: not whether one can be used.
    pub fn may_have_others(&self) -> bool {
        let count = self.selection().map_or(0, |all| all.candidates().count);
        !self.postponed.is_empty() || self.attempts < ATTEMPTS && self.count < count
    }

    /// The endpoint has not answered yet, and others may be quicker: it is tried again after them.
    pub fn postpone(&mut self, hop: Hop) {
        self.postponed.push(hop);
    }

    /// What the endpoints are drawn from; none where there is only one.
    pub fn selection(&self) -> Option<&Selection> {
        self.plan.way(self.weighted).selection()
    }

    fn draw(&mut self, observed: Observed<'_>, random: &mut impl Rng) -> Option<Hop> {
        let plan = self.plan.clone();
        let way = plan.way(self.weighted);
        let Some(selection) = way.selection() else {
            let is_new = self.attempts == 0;
            self.attempts = ATTEMPTS;
            return match way {
                Way::Hop(hop) if is_new => Some(hop.clone()),
                _ => None,
            };
        };
        let mut hop = None;
        while hop.is_none() && self.attempts < ATTEMPTS {
            let drawn = selection.draw(&self.exhausted[..self.count], observed, random)?;
            self.attempts += 1;
            let endpoint = selection.endpoint(drawn);
            hop = match (way, plan.is_here(endpoint)) {
                (Way::Waypoint(waypoint), true) => plan.waypoint(waypoint, drawn),
                (
                    Way::Waypoint(Waypoint { gateways, .. }) | Way::Service { gateways, .. },
                    false,
                ) => {
                    let crossed = &mut self.crossed;
                    let draw = |named: &GatewayAddress| {
                        let is_new = |at| !crossed.contains(&(drawn, at));
                        let proxy = gateways.draw(named, is_new, observed, random)?;
                        crossed.push((drawn, proxy.at));
                        Some(proxy)
                    };
                    plan.crossing(selection.entry(), gateways, endpoint, draw)
                }
                (Way::Service { withheld, .. }, true) => {
                    let hop = plan.endpoint(selection, drawn);
                    hop.filter(|hop| withheld.admits(hop))
                }
                (
                    Way::Passthrough
                    | Way::Unknown
                    | Way::Refuse(_)
                    | Way::Hop(_)
                    | Way::Weighted(..),
                    _,
                ) => None,
            };
            if !hop.as_ref().is_some_and(Hop::has_other_ways) {
                self.exhausted[self.count] = drawn;
                self.count += 1;
            }
        }
        hop
    }
}

// === impl Hop ===

impl Hop {
    /// Whether the endpoint may be reached where this hop fails to.
    fn has_other_ways(&self) -> bool {
        match &self.transport {
            Transport::DoubleHbone(crossing) => !crossing.is_last,
            Transport::Tcp | Transport::Hbone { .. } | Transport::Resolve { .. } => false,
        }
    }
}

fn draw_weighted(ways: &[(u32, Way)], random: &mut impl Rng) -> Option<usize> {
    let weights = || ways.iter().map(|(weight, _)| u64::from(*weight));
    let total: u64 = weights().sum();
    let mut left = (total > 0).then(|| random.random_range(0..total))?;
    weights().position(|weight| match left.checked_sub(weight) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

/// A connection to plan for.
struct Asked<'a> {
    snapshot: &'a Snapshot,
    client: &'a Workload,
    destination: SocketAddr,
    selections: &'a mut Selections,
}

// === impl Asked ===

impl Asked<'_> {
    /// A workload dialled by its own address. Its health is the caller's business.
    fn workload(&mut self, workload: &Arc<Workload>) -> Way {
        self.past_waypoint(workload).unwrap_or_else(|| {
            let expected = || Arc::new([workload.identity()]) as Arc<[Identity]>;
            Way::Hop(hop(workload, self.destination, expected))
        })
    }

    /// To the workload's own waypoint; none where it has none, or that is who asks.
    fn past_waypoint(&mut self, workload: &Workload) -> Option<Way> {
        let waypoint = workload.waypoint.as_ref()?;
        let is_asking = is_gateway(self.snapshot, waypoint, self.client);
        (!is_asking).then(|| self.waypoint(waypoint, &workload.uid))
    }

    fn service(&mut self, entry: &Arc<ServiceEntry>, workload: Option<&Arc<Workload>>) -> Way {
        self.past_waypoints(&entry.service, |asked| {
            match (entry.service.load_balancing.mode, workload) {
                // Where a workload of the mesh sits at that very address, plaintext would be
                // a leak that the service's author did not ask for.
                (LoadBalancingMode::Passthrough, Some(workload)) => asked.workload(workload),
                (LoadBalancingMode::Passthrough, None) => Way::Passthrough,
                (
                    LoadBalancingMode::Standard
                    | LoadBalancingMode::Strict
                    | LoadBalancingMode::Failover,
                    _,
                ) => {
                    let (snapshot, network) = (asked.snapshot, &asked.client.network);
                    Way::Service {
                        gateways: NetworkGateways::of(snapshot, entry),
                        withheld: Withheld::of(snapshot, network, entry),
                        selection: asked.selection(entry, asked.destination.port()),
                    }
                }
            }
        })
    }

    fn selection(&mut self, entry: &Arc<ServiceEntry>, port: u16) -> Arc<Selection> {
        self.selections.of(entry, self.client, port)
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
