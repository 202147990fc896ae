//! The endpoints of one port of one service: which of them gets the next try.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use mesh::address::NamespacedHostname;
use mesh::balancing;
use mesh::balancing::balancer::{Algorithm, Balancer, Pick};
use mesh::destination::{HBONE_PORT, Hop, Transport, outside};
use mesh::identity::Identity;
use mesh::local_reply::Reason;
use mesh::retry::budget::RetryBudget;
use mesh::service::{AppProtocol, Service};
use mesh::snapshot::{Endpoint, ServiceEntry, Snapshot};
use mesh::workload::{TunnelProtocol, Workload, WorkloadUid};
use rand::Rng;
use tokio::time::Instant;

use crate::message::Protocol;
use crate::names::{Names, Seen};

/// What a backend refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClusterKey {
    pub(crate) service: NamespacedHostname,
    pub(crate) port: u16,
}

/// The usable endpoints of a port, as one snapshot has them.
pub(crate) struct Cluster {
    pub(crate) key: ClusterKey,
    pub(crate) name: Arc<str>,
    pub(crate) service: Arc<Service>,
    /// None: as the client speaks.
    pub(crate) protocol: Option<Protocol>,
    hops: HashMap<WorkloadUid, Hop>,
    load: Rc<Load>,
    named: Named,
}

/// The endpoints that have only a name, and what it came to.
#[derive(Default)]
struct Named {
    hostnames: Vec<Arc<str>>,
    seen: Vec<Seen>,
    /// Why one of them has none that may be used.
    failure: Option<Arc<str>>,
}

/// What is known besides a service: the waypoint itself, and names.
pub(crate) struct Surroundings<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) own: &'a Workload,
    pub(crate) names: &'a Names,
}

/// One try's endpoint: under way there until dropped.
pub(crate) type Chosen = Pick<WorkloadUid>;

/// What is under way, from this worker. It outlives snapshots.
#[derive(Default)]
pub(crate) struct Loads(RefCell<HashMap<ClusterKey, Rc<Load>>>);

struct Load {
    balancer: RefCell<Balancer<WorkloadUid>>,
    requests: Cell<u32>,
    retries: Cell<u32>,
}

/// Counts one more request, or retry, of a cluster for as long as it lives.
pub(crate) struct Active {
    load: Rc<Load>,
    counter: fn(&Load) -> &Cell<u32>,
}

// === impl Cluster ===

impl Cluster {
    pub(crate) fn new(
        key: &ClusterKey,
        entry: &ServiceEntry,
        around: &Surroundings<'_>,
        loads: &Loads,
        random: &mut impl Rng,
    ) -> Self {
        let own = around.own;
        let mut named = Named::default();
        let tiers = balancing::tiers(entry, own, key.port);
        let nearest = tiers.into_iter().next().unwrap_or_default();
        let mut hops = HashMap::new();
        let mut weights = Vec::new();
        for endpoint in nearest {
            if let Some(hop) = hop_of(entry, endpoint, own, key.port) {
                match around.admits(&hop) {
                    Ok(()) => {
                        let uid = endpoint.workload.uid.clone();
                        weights.push((uid.clone(), endpoint.workload.capacity));
                        hops.insert(uid, hop);
                    }
                    Err(why) => named.failure = Some(why),
                }
            }
            // All addresses of a name share its weight alike.
            for hop in named.hops(entry, endpoint, around, key.port) {
                let uid = format!("{}@{}", endpoint.workload.uid, hop.target.ip());
                let uid = WorkloadUid::new(uid);
                weights.push((uid.clone(), endpoint.workload.capacity));
                hops.insert(uid, hop);
            }
        }
        let load = loads.cluster(key);
        load.balancer.borrow_mut().update(weights, random);
        let port = entry.service.port(key.port);
        let protocol = match port.map_or(AppProtocol::Unknown, |port| port.app_protocol) {
            AppProtocol::Http2 | AppProtocol::Grpc => Some(Protocol::Http2),
            AppProtocol::Http11 => Some(Protocol::Http1),
            AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => None,
        };
        Self {
            key: key.clone(),
            // Envoy's form, which tools know from logs.
            name: format!("inbound-vip|{}|http|{}", key.port, key.service.hostname).into(),
            service: entry.service.clone(),
            protocol,
            hops,
            load,
            named,
        }
    }

    /// Whether what its endpoints' names came to may still be used.
    pub(crate) fn is_current(&self) -> bool {
        self.named.is_current()
    }

    /// The names of endpoints that have no address of their own.
    pub(crate) fn hostnames(&self) -> &[Arc<str>] {
        &self.named.hostnames
    }

    /// Why there is no endpoint to choose.
    pub(crate) fn why_none(&self) -> Reason {
        match &self.named.failure {
            Some(why) => Reason::NoAddress(why.clone()),
            None => Reason::NoHealthyUpstream,
        }
    }

    /// The endpoint for the next try: not one that was tried, if that can be avoided.
    pub(crate) fn choose(
        &self,
        tried: &[WorkloadUid],
        random: &mut impl Rng,
    ) -> Option<(Chosen, Hop)> {
        let mut balancer = self.load.balancer.borrow_mut();
        let now = Instant::now().into_std();
        let untried = |uid: &WorkloadUid| !tried.contains(uid) && self.hops.contains_key(uid);
        let any = |uid: &WorkloadUid| self.hops.contains_key(uid);
        let pick = match balancer.pick(untried, now, random) {
            Some(pick) => pick,
            None => balancer.pick(any, now, random)?,
        };
        let hop = self.hops.get(&pick.id)?.clone();
        Some((pick, hop))
    }

    pub(crate) fn len(&self) -> usize {
        self.hops.len()
    }

