//! Connections that a pod's application opens (port 15001).
//!
//! - [`attempts`]: which endpoint they go to, and where next when it does not work.
//! - `network_gateway`: those into another network.

pub(crate) mod attempts;

mod network_gateway;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hbone::client::{self, ConnectError, ConnectRequest, OpenError};
use hbone::copy::{self, Side};
use hbone::headers::{self, TraceParent};
use hbone::pool::{Key, Opened};
use http::HeaderMap;
use mesh::address::NetworkAddress;
use mesh::balancing::ActiveConnection;
use mesh::destination::{Hop, Hops, Outbound, Refusal, Route};
use mesh::identity::Identity;
use mesh::service::Service;
use mesh::workload::{Workload, WorkloadUid};
use tokio::time::Instant;

use self::attempts::{Fault, HopFailure};
use super::access_log::{Direction, Party};
use super::caller::Caller;
use super::connections::{OpenConnection, Protocol};
use super::on_demand;
use super::pods::Pod;
use super::sockets::{self, Role};
use super::telemetry::{Conversation, Failure};
use super::worker::{Accepted, Worker};
use crate::metrics::{ConnectionSecurityPolicy, ResponseFlags};

/// One outbound connection whose client is known.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) caller: Caller,
    pub(crate) workload: Arc<Workload>,
    pub(crate) original: SocketAddr,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) started: Instant,
    /// The endpoints to try, until one is reached: nothing of what chose it stays with an
    /// established connection.
    hops: Option<Box<Hops>>,
    /// Where its service counts connections.
    _active: Option<Box<ActiveConnection>>,
}

pub(crate) fn serve(worker: Rc<Worker>, accepted: Accepted) -> impl Future<Output = ()> {
    serve_to(worker, Caller::new(accepted), None, Instant::now())
}

/// Serves a connection to the address that the application named; none where it has dialled it.
pub(crate) async fn serve_to(
    worker: Rc<Worker>,
    caller: Caller,
    named: Option<SocketAddr>,
    started: Instant,
) {
    let dialled = || sockets::original_destination(&caller.tcp).ok();
    let Some(original) = named.or_else(dialled) else {
        return;
    };
    if sockets::is_own_port(original, &caller.tcp, None, &worker.shared.config) {
        return Box::pin(turn_away(
            worker,
            caller,
            original,
            started,
            itself(original),
        ))
        .await;
    }
    let Some(workload) = worker.workload(&caller.pod).await else {
        let failure = Failure::new(ResponseFlags::None, "the pod is not known to the mesh");
        return Box::pin(turn_away(worker, caller, original, started, failure)).await;
    };
    if sockets::is_own_port(
        original,
        &caller.tcp,
        Some(&workload),
        &worker.shared.config,
    ) {
        return Box::pin(turn_away(
            worker,
            caller,
            original,
            started,
            itself(original),
        ))
        .await;
    }
    let mut client = Client {
        worker,
        caller,
        workload,
        original,
        service: None,
        started,
        hops: None,
        _active: None,
    };
    let shared = &client.worker.shared;
    let address = NetworkAddress::new(client.workload.network.clone(), original.ip());
    let fetched = on_demand::fetch(
        shared.on_demand.as_ref(),
        &shared.state,
        &client.workload,
        &address,
    );
    if let Err(error) = fetched.await {
        return Box::pin(client.refuse(error.to_string())).await;
    }
    let mut decision = client.decide();
    if matches!(decision.route, Route::Unknown) && client.worker.is_of_cluster(original.ip()) {
        Box::pin(client.worker.await_owner(&client.workload, &address)).await;
        decision = client.decide();
        if matches!(decision.route, Route::Unknown) {
            decision.route = Route::Refuse(Refusal::Unknown(original.ip()));
        }
    }
    client.service = decision.service;
    match decision.route {
        Route::Passthrough | Route::Unknown => Box::pin(client.passthrough()).await,
        Route::Endpoints(hops) => {
            client.hops = Some(Box::new(hops));
            Box::pin(client.endpoints()).await;
        }
        Route::Refuse(refusal) => Box::pin(client.refuse(refusal.to_string())).await,
    }
}

fn itself(original: SocketAddr) -> Failure {
    let reason = format_args!("{original} is the tunnel itself");
    Failure::new(ResponseFlags::Deny, reason)
}

