//! Tunnels that clients' nodes open to the waypoint, and what is inside of them.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::OptionFuture;
use hbone::server::{self, AcceptError, Request};
use hbone::stream::Cut;
use http::{Method, StatusCode};
use identity::VerifiedClient;
use mesh::destination::Authority;
use mesh::service::AppProtocol;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::drain::Phase;
use crate::http1;
use crate::http2;
use crate::message::{Arrival, Pipeline};
use crate::revocation::Reporter;
use crate::session::Session;
use crate::sniff::{self, Detected};
use crate::tcp;
use crate::transport::Transport;
use crate::worker::{TunnelPlace, Worker};

/// Serves one accepted connection to its end.
pub(crate) async fn serve<P: Pipeline + 'static>(
    worker: Rc<Worker<P>>,
    tcp: TcpStream,
    peer: SocketAddr,
    _place: TunnelPlace,
) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let certificate = match worker.setup.certificates.current() {
        Ok(certificate) => certificate,
        Err(reason) => return tracing::warn!(%peer, %reason, "tunnel refused"),
    };
    let tls = certificate.server_config();
    let accepted = Box::pin(server::accept(tcp, tls, &worker.settings)).await;
    let mut connection = match accepted {
        Ok(connection) => connection,
        Err(error) => {
            if matches!(error, AcceptError::Revoked) {
                Reporter::Destination.count_revocation();
            }
            return tracing::debug!(%peer, %error, "tunnel refused");
        }
    };
    let revocation = certificate.revocation_of(connection.peer_chain());
    let revoked = Reporter::Destination.tracked(revocation);
    let mut revoked = OptionFuture::from(revoked.map(FutureExt::boxed_local));
    let mut client = VerifiedClient::new(connection.peer_chain(), &certificate);
    drop(certificate);
    let drain = worker.drain.member();
    let mut draining = false;
    loop {
        let signaled = std::future::poll_fn(|cx| drain.poll_reached(cx, Phase::Draining));
        let request = tokio::select! {
            request = connection.next() => request,
            () = signaled, if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
            // Dropping the connection cuts its streams.
            Some(()) = &mut revoked => {
                tracing::info!(%peer, "tunnel cut: {}", Cut::Revoked);
                return Reporter::Destination.count_revocation();
            }
        };
        match request {
            Some(Ok(request)) => {
                if let Err(reason) = verify_again(&worker, &mut client) {
                    tracing::info!(%peer, %reason, "tunnel request refused");
                    request.decline();
                    connection.graceful_shutdown();
                    continue;
                }
                let identity = connection.peer().cloned();
                let worker = worker.clone();
                spawn_local(async move {
                    serve_request(&worker, request, peer, identity).await;
                });
            }
            Some(Err(error)) => return tracing::debug!(%peer, %error, "tunnel ended"),
            None => {
                if let Some(cut) = connection.cut() {
                    tracing::info!(%peer, "tunnel cut: {cut}");
                }
                return;
            }
        }
    }
}

/// Whether the client's handshake would succeed now too, or why not.
fn verify_again<P>(worker: &Worker<P>, client: &mut VerifiedClient) -> Result<(), String> {
    let own = worker.setup.certificates.current()?;
    let verified = client.verify_again(&own, SystemTime::now());
    verified.map_err(|error| format!("the client would not be let in any more: {error}"))
}

async fn serve_request<P: Pipeline + 'static>(
    worker: &Worker<P>,
    request: Request,
    peer: SocketAddr,
    identity: Option<mesh::identity::Identity>,
) {
    let Some(authority) = read_authority(&request) else {
        tracing::debug!(%peer, "not a CONNECT to host:port");
        return request.refuse(StatusCode::BAD_REQUEST);
    };
    let arrival = Arrival {
        peer_identity: identity.as_ref(),
        peer_address: peer,
        authority,
        headers: &request.headers,
    };
    let admission = match worker.pipeline.admit(&arrival) {
        Ok(admission) => admission,
        Err(refusal) => {
            tracing::debug!(%peer, %refusal, "tunnel request refused");
            return request.refuse(refusal.status());
        }
    };
    let Some(_place) = worker.crew.connection() else {
        metrics::counter!("waypoint_overload_total", "of" => "connections").increment(1);
        tracing::debug!(%peer, "too many connections");
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    };
    let session = Session {
        pipeline: worker.pipeline.clone(),
        downstream: Rc::new(admission.downstream),
        limits: worker.limits.clone(),
        drain: worker.drain.clone(),
    };
    match request.accept(None) {
        Ok(stream) => inside(worker, stream, session, admission.protocol).await,
        Err(error) => tracing::debug!(%peer, %error, "tunnel request ended"),
    }
}

/// Serves what a client sends, by what its port says or its first bytes.
async fn inside<T: Transport, P: Pipeline + 'static>(
    worker: &Worker<P>,
    mut client: T,
    session: Session<P>,
    protocol: AppProtocol,
) {
    let timeout = match protocol {
        AppProtocol::Unknown => Some(session.limits.protocol_detection_timeout),
        // Which HTTP it is, the first bytes say for certain.
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => {
            Some(session.limits.idle_timeout)
        }
        AppProtocol::Tcp | AppProtocol::Tls => None,
    };
    let (detected, received) = match timeout {
        None => (Detected::Tcp, Bytes::new()),
        Some(timeout) => match sniff::sniff(&mut client, timeout).await {
            Ok(sniffed) => sniffed,
            Err(error) => return tracing::debug!(%error, "client left"),
        },
    };
    // What is no HTTP on a port of HTTP's is told so, rather than let past the policies.
    let detected = match (protocol, detected) {
        (AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc, Detected::Tcp) => {
            Detected::Http1
        }
        (
            AppProtocol::Http11
            | AppProtocol::Http2
            | AppProtocol::Grpc
            | AppProtocol::Unknown
            | AppProtocol::Tcp
            | AppProtocol::Tls,
            detected,
        ) => detected,
    };
    match detected {
        Detected::Http1 => http1::connection::serve(client, received, session).await,
        Detected::Http2 => Box::pin(http2::server::serve(client, received, session)).await,
        Detected::Tcp => {
            Box::pin(tcp::serve(client, received, session, &worker.upstream)).await;
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
