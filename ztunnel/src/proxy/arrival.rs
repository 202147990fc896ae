//! Someone at a pod's door: the judgement of what they ask for, whichever way they came.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use hbone::headers::{self, TraceId, TraceParent};
use hbone::stream::Cut;
use http::{HeaderMap, StatusCode};
use identity::VerifiedClient;
use mesh::address::NetworkAddress;
use mesh::authorization::{Connection, Verdict};
use mesh::destination::{self, Authority, InboundRefusal};
use mesh::identity::Identity;
use mesh::service::Service;
use mesh::snapshot::Snapshot;
use mesh::workload::{ApplicationProtocol, Workload};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::access_log::{Direction, Party};
use super::connections::{Listed, OpenConnection, Protocol};
use super::on_demand::{NotKnown, OnDemand};
use super::pods::{Pod, Served};
use super::policy::Admission;
use super::proxy_protocol::{self, TooLong};
use super::sockets::{self, Role};
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
    /// Who the pod proved to be to the peer; none for plaintext.
    pub(crate) own: Option<Rc<Identity>>,
    pub(crate) tls_group: Option<&'static str>,
    /// Why the peer's tunnel was cut, and with it all that the peer has open, where it was.
    pub(crate) cut: Rc<Cell<Option<Cut>>>,
    /// The client's workload, as far as it is known.
    pub(crate) source: Option<Arc<Workload>>,
    /// As the client's tunnel has it.
    pub(crate) trace: Option<TraceId>,
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
    NotKnown(NotKnown),
    Destination(InboundRefusal),
    /// The pod is this process, and the port not one of its own.
    ForeignPort(u16),
    Policy(Verdict),
    Connect(std::io::Error),
    /// The application wants to be told whom it serves, and can't be.
    Header(TooLong),
    /// The application wants to be told which address was asked for, and there is none.
    NoAddress(Arc<str>),
}

// === impl Arrival ===

impl Arrival {
    /// Takes what a request says of its sender. All of it is for telemetry.
    pub(crate) fn hear(&mut self, headers: &HeaderMap) {
        self.trace = TraceParent::parse(headers).map(|parent| parent.trace_id());
        let config = &self.worker.shared.config;
        let network = headers.get(headers::FORWARDED_NETWORK);
        // The address is then that of a gateway, which passes on what comes from its clients.
        let elsewhere = network.is_some_and(|from| from.as_bytes() != config.network.as_bytes());
        self.source = (!elsewhere).then(|| self.workload_at_peer()).flatten();
        if self.source.is_none()
            && config.response_baggage
            && let Some(identity) = &self.identity
        {
            self.source = self.worker.described.workload(identity, headers);
        }
    }

    /// Has all that is open with the peer end for this reason once its connection is dropped.
    pub(crate) fn cut_by(&self, cut: Cut) {
        tracing::info!(peer = %self.peer, "tunnel cut: {cut}");
        self.cut.set(Some(cut));
    }

    /// Whether the peer's handshake would succeed now too, or why not.
    pub(crate) fn verify_again(&self, client: &mut VerifiedClient) -> Result<(), String> {
        let certificates = &self.worker.shared.certificates;
        let own = self.own.as_ref().and_then(|own| certificates.cached(own));
        let own = own.ok_or_else(|| "the pod has no certificate now".to_owned())?;
        let verified = client.verify_again(&own, SystemTime::now());
        verified.map_err(|error| format!("the client would not be let in any more: {error}"))
    }

