//! Tunnels that arrive at a pod (port 15008).

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::OptionFuture;
use hbone::copy::{self, Side};
use hbone::headers;
use hbone::server::{self, AcceptError, Request};
use hbone::stream::{Cut, Stream};
use http::{Method, StatusCode};
use identity::VerifiedClient;
use mesh::destination::Authority;
use mesh::identity::Identity;
use runtime::memory::{self, Pressure};
use runtime::tasks::spawn_local;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::access_log::Direction;
use super::arrival::{Arrival, Passage};
use super::connections::Listed;
use super::policy::Admission;
use super::sockets;
use super::telemetry::{Failure, Tracked};
use super::worker::{Accepted, Worker};
use crate::metrics::shortages::{self, Wanted};
use crate::metrics::{Reporter, ResponseFlags};

pub(crate) async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let started = Instant::now();
    let Ok(local) = accepted.tcp.local_addr().map(sockets::canonical) else {
        return;
    };
    sockets::accepted_tunnel(&accepted.tcp, &worker.shared.config);
    let Accepted {
        tcp,
        peer,
        pod,
        mut drain,
        _socket,
    } = accepted;
    let mut arrival = Arrival {
        worker: worker.clone(),
        pod,
        peer,
        local,
        identity: None,
        own: None,
        tls_group: None,
        cut: Rc::default(),
        source: None,
        trace: None,
    };
    arrival.source = arrival.workload_at_peer();
    let tunnels = &worker.shared.tunnels;
    let Some(handshake) = tunnels.shake(&arrival.pod.uid, peer.ip()) else {
        let reason = format!("{} has too many handshakes with this pod", peer.ip());
        return arrival.conversation(started).reject(&worker, reason);
    };
    let Some(own) = worker.identity(&arrival.pod).await else {
        let reason = "the pod is not known to the mesh";
        return arrival.conversation(started).reject(&worker, reason);
    };
    let own = Rc::new(own);
    let certificate = match worker.certificate(&own).await {
        Ok(certificate) => certificate,
        Err(reason) => return arrival.conversation(started).reject(&worker, reason),
    };
    let mut place = None;
    let usual = &worker.shared.config.tunnel;
    let accepting = Box::pin(async {
        let tls = certificate.server_config();
        let settings = |client: Option<&Identity>| {
            place = tunnels.enter(&arrival.pod.uid, peer.ip(), client);
            Some(place.as_ref()?.settings(usual))
        };
        let accepted = server::accept_by(tcp, tls, usual.handshake_timeout, settings).await;
        drop(handshake);
        accepted
    });
    let mut connection = match accepting.await {
        Ok(connection) => connection,
        Err(AcceptError::Revoked) => {
            worker.count_revocation(Direction::Inbound);
            return arrival
                .conversation(started)
                .fail(&worker, &Failure::revoked());
        }
        Err(error) => return arrival.conversation(started).reject(&worker, error),
    };
    arrival.identity = connection.peer().cloned();
    arrival.own = Some(own);
    arrival.tls_group = Some(connection.key_exchange());
    worker.count_handshake(connection.key_exchange(), Direction::Inbound);
    let revocation = certificate.revocation_of(connection.peer_chain());
    let revoked = worker.tracked(revocation, Direction::Inbound);
    let mut revoked = OptionFuture::from(revoked.map(FutureExt::boxed_local));
    let mut client = VerifiedClient::new(connection.peer_chain(), &certificate);
    drop(certificate);
    let mut draining = false;
    loop {
        let request = tokio::select! {
            request = connection.next() => request,
            _ = drain.signaled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
            // Dropping the connection cuts its streams.
            Some(()) = &mut revoked => {
                worker.count_revocation(Direction::Inbound);
                return arrival.cut_by(Cut::Revoked);
            }
        };
        match request {
            Some(Ok(request)) => {
                if let Err(reason) = arrival.verify_again(&mut client) {
                    request.decline();
                    connection.graceful_shutdown();
                    arrival.conversation(Instant::now()).reject(&worker, reason);
                    continue;
                }
                // Each request holds the drain too: the connection may end before its streams' copies do.
                let drain = drain.clone();
                spawn_local(serve_request(arrival.clone(), request).map(|()| drop(drain)));
            }
            Some(Err(error)) => {
                tracing::debug!(%peer, %error, "tunnel ended");
                return;
            }
            None => {
                if let Some(cut) = connection.cut() {
                    arrival.cut_by(cut);
                }
                return;
            }
        }
    }
}