/// Closes a connection before it is known whose it is.
async fn turn_away(
    worker: Rc<Worker>,
    mut caller: Caller,
    original: SocketAddr,
    started: Instant,
    failure: Failure,
) {
    let unknown = Conversation::outbound(&caller, None, original, None, started);
    caller.give_up(&failure).await;
    unknown.reject(&worker, failure.reason);
}

// === impl Conversation ===

impl Conversation {
    fn outbound(
        accepted: &Accepted,
        source: Option<Arc<Workload>>,
        destination: SocketAddr,
        service: Option<Arc<Service>>,
        started: Instant,
    ) -> Self {
        Self {
            direction: Direction::Outbound,
            source: Party {
                address: accepted.peer,
                workload: source,
                identity: None,
            },
            destination: Party {
                address: destination,
                workload: None,
                identity: None,
            },
            hbone_address: None,
            service,
            security: ConnectionSecurityPolicy::Unknown,
            tls_group: None,
            dry_run: None,
            trace: None,
            started,
        }
    }
}

// === impl Client ===

impl Client {
    fn decide(&self) -> Outbound {
        let worker = &self.worker;
        let snapshot = worker.shared.state.load();
        let plan = worker
            .plans
            .outbound(&snapshot, &self.workload, self.original);
        let ejections = worker.shared.ejections.load();
        plan.draw(worker.observed(&ejections), &mut rand::rng())
    }

