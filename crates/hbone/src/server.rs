//! The called end: TLS with a required client certificate, HTTP/2, CONNECT requests.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use mesh::identity::Identity;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsAcceptor;

use crate::headers::BAGGAGE;
use crate::keepalive::{self, Doubt};
use crate::settings::{SERVER_HEADER_LIST, SERVER_SEND_BUFFER, Settings};
use crate::stream::{Cut, Stream};
use crate::tls::{self, Flusher, Tls};

/// An accepted tunnel. It makes progress only while [`Connection::next`] is awaited.
pub struct Connection {
    http2: h2::server::Connection<Tls, Bytes>,
    flusher: Flusher,
    peer_lost: Pin<Box<dyn Future<Output = ()>>>,
    cut: Option<Cut>,
    peer: Option<Identity>,
    peer_chain: Arc<[CertificateDer<'static>]>,
    key_exchange: &'static str,
}

/// A request as it came: its method and authority are still to be judged.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    /// `host:port` as the client wrote it.
    pub authority: Option<http::uri::Authority>,
    pub headers: HeaderMap,
    body: RecvStream,
    response: SendResponse<Bytes>,
}

/// Why a connection did not become a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
    #[error("the client's certificate has been revoked")]
    Revoked,
    #[error("the client has too many tunnels")]
    Crowded,
    #[error("HTTP/2 handshake: {0}")]
    Http2(h2::Error),
    #[error("TLS or HTTP/2 handshake timed out")]
    Timeout,
}

/// Makes a tunnel of an accepted socket.
pub async fn accept(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
    settings: &Settings,
) -> Result<Connection, AcceptError> {
    let same = |_: Option<&Identity>| Some(settings.clone());
    accept_by(tcp, tls, settings.handshake_timeout, same).await
}

/// Makes a tunnel with settings that depend on who its client is; none where they may have no
/// more tunnels.
pub async fn accept_by(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
    timeout: Duration,
    settings: impl FnOnce(Option<&Identity>) -> Option<Settings>,
) -> Result<Connection, AcceptError> {
    match time::timeout(timeout, shake(tcp, tls, settings)).await {
        Ok(result) => result,
        Err(_) => Err(AcceptError::Timeout),
    }
}

async fn shake(
    tcp: TcpStream,
    tls: Arc<ServerConfig>,
    settings: impl FnOnce(Option<&Identity>) -> Option<Settings>,
) -> Result<Connection, AcceptError> {
    let stream =
        TlsAcceptor::from(tls).accept(tcp).await.map_err(|error| {
            match tls::is_revoked(&error) {
                true => AcceptError::Revoked,
                false => AcceptError::Tls(error),
            }
        })?;
    let (tcp, session) = stream.into_inner();
    let peer = identity::peer_identity(&session);
    let settings = settings(peer.as_ref()).ok_or(AcceptError::Crowded)?;
    let peer_chain = session.peer_certificates().unwrap_or_default().into();
    let key_exchange = identity::key_exchange_group(&session).unwrap_or("unknown");
    let (stream, flusher, activity) = tls::split(tcp, session);
    let mut handshake = h2::server::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(SERVER_HEADER_LIST)
        .max_send_buffer_size(SERVER_SEND_BUFFER)
        .max_concurrent_streams(settings.server_streams)
        .handshake::<_, Bytes>(stream);
    let mut http2 = poll_fn(|cx| {
        let shaken = Pin::new(&mut handshake).poll(cx);
        let flushed = flusher.poll_flush(cx).map_err(AcceptError::Tls)?;
        match (shaken, flushed) {
            (Poll::Ready(shaken), _) => Poll::Ready(shaken.map_err(AcceptError::Http2)),
            (Poll::Pending, Poll::Ready(()) | Poll::Pending) => Poll::Pending,
        }
    })
    .await?;
    let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
    let peer_lost: Pin<Box<dyn Future<Output = ()>>> = match http2.ping_pong() {
        Some(pings) => {
            let doubt = Doubt::default();
            Box::pin(keepalive::peer_lost(
                pings, activity, doubt, interval, timeout,
            ))
        }
        None => Box::pin(std::future::pending()),
    };
    Ok(Connection {
        http2,
        flusher,
        peer_lost,
        cut: None,
        peer,
        peer_chain,
        key_exchange,
    })
}

// === impl Connection ===

impl Connection {
    /// Who the client's certificate says it is; none when it names no workload.
    pub fn peer(&self) -> Option<&Identity> {
        self.peer.as_ref()
    }

    /// The certificates the client showed, its own first.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        self.peer_chain.clone()
    }

    /// The key exchange of its handshake, by its TLS name.
    pub fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// Set once [`Connection::next`] has given its peer up.
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// The next request; none once the connection has ended. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Request, h2::Error>> {
        let (http2, flusher) = (&mut self.http2, &self.flusher);
        let accepting = poll_fn(|cx| {
            let accepted = http2.poll_accept(cx);
            match flusher.poll_flush(cx) {
                // The peer is gone, and nothing more can be answered.
                Poll::Ready(Err(_)) if accepted.is_pending() => Poll::Ready(None),
                Poll::Ready(_) | Poll::Pending => accepted,
            }
        });
        let accepted = tokio::select! {
            // After a process has stood still its deadlines are over, and what it has been sent
            // meanwhile is still to be read.
            biased;
            accepted = accepting => accepted?,
            () = &mut self.peer_lost => {
                self.cut = Some(Cut::PeerLost);
                // Streams would take NO_ERROR for a peer that only reads no more.
                self.http2.abrupt_shutdown(Reason::CONNECT_ERROR);
                self.peer_lost = Box::pin(std::future::pending());
                return None;
            }
        };
        Some(accepted.map(|(request, response)| {
            let (parts, body) = request.into_parts();
            Request {
                method: parts.method,
                authority: parts.uri.into_parts().authority,
                headers: parts.headers,
                body,
                response,
            }
        }))
    }

    /// Sends GOAWAY: open streams go on, new ones are refused. [`Connection::next`]
    /// must still be awaited until it returns none.
    pub fn graceful_shutdown(&mut self) {
        self.http2.graceful_shutdown();
    }
}

// === impl Request ===

impl Request {
    /// Answers 200; `baggage` describes the workload reached.
    pub fn accept(mut self, baggage: Option<HeaderValue>) -> Result<Stream, h2::Error> {
        let mut response = Response::new(());
        if let Some(baggage) = baggage {
            response.headers_mut().insert(BAGGAGE, baggage);
        }
        let sender = self.response.send_response(response, false)?;
        Ok(Stream::new(sender, self.body, None))
    }

    /// Answers with a status and nothing else.
    pub fn refuse(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // It fails only where the client has already gone.
        let _ = self.response.send_response(response, true);
    }

    /// Has the client ask elsewhere, on another tunnel too: nothing has been done about it (RFC 9113 §8.7).
    pub fn decline(mut self) {
        self.response.send_reset(Reason::REFUSED_STREAM);
    }

    /// Waits until the client gives the request up.
    pub async fn abandoned(&mut self) {
        let _ = poll_fn(|cx| self.response.poll_reset(cx)).await;
    }
}