    /// Who arrives, as the destination sees it.
    pub(crate) fn conversation(&self, started: Instant) -> Conversation {
        Conversation {
            direction: Direction::Inbound,
            source: Party {
                address: self.peer,
                workload: self.source.clone(),
                identity: self.identity.clone(),
            },
            destination: Party {
                address: self.local,
                workload: None,
                identity: self.own.as_deref().cloned(),
            },
            hbone_address: None,
            service: None,
            security: match self.identity {
                Some(_) => ConnectionSecurityPolicy::MutualTls,
                None => ConnectionSecurityPolicy::Unknown,
            },
            tls_group: self.tls_group,
            dry_run: None,
            trace: self.trace,
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
            original_dst: conversation.hbone_address.clone(),
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
        let mut workload = workload.ok_or(Refusal::UnknownWorkload)?;
        conversation.destination.workload = Some(workload.clone());
        let shared = &self.worker.shared;
        if let Some(on_demand) = &shared.on_demand {
            let fetched = Box::pin(self.fetch(on_demand, &workload, authority)).await;
            fetched.map_err(Refusal::NotKnown)?;
            // It may have changed meanwhile, and with it its policies.
            let current = self.pod.workload(&shared.state.load(), &shared.config);
            workload = current.ok_or(Refusal::UnknownWorkload)?;
        }
        let snapshot = shared.state.snapshot();
        let inbound = destination::inbound(&snapshot, &workload, self.local.ip(), authority)
            .map_err(Refusal::Destination)?;
        let application = inbound.application;
        if shared.config.is_own_port(application.port()) {
            let refusal = InboundRefusal::OwnPort(application.port());
            return Err(Refusal::Destination(refusal));
        }
        if !self.pod.serves(application.port()) {
            return Err(Refusal::ForeignPort(application.port()));
        }
        conversation.destination.address = application;
        conversation.service = reported_service(&snapshot, &workload, service, application.port());
        conversation.hbone_address = Some(authority.clone());
        let mut admission = self
            .worker
            .policies
            .admit(&snapshot, &workload, self.connection(application))
            .map_err(Refusal::Policy)?;
        conversation.dry_run = admission.dry_run.take();
        let tcp = if takes_proxy_protocol(&workload) {
            let asked = asked_for(&snapshot, &workload, authority)?;
            let header = proxy_protocol::header(self.peer, asked, self.identity.as_ref());
            let header = header.map_err(Refusal::Header)?;
            self.connect_with(application, &header).await
        } else {
            self.connect(application).await
        };
        Ok((tcp.map_err(Refusal::Connect)?, admission))
    }

    /// Fetches what is needed to judge a request, where the mesh is known on demand.
    async fn fetch(
        &self,
        on_demand: &OnDemand,
        workload: &Workload,
        authority: &Authority,
    ) -> Result<(), NotKnown> {
        let state = &self.worker.shared.state;
        match authority {
            Authority::Hostname(host, _) => on_demand.fetch_backed(state, workload, host).await,
            // Nobody without an identity fills what is remembered.
            Authority::Address(asked)
                if self.identity.is_some() && asked.ip() != self.local.ip() =>
            {
                on_demand.fetch_behind(state, workload, asked.ip()).await
            }
            Authority::Address(_) => Ok(()),
        }
    }

    pub(crate) fn connection(&self, destination: SocketAddr) -> Connection {
        Connection::new(self.identity.clone(), self.peer.ip(), destination)
    }

    /// Connects to the application as if the client did.
    pub(crate) async fn connect(&self, application: SocketAddr) -> std::io::Result<TcpStream> {
        let config = &self.worker.shared.config;
        let netns = self.pod.netns.as_deref();
        let source = match self.pod.served {
            Served::Everything => Some(self.peer.ip()),
            // Nothing would bring the answers back from where nothing is captured.
            Served::Ports(_) => None,
        };
        let (role, within) = (Role::Application(source), config.connect_timeout);
        sockets::connect(netns, application, role, within, config).await
    }

    /// Connects to an application that is told by a header who the client is.
    async fn connect_with(
        &self,
        application: SocketAddr,
        header: &[u8],
    ) -> std::io::Result<TcpStream> {
        let config = &self.worker.shared.config;
        let netns = self.pod.netns.as_deref();
        let (target, source) = match (config.localhost_app_tunnel, application.ip()) {
            (false, _) => (application.ip(), Some(self.peer.ip())),
            (true, IpAddr::V4(_)) => (Ipv4Addr::LOCALHOST.into(), None),
            (true, IpAddr::V6(_)) => (Ipv6Addr::LOCALHOST.into(), None),
        };
        let target = SocketAddr::new(target, application.port());
        let (role, within) = (Role::Application(source), config.connect_timeout);
        let mut tcp = sockets::connect(netns, target, role, within, config).await?;
        proxy_protocol::send(&mut tcp, header, config).await?;
        Ok(tcp)
    }

    /// The workload at the peer's address, unless the peer has proved to be another.
    pub(crate) fn workload_at_peer(&self) -> Option<Arc<Workload>> {
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

/// Whether the workload's applications expect the PROXY header before their bytes.
fn takes_proxy_protocol(workload: &Workload) -> bool {
    let tunnel = workload.application_tunnel.as_ref();
    tunnel.is_some_and(|tunnel| tunnel.protocol == ApplicationProtocol::Proxy)
}

/// Whether bytes from the network must not reach this port as they are: whoever could write
/// there could claim any identity in a header of their own.
pub(crate) fn is_behind_header(workload: &Workload, port: u16) -> bool {
    let tunnel = workload.application_tunnel.as_ref();
    takes_proxy_protocol(workload)
        && tunnel.is_some_and(|tunnel| tunnel.port.is_none_or(|own| own == port))
}

/// What the client asked for, as an address: for a name its service's, of the own network and
/// IPv4 first.
fn asked_for(
    snapshot: &Snapshot,
    workload: &Workload,
    authority: &Authority,
) -> Result<SocketAddr, Refusal> {
    let (host, port) = match authority {
        Authority::Address(address) => return Ok(*address),
        Authority::Hostname(host, port) => (host, *port),
    };
    let entry = snapshot.service_named(host, &workload.namespace);
    let addresses = entry.map(|entry| &entry.service.addresses[..]);
    let addresses = addresses.unwrap_or_default().iter();
    let preferred = addresses.min_by_key(|address| {
        let elsewhere = address.network != workload.network;
        (elsewhere, address.address.is_ipv6())
    });
    match preferred {
        Some(address) => Ok(SocketAddr::new(address.address, port)),
        None => Err(Refusal::NoAddress(host.clone())),
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
            | Self::ForeignPort(_)
            | Self::UnknownWorkload
            | Self::NotKnown(_)
            | Self::Header(_)
            | Self::NoAddress(_)
            | Self::Connect(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// How the destination counts and logs it.
    fn as_seen_by_server(&self) -> Failure {
        match self {
            Self::UnknownWorkload => {
                Failure::new(ResponseFlags::Connect, "the pod is not known to the mesh")
            }
            Self::NotKnown(reason) => Failure::new(ResponseFlags::Connect, reason),
            Self::Destination(refusal) => Failure::new(ResponseFlags::Connect, refusal),
            Self::ForeignPort(port) => Failure::new(
                ResponseFlags::Connect,
                format_args!("port {port} is not the ztunnel's own"),
            ),
            Self::Policy(verdict) => Failure::denied(verdict),
            Self::Connect(error) => Failure::connect(error),
            Self::Header(error) => Failure::new(ResponseFlags::Connect, error),
            Self::NoAddress(host) => Failure::new(
                ResponseFlags::Connect,
                format_args!("the application wants an address, and {host} has none"),
            ),
        }
    }

    /// How the client's node counts and logs it: by the status it would have got.
    pub(crate) fn as_seen_by_client(&self) -> Failure {
        let error = hbone::client::OpenError::Status(self.status());
        Failure::of_open(&error)
    }
}
