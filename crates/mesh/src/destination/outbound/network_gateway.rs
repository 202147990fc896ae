//! Endpoints in another network are reached through its gateway: HBONE to the gateway, and in it
//! HBONE to the far side, which the gateway passes on as it is. Both ask for the service by name,
//! since addresses of that network mean nothing here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use super::{Hop, Plan, Refusal, Transport};
use crate::address::{GatewayAddress, GatewayDestination};
use crate::balancing::{self, Candidates, Observed, ServicePort};
use crate::destination::Authority;
use crate::identity::Identity;
use crate::service::Service;
use crate::snapshot::{Endpoint, ServiceEntry, Snapshot};
use crate::workload::Workload;

/// The way into another network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The gateway's workload.
    pub gateway: Arc<Workload>,
    /// What it is one of, where the gateway is a service.
    pub proxies: Option<Proxies>,
    /// Whether the endpoint has been tried by way of all the others.
    pub is_last: bool,
    /// Its HBONE listener.
    pub address: SocketAddr,
    /// Who may answer there.
    pub gateway_expected: Arc<[Identity]>,
    /// What both CONNECTs are for.
    pub authority: Authority,
    /// Who may answer behind the gateway: only whom the service vouches for. The endpoint stands
    /// for workloads that are not known here.
    pub expected: Arc<[Identity]>,
}

/// The proxies of a gateway that is a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxies {
    destination: ServicePort,
    count: usize,
}

/// One proxy of a gateway, drawn.
pub(super) struct Proxy {
    /// Its place among the gateway's.
    pub(super) at: usize,
    /// Whether there is no other that qualifies.
    pub(super) is_last: bool,
    workload: Arc<Workload>,
    /// Its listener.
    address: SocketAddr,
    /// Who may answer there.
    expected: Arc<[Identity]>,
    proxies: Option<Proxies>,
}

/// The gateways that endpoints of a service name, looked up when the plan is made.
#[derive(Debug)]
pub(super) struct NetworkGateways {
    found: Vec<(GatewayAddress, Found)>,
    /// Whom the service names to answer for its endpoints; looked up where there are gateways.
    vouched: Arc<[Identity]>,
}

#[derive(Debug)]
enum Found {
    Workload(Arc<Workload>, IpAddr, Arc<[Identity]>),
    Service(Arc<ServiceEntry>, ServicePort),
    Nothing,
}

// === impl Proxies ===

impl Proxies {
    pub fn candidates(&self) -> Candidates<'_> {
        Candidates {
            destination: &self.destination,
            count: self.count,
        }
    }
}

// === impl NetworkGateways ===