/// What only the setup needs, the arrival included, does not stay with the connection.
pub(crate) fn serve_request(arrival: Arrival, request: Request) -> impl Future<Output = ()> {
    let opening = Box::pin(open(arrival, request));
    async move {
        let Some(mut opened) = opening.await else {
            return;
        };
        let (tcp, stream) = (&mut opened.application, &mut opened.stream);
        let (half_closed, tracked) = (opened.half_closed, &opened.tracked);
        let result = tokio::select! {
            result = copy::tunnel(tcp, stream, Side::Server, half_closed, tracked) => Ok(result),
            Ok(verdict) = &mut opened.admission.denied => Err(verdict),
        };
        match result {
            Ok(result) => tracked.finish(Failure::of_tunnel(opened.cut.get(), result)),
            Err(verdict) => {
                opened.stream.abort();
                copy::abort(&opened.application);
                tracked.finish(Some(Failure::denied(&verdict)));
            }
        }
    }
}

/// A request let in and answered, with the application's connection made for it.
struct Opened {
    tracked: Tracked,
    stream: Stream,
    application: TcpStream,
    admission: Admission,
    cut: Rc<Cell<Option<Cut>>>,
    half_closed: Duration,
    _listed: Listed,
}

/// Judges and answers a request; none where it is refused or given up.
async fn open(mut arrival: Arrival, mut request: Request) -> Option<Opened> {
    if memory::pressure() >= Pressure::Refuse {
        // The stages are logged as they come.
        shortages::count_refusal(Reporter::Destination, Wanted::Memory);
        request.refuse(StatusCode::SERVICE_UNAVAILABLE);
        return None;
    }
    arrival.hear(&request.headers);
    let Some(authority) = read_authority(&request) else {
        let conversation = arrival.conversation(Instant::now());
        let what = request.authority.as_ref().map_or("", |text| text.as_str());
        conversation.reject(
            &arrival.worker,
            format_args!("not a CONNECT to host:port: {} {what:?}", request.method),
        );
        request.refuse(StatusCode::BAD_REQUEST);
        return None;
    };
    let host = headers::forwarded_host(&request.headers).map(str::to_owned);
    // A client may open and reset streams faster than applications are connected to: what it
    // no longer waits for must not go on without it.
    let admitted = tokio::select! {
        admitted = arrival.admit(&authority, host.as_deref()) => admitted,
        () = request.abandoned() => return None,
    };
    let Passage {
        conversation,
        application,
        admission,
        listed,
    } = match admitted {
        Ok(passage) => passage,
        Err(refusal) => {
            request.refuse(refusal.status());
            return None;
        }
    };
    let baggage = match &conversation.destination.workload {
        Some(workload) if arrival.worker.shared.config.response_baggage => {
            arrival.worker.plans.baggage(workload)
        }
        _ => None,
    };
    let tracked = conversation.open(&arrival.worker);
    match request.accept(baggage) {
        Ok(stream) => Some(Opened {
            tracked,
            stream,
            application,
            admission,
            half_closed: arrival.worker.shared.config.half_closed_timeout,
            cut: arrival.cut,
            _listed: listed,
        }),
        Err(error) => {
            tracked.finish(Some(Failure::new(ResponseFlags::None, error)));
            None
        }
    }
}

/// What a CONNECT is for; none where the request is something else.
fn read_authority(request: &Request) -> Option<Authority> {
    if request.method != Method::CONNECT {
        return None;
    }
    request.authority.as_ref()?.as_str().parse().ok()
}