    pub(crate) fn begin_request(&self) -> Active {
        Active::new(self.load.clone(), |load| &load.requests)
    }

    pub(crate) fn begin_retry(&self) -> Active {
        Active::new(self.load.clone(), |load| &load.retries)
    }

    pub(crate) fn is_within_budget(&self) -> bool {
        let (retries, requests) = (self.load.retries.get(), self.load.requests.get());
        RetryBudget::default().admits(retries, requests)
    }
}

// === impl Named ===

impl Named {
    fn is_current(&self) -> bool {
        if self.hostnames.is_empty() {
            return true;
        }
        let now = Instant::now();
        self.seen.len() == self.hostnames.len() && self.seen.iter().all(|one| one.is_current(now))
    }

    /// The addresses of an endpoint's name, where it has no others.
    fn hops(
        &mut self,
        entry: &ServiceEntry,
        endpoint: &Endpoint,
        around: &Surroundings<'_>,
        port: u16,
    ) -> Vec<Hop> {
        let workload = &endpoint.workload;
        let plain = workload.tunnel_protocol == TunnelProtocol::None;
        let hostname = workload.hostname.as_ref();
        let hostname = hostname.filter(|_| plain && workload.addresses.is_empty());
        let (Some(hostname), Some(port)) = (hostname, entry.target_port(endpoint, port)) else {
            return Vec::new();
        };
        self.hostnames.push(hostname.clone());
        let Some(seen) = around.names.look_at(hostname) else {
            return Vec::new();
        };
        let addresses = seen
            .served
            .clone()
            .and_then(|addresses| around.reachable(hostname, &addresses));
        self.seen.push(seen);
        match addresses {
            Ok(addresses) => addresses
                .into_iter()
                .map(|ip| Hop {
                    workload: workload.clone(),
                    target: SocketAddr::new(ip, port),
                    transport: Transport::Tcp,
                })
                .collect(),
            Err(why) => {
                self.failure = Some(why);
                Vec::new()
            }
        }
    }
}

// === impl Surroundings ===

impl Surroundings<'_> {
    /// Whether an address that an entry gives its endpoint is outside the mesh. A pod's is its own.
    fn admits(&self, hop: &Hop) -> Result<(), Arc<str>> {
        let uid = &hop.workload.uid;
        match hop.transport {
            Transport::Tcp if !uid.is_pod() => {
                let (snapshot, network) = (self.snapshot, &self.own.network);
                match outside(snapshot, network, &uid.0, &[hop.target.ip()]) {
                    Ok(_) => Ok(()),
                    Err(why) => Err(why.to_string().into()),
                }
            }
            Transport::Tcp
            | Transport::Resolve { .. }
            | Transport::Hbone { .. }
            | Transport::DoubleHbone(_) => Ok(()),
        }
    }

    /// Those of a name's addresses that are outside the mesh and of a family that we have.
    fn reachable(
        &self,
        hostname: &Arc<str>,
        addresses: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Arc<str>> {
        let network = &self.own.network;
        let mut outside = outside(self.snapshot, network, hostname, addresses)
            .map_err(|why| Arc::from(why.to_string()))?;
        let own = &self.own.addresses;
        let is_ours = |ip: &IpAddr| own.iter().any(|one| one.is_ipv4() == ip.is_ipv4());
        outside.retain(|ip| own.is_empty() || is_ours(ip));
        match outside.is_empty() {
            false => Ok(outside),
            true => {
                Err(format!("the host {hostname} has no address of the waypoint's family").into())
            }
        }
    }
}

fn hop_of(entry: &ServiceEntry, endpoint: &Endpoint, own: &Workload, port: u16) -> Option<Hop> {
    let workload = &endpoint.workload;
    let port = entry.target_port(endpoint, port)?;
    let admitted = |address: &&IpAddr| entry.service.ip_families.admit(address);
    let first = own.addresses.first();
    let is_v4 = first.is_none_or(|address| address.is_ipv4());
    let addresses = workload.addresses.iter().filter(admitted);
    let address = addresses.min_by_key(|address| address.is_ipv4() != is_v4)?;
    Some(hop(
        workload,
        SocketAddr::new(*address, port),
        endpoint.expected.clone(),
    ))
}

/// A workload at an address of its own.
pub(crate) fn hop(workload: &Arc<Workload>, target: SocketAddr, expected: Arc<[Identity]>) -> Hop {
    let transport = match workload.tunnel_protocol {
        TunnelProtocol::None => Transport::Tcp,
        TunnelProtocol::Hbone => Transport::Hbone {
            address: SocketAddr::new(target.ip(), HBONE_PORT),
            expected,
        },
    };
    Hop {
        workload: workload.clone(),
        target,
        transport,
    }
}

// === impl Loads ===

impl Loads {
    fn cluster(&self, key: &ClusterKey) -> Rc<Load> {
        let mut loads = self.0.borrow_mut();
        let load = loads.entry(key.clone()).or_insert_with(|| {
            Rc::new(Load {
                balancer: RefCell::new(Balancer::new(Algorithm::LeastRequest)),
                requests: Cell::new(0),
                retries: Cell::new(0),
            })
        });
        load.clone()
    }

    /// Forgets services that are gone, once nothing is under way there.
    pub(crate) fn retain(&self, exists: impl Fn(&NamespacedHostname) -> bool) {
        let mut loads = self.0.borrow_mut();
        loads.retain(|key, load| Rc::strong_count(load) > 1 || exists(&key.service));
    }
}

// === impl Active ===

impl Active {
    fn new(load: Rc<Load>, counter: fn(&Load) -> &Cell<u32>) -> Self {
        let cell = counter(&load);
        cell.set(cell.get().saturating_add(1));
        Self { load, counter }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let cell = (self.counter)(&self.load);
        cell.set(cell.get().saturating_sub(1));
    }
}