impl NetworkGateways {
    pub(super) fn of(snapshot: &Snapshot, entry: &ServiceEntry) -> Self {
        let named = entry.endpoints.network_gateways();
        let names: &[Arc<str>] = match named.is_empty() {
            true => &[],
            false => &entry.service.subject_alt_names,
        };
        Self {
            found: named
                .into_iter()
                .map(|gateway| (gateway.clone(), find(snapshot, gateway)))
                .collect(),
            // A name of another shape is no workload's and can't be presented.
            vouched: names.iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// One of the gateway's proxies that qualify, rather one that is not ejected.
    pub(super) fn draw(
        &self,
        gateway: &GatewayAddress,
        qualifies: impl Fn(usize) -> bool,
        observed: Observed<'_>,
        random: &mut impl Rng,
    ) -> Option<Proxy> {
        let port = gateway.hbone_mtls_port;
        let (_, found) = self.found.iter().find(|(known, _)| known == gateway)?;
        match found {
            Found::Workload(workload, address, expected) => qualifies(0).then(|| Proxy {
                at: 0,
                is_last: true,
                workload: workload.clone(),
                address: SocketAddr::new(*address, port),
                expected: expected.clone(),
                proxies: None,
            }),
            Found::Service(entry, destination) => {
                let failing = observed.ejections.and_then(|known| known.of(destination));
                let is_ejected = |at: usize| {
                    let workload = &entry.endpoints[at].workload;
                    failing.is_some_and(|failing| failing.is_ejected(workload, observed.now))
                };
                let healthy = |at: usize| qualifies(at) && !is_ejected(at);
                let at = balancing::gateway(entry, healthy, random)
                    .or_else(|| balancing::gateway(entry, &qualifies, random))?;
                let another = |other: usize| other != at && qualifies(other);
                let endpoint = &entry.endpoints[at];
                let workload = &endpoint.workload;
                let port = balancing::endpoint_port(entry, endpoint, port).unwrap_or(port);
                Some(Proxy {
                    at,
                    is_last: balancing::gateway(entry, another, random).is_none(),
                    workload: workload.clone(),
                    address: SocketAddr::new(*workload.addresses.first()?, port),
                    expected: endpoint.expected.clone(),
                    proxies: Some(Proxies {
                        destination: destination.clone(),
                        count: entry.endpoints.len(),
                    }),
                })
            }
            Found::Nothing => None,
        }
    }
}

/// A gateway has an address of its own network, or a service's name. What nobody in the mesh
/// has is no gateway: it is not known who may answer there.
fn find(snapshot: &Snapshot, gateway: &GatewayAddress) -> Found {
    let service = match &gateway.destination {
        GatewayDestination::Hostname(key) => snapshot.service(key),
        GatewayDestination::Address(address) => {
            if let Some(workload) = snapshot.workload_at(address) {
                let expected = Arc::new([workload.identity()]);
                return Found::Workload(workload.clone(), address.address, expected);
            }
            snapshot.service_at(address, "")
        }
    };
    service.map_or(Found::Nothing, |entry| {
        let destination = ServicePort {
            service: entry.service.key(),
            port: gateway.hbone_mtls_port,
        };
        Found::Service(entry.clone(), destination)
    })
}

// === impl Plan ===

impl Plan {
    /// The hop to an endpoint in another network, by a proxy that is drawn of the gateway it names.
    /// `entry` is the service that the endpoint backs: the one that was asked for, or its waypoint.
    pub(super) fn crossing(
        &self,
        entry: &ServiceEntry,
        gateways: &NetworkGateways,
        endpoint: &Endpoint,
        draw: impl FnOnce(&GatewayAddress) -> Option<Proxy>,
    ) -> Option<Hop> {
        let (asked, named) = self.may_cross(entry, gateways, endpoint).ok()?;
        let proxy = draw(named)?;
        let crossing = Crossing {
            gateway: proxy.workload,
            proxies: proxy.proxies,
            is_last: proxy.is_last,
            address: proxy.address,
            gateway_expected: proxy.expected,
            authority: Authority::Hostname(asked.hostname.clone(), self.destination.port()),
            expected: gateways.vouched.clone(),
        };
        Some(Hop {
            workload: endpoint.workload.clone(),
            target: self.destination,
            transport: Transport::DoubleHbone(Box::new(crossing)),
        })
    }

    /// Why there is no hop to an endpoint in another network.
    pub(super) fn why_not_crossed(
        &self,
        entry: &ServiceEntry,
        gateways: &NetworkGateways,
        endpoint: &Endpoint,
    ) -> Refusal {
        match self.may_cross(entry, gateways, endpoint) {
            Err(refusal) => refusal,
            Ok((_, named)) => {
                let network = endpoint.workload.network.to_string();
                Refusal::UnknownNetworkGateway(network, named.to_string())
            }
        }
    }

    /// What is asked for in the other network, and the gateway that the endpoint names.
    fn may_cross<'a>(
        &'a self,
        entry: &ServiceEntry,
        gateways: &NetworkGateways,
        endpoint: &'a Endpoint,
    ) -> Result<(&'a Service, &'a GatewayAddress), Refusal> {
        let workload = &endpoint.workload;
        let network = || workload.network.to_string();
        let asked = self.service.as_deref();
        let asked =
            asked.ok_or_else(|| Refusal::NotAService(self.destination.to_string(), network()))?;
        let named = workload.network_gateway.as_ref();
        let named =
            named.ok_or_else(|| Refusal::NoNetworkGateway(workload.uid.clone(), network()))?;
        match gateways.vouched.is_empty() {
            true => {
                let service = entry.service.key().to_string();
                Err(Refusal::NobodyVouchedFor(service, network()))
            }
            false => Ok((asked, named)),
        }
    }
}
