//! Someone at a pod's door: the judgement of what they ask for, whichever way they came.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use mesh::address::NetworkAddress;
use mesh::authorization::{Connection, Verdict};
use mesh::destination::{self, Authority, InboundRefusal};
use mesh::identity::Identity;
use mesh::service::Service;
use mesh::snapshot::Snapshot;
use mesh::workload::Workload;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::access_log::{Direction, Party};
use super::connections::{Listed, OpenConnection, Protocol};
use super::pods::Pod;
use super::policy::Admission;
use super::sockets;
use super::telemetry::{Conversation, Failure};
use super::worker::Worker;
use crate::metrics::{ConnectionSecurityPolicy, ResponseFlags};

/// Someone at a pod's door.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) worker: Rc<Worker>,
    pub(crate) pod: Arc<Pod>,
    /// The TCP peer.
    pub(crate) peer: SocketAddr,
    /// The address the peer connected to.
    pub(crate) local: SocketAddr,
    /// Who the peer proved to be; none for plaintext.
    pub(crate) identity: Option<Identity>,
    pub(crate) tls_group: Option<&'static str>,
}

/// Someone let in, with the application's connection made for them.
pub(crate) struct Passage {
    pub(crate) conversation: Conversation,
    pub(crate) application: TcpStream,
    pub(crate) admission: Admission,
    pub(crate) listed: Listed,
}

/// Why someone is not let in. It has been counted and logged.
#[derive(Debug)]
pub(crate) enum Refusal {
    UnknownWorkload,
    Destination(InboundRefusal),
    Policy(Verdict),
    Connect(std::io::Error),
}

// === impl Arrival ===

impl Arrival {
    /// Who arrives, as the destination sees it.
    pub(crate) fn conversation(&self, started: Instant) -> Conversation {
        Conversation {
            direction: Direction::Inbound,
            source: Party {
                address: self.peer,
                workload: self.source_workload(),
                identity: self.identity.clone(),
            },
            destination: Party {
                address: self.local,
                workload: None,
                identity: self.identity.as_ref().map(|_| self.pod.identity.clone()),
            },
            hbone_address: None,
            service: None,
            security: match self.identity {
                Some(_) => ConnectionSecurityPolicy::MutualTls,
                None => ConnectionSecurityPolicy::Unknown,
            },
            tls_group: self.tls_group,
            started,
        }
    }

    /// Judges a request, and connects to the application if it may pass. A refusal is
    /// counted and logged here.
    pub(crate) async fn admit(
        &self,
        authority: &Authority,
        service: Option<&str>,
    ) -> Result<Passage, Refusal> {
        let mut conversation = self.conversation(Instant::now());
        let admitted = Box::pin(self.judge(&mut conversation, authority, service)).await;
        if let Err(refusal) = &admitted {
            conversation.fail(&self.worker, &refusal.as_seen_by_server());
        }
        let (application, admission) = admitted?;
        let connection = OpenConnection {
            src: self.peer,
            original_dst: conversation.hbone_address,
            actual_dst: conversation.destination.address,
            protocol: Protocol::Hbone,
        };
        let connections = &self.worker.shared.connections;
        Ok(Passage {
            listed: connections.list(&self.pod.uid, Direction::Inbound, connection),
            conversation,
            application,
            admission,
        })
    }

    async fn judge(
        &self,
        conversation: &mut Conversation,
        authority: &Authority,
        service: Option<&str>,
    ) -> Result<(TcpStream, Admission), Refusal> {
        let workload = self.worker.workload(&self.pod).await;
        let workload = workload.ok_or(Refusal::UnknownWorkload)?;
        conversation.destination.workload = Some(workload.clone());
        let snapshot = self.worker.shared.state.snapshot();
        let inbound = destination::inbound(&snapshot, &workload, self.local.ip(), authority)
            .map_err(Refusal::Destination)?;
        let application = inbound.application;
        conversation.destination.address = application;
        conversation.service = reported_service(&snapshot, &workload, service, application.port());
        if let Authority::Address(address) = authority {
            conversation.hbone_address = Some(*address);
        }
        let admission = self
            .worker
            .policies
            .admit(&snapshot, &workload, self.connection(application))
            .map_err(Refusal::Policy)?;
        let tcp = self.connect(application).await.map_err(Refusal::Connect)?;
        Ok((tcp, admission))
    }

    pub(crate) fn connection(&self, destination: SocketAddr) -> Connection {
        Connection {
            source_identity: self.identity.clone(),
            source_ip: self.peer.ip(),
            destination,
        }
    }

    /// Connects to the application as if the client did.
    pub(crate) async fn connect(&self, application: SocketAddr) -> std::io::Result<TcpStream> {
        let config = &self.worker.shared.config;
        let netns = self.pod.netns.as_deref();
        sockets::connect(netns, application, Some(self.peer.ip()), config).await
    }

    /// The workload at the peer's address, unless the peer has proved to be another.
    pub(crate) fn source_workload(&self) -> Option<Arc<Workload>> {
        let shared = &self.worker.shared;
        let address = NetworkAddress::new(shared.config.network.clone(), self.peer.ip());
        let snapshot = shared.state.load();
        let workload = snapshot.workload_at(&address)?;
        let is_peer = match &self.identity {
            Some(identity) => workload.identity() == *identity,
            None => true,
        };
        is_peer.then(|| workload.clone())
    }
}

/// The service a request is reported under: the one the client names, if the workload
/// backs it; else the first that the workload backs on this port.
pub(crate) fn reported_service(
    snapshot: &Snapshot,
    workload: &Workload,
    named: Option<&str>,
    port: u16,
) -> Option<Arc<Service>> {
    let by_name = workload
        .services
        .keys()
        .find(|key| named.is_some_and(|named| *key.hostname == *named));
    let key = by_name.or_else(|| {
        workload
            .services
            .iter()
            .find(|(_, ports)| ports.iter().any(|known| known.target_port == port))
            .map(|(key, _)| key)
    })?;
    Some(snapshot.service(key)?.service.clone())
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Policy(_) => StatusCode::UNAUTHORIZED,
            Self::Destination(InboundRefusal::WrongAddress(_)) => StatusCode::BAD_REQUEST,
            Self::Destination(InboundRefusal::UnknownHost(_) | InboundRefusal::OwnPort(_))
            | Self::UnknownWorkload
            | Self::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How the destination counts and logs it.
    fn as_seen_by_server(&self) -> Failure {
        match self {
            Self::UnknownWorkload => {
                Failure::new(ResponseFlags::Connect, "the pod is not known to the mesh")
            }
            Self::Destination(refusal) => Failure::new(ResponseFlags::Connect, refusal),
            Self::Policy(verdict) => Failure::denied(verdict),
            Self::Connect(error) => Failure::connect(error),
        }
    }

    /// How the client's node counts and logs it: by the status it would have got.
    pub(crate) fn as_seen_by_client(&self) -> Failure {
        let error = hbone::client::OpenError::Status(self.status());
        Failure::of_open(&error)
    }
}
