//! Where a captured connection goes, and whether an HBONE request may come in.
//!
//! The rules are rows of one table (Istio's ztunnel request flow); the first that applies
//! decides. What can't be resolved is refused, with the reason.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rand::Rng;

use crate::identity::Identity;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::{Workload, WorkloadUid};

/// TCP port of the tunnel's HBONE listener.
pub const HBONE_PORT: u16 = 15008;

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
    /// Nothing may be sent, and why.
    Refuse(Refusal),
}

/// One endpoint and how to reach it.
#[derive(Clone, Debug)]
pub struct Hop {
    pub workload: Arc<Workload>,
    /// Application address on the endpoint: address and target port.
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
}

/// Why an outbound connection is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no healthy upstream: service {0} has no usable endpoint")]
    NoHealthyUpstream(String),
    #[error("service {0} has no port {1}")]
    UnknownPort(String, u16),
    #[error("{0} needs its waypoint {1}, and this node cannot use waypoints")]
    WaypointUnsupported(String, String),
    #[error("workload {0} is in network {1:?} and is reached through a gateway only")]
    RemoteNetwork(WorkloadUid, String),
    #[error("workload {0} has no address")]
    NoAddress(WorkloadUid),
    #[error("destination {0} is one of the tunnel's own ports")]
    OwnPort(SocketAddr),
}

/// Decides an outbound connection of `client` to `destination`, the address the
/// application dialled.
pub fn outbound(
    _snapshot: &Snapshot,
    _client: &Workload,
    _destination: SocketAddr,
    _random: &mut impl Rng,
) -> Outbound {
    Outbound {
        service: None,
        route: Route::Passthrough,
    }
}

/// The authority of an HBONE CONNECT request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    Address(SocketAddr),
    Hostname(Arc<str>, u16),
}

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

/// Decides whether a CONNECT that arrived at `local` (this pod's address) for
/// `authority` may go on to policy.
pub fn inbound(
    _snapshot: &Snapshot,
    _workload: &Workload,
    _local: IpAddr,
    _authority: &Authority,
) -> Result<Inbound, InboundRefusal> {
    Err(InboundRefusal::WrongAddress(String::new()))
}