    /// As far as it is known before any endpoint has answered.
    pub(crate) fn conversation(
        &self,
        destination: Option<&Arc<Workload>>,
        address: SocketAddr,
    ) -> Conversation {
        let mut conversation = Conversation::outbound(
            &self.caller,
            Some(self.workload.clone()),
            address,
            self.service.clone(),
            self.started,
        );
        conversation.destination.workload = destination.cloned();
        conversation
    }

    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.caller.pod
    }

    /// Who the application is.
    pub(crate) fn identity(&self) -> Identity {
        self.pod().identity(&self.workload)
    }

    /// Gives up before any endpoint has been tried.
    async fn refuse(mut self, reason: String) {
        let conversation = self.conversation(None, self.original);
        let failure = Failure::new(ResponseFlags::Connect, reason);
        self.give_up(&conversation, &failure).await;
    }

    async fn passthrough(mut self) {
        let target = self.original;
        if let Err(failed) = Box::pin(self.tcp(None, target)).await {
            Box::pin(self.give_up(&failed.conversation, &failed.failure)).await;
        }
    }

    async fn give_up(&mut self, conversation: &Conversation, failure: &Failure) {
        conversation.fail(&self.worker, failure);
        self.caller.give_up(failure).await;
    }

    async fn tcp(
        &mut self,
        destination: Option<&Arc<Workload>>,
        target: SocketAddr,
    ) -> Result<(), HopFailure> {
        let conversation = self.conversation(destination, target);
        let config = &self.worker.shared.config;
        let netns = self.caller.pod.netns.as_deref();
        let patience = destination.and_then(|_| self.patience());
        let within = patience.unwrap_or(config.connect_timeout);
        let role = Role::Application(None);
        let connecting = Box::pin(sockets::connect(netns, target, role, within, config));
        let mut server = match connecting.await {
            Ok(server) => server,
            Err(error) => {
                let is_silence = patience.is_some() && error.kind() == io::ErrorKind::TimedOut;
                return Err(HopFailure {
                    failure: Failure::connect(&error),
                    conversation,
                    fault: match is_silence {
                        true => Fault::Silent,
                        false => Fault::of_connect(&error),
                    },
                });
            }
        };
        if let Some(workload) = destination {
            self.established(workload);
        }
        let half_closed = self.worker.shared.config.half_closed_timeout;
        self.caller.reached().await;
        let tracked = conversation.open(&self.worker);
        let _listed = self.list(target, Protocol::Tcp);
        let result = copy::sockets(&mut self.caller.tcp, &mut server, half_closed, &tracked).await;
        tracked.finish(Failure::of_copy(result));
        Ok(())
    }

    async fn hbone(
        &mut self,
        hop: &Hop,
        address: &SocketAddr,
        expected: &Arc<[Identity]>,
    ) -> Result<(), HopFailure> {
        // What only the setup needs does not stay with the connection.
        let (mut stream, tracked) = {
            let mut conversation = self.mutual(hop, *address);
            let trace = TraceParent::random(&mut rand::rng());
            conversation.trace = Some(trace.trace_id());
            let request = ConnectRequest::to(hop.target, self.headers(trace));
            let asks_for_itself = hop.target.ip() == address.ip();
            let workload = Some(&hop.workload.uid);
            let opening = self.open_tunnel(workload, *address, expected, request, asks_for_itself);
            let opened = match Box::pin(opening).await {
                Ok(opened) => opened,
                Err((failure, fault)) => {
                    return Err(HopFailure {
                        conversation,
                        failure,
                        fault,
                    });
                }
            };
            self.established(&hop.workload);
            conversation.tls_group = Some(opened.key_exchange);
            self.caller.reached().await;
            (opened.stream, conversation.open(&self.worker))
        };
        let _listed = self.list(hop.target, Protocol::Hbone);
        let half_closed = self.worker.shared.config.half_closed_timeout;
        let tcp = &mut self.caller.tcp;
        let result = copy::tunnel(tcp, &mut stream, Side::Client, half_closed, &tracked).await;
        tracked.finish(Failure::of_tunnel(stream.cut(), result));
        Ok(())
    }

    /// The conversation with an endpoint of the mesh, over mutual TLS or as good as it.
    pub(crate) fn mutual(&self, hop: &Hop, address: SocketAddr) -> Conversation {
        let mut conversation = self.conversation(Some(&hop.workload), address);
        conversation.hbone_address = Some(hop.target.into());
        conversation.security = ConnectionSecurityPolicy::MutualTls;
        conversation.source.identity = Some(self.identity());
        conversation.destination.identity = Some(hop.workload.identity());
        conversation
    }

    async fn open_tunnel(
        &self,
        workload: Option<&WorkloadUid>,
        address: SocketAddr,
        expected: &Arc<[Identity]>,
        request: ConnectRequest,
        asks_for_itself: bool,
    ) -> Result<Opened, (Failure, Fault)> {
        let (pod, identity) = (self.pod(), self.identity());
        let certificate = self.worker.certificate(&identity).await.map_err(|reason| {
            (
                Failure::new(ResponseFlags::TlsFailure, reason),
                Fault::Final,
            )
        })?;
        let tls = certificate.client_config(expected);
        let key = Key {
            source: identity,
            pod: pod.uid.clone(),
            expected: expected.clone(),
            workload: workload.cloned(),
            destination: address,
        };
        let connect = || {
            let (worker, pod, tls) = (self.worker.clone(), pod.clone(), tls.clone());
            let certificate = certificate.clone();
            async move {
                let config = &worker.shared.config;
                let (netns, within) = (pod.netns.as_deref(), config.connect_timeout);
                let tcp = sockets::connect(netns, address, Role::Tunnel, within, config)
                    .await
                    .map_err(|error| match error.kind() {
                        io::ErrorKind::TimedOut => ConnectError::TcpTimeout(address),
                        _ => ConnectError::Tcp(address, Arc::new(error)),
                    })?;
                let shaken = client::handshake(tcp, tls, &config.tunnel).await;
                if matches!(shaken, Err(ConnectError::Revoked)) {
                    worker.count_revocation(Direction::Outbound);
                }
                let tunnel = shaken?;
                worker.count_handshake(tunnel.key_exchange(), Direction::Outbound);
                worker.cut_when_revoked(&certificate, &tunnel);
                Ok(tunnel)
            }
        };
        let pool = &self.worker.pool;
        let opening = pool.open(&key, &tls, connect, request, self.patience());
        opening.await.map_err(|error| {
            let fault = match error {
                OpenError::NoSign(_) => self.silence(),
                _ => Fault::of_open(&error, asks_for_itself),
            };
            (Failure::of_open(&error), fault)
        })
    }

    fn headers(&self, trace: TraceParent) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(3);
        let service = self.service.as_ref().map(|service| &*service.hostname);
        let values = [
            (headers::BAGGAGE, self.worker.plans.baggage(&self.workload)),
            (
                headers::FORWARDED,
                headers::forwarded(self.caller.peer, service),
            ),
            (headers::TRACEPARENT, trace.header()),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        headers
    }

    pub(crate) fn list(
        &self,
        actual: SocketAddr,
        protocol: Protocol,
    ) -> super::connections::Listed {
        let connection = OpenConnection {
            src: self.caller.peer,
            original_dst: Some(self.original.into()),
            actual_dst: actual,
            protocol,
        };
        let connections = &self.worker.shared.connections;
        connections.list(&self.pod().uid, Direction::Outbound, connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// The allocator's next size is 2,560 bytes.
    #[test]
    fn a_connection_into_a_tunnel_stays_small() {
        let size = future_size(Client::hbone);
        assert!(size <= 2048, "{size} bytes");
    }
}
