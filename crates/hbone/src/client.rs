//! The calling end: handshakes over a connected socket, then CONNECT requests.
//!
//! - `nested`: the same within a stream of another tunnel.

mod nested;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use mesh::identity::Identity;
use runtime::tasks::spawn_local;
use rustls::{CertificateError, ClientConfig};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time;
use tokio_rustls::TlsConnector;

pub use self::nested::handshake_within;
use crate::keepalive::{self, Doubt};
use crate::settings::{CLIENT_HEADER_LIST, CLIENT_SEND_BUFFER, STALLED, Settings};
use crate::stream::{Cut, Stream};
use crate::tls::{self, Activity};

/// A connection to one peer that carries many streams. It closes when it has been
/// dropped and its last stream has ended.
#[derive(Debug)]
pub struct Tunnel {
    requests: SendRequest<Bytes>,
    shared: Rc<TunnelState>,
    response_timeout: Duration,
    stream_limit: usize,
    doubt: Doubt,
    peer_chain: Arc<[CertificateDer<'static>]>,
    key_exchange: &'static str,
}

#[derive(Debug)]
pub(crate) struct TunnelState {
    activity: Activity,
    /// Of the tunnel whose stream carries this one.
    outer: Option<Rc<TunnelState>>,
    streams: Cell<usize>,
    /// Directions of streams that wait for somebody to read.
    stalled: Cell<usize>,
    closed: Cell<bool>,
    /// Why it was cut, where it was.
    cut: Cell<Option<Cut>>,
    revoked: Notify,
    ended: Notify,
}

/// A stream's place in its tunnel.
#[derive(Debug)]
pub(crate) struct StreamSlot(Rc<TunnelState>);

/// One direction of a stream, which counts while it waits for somebody to read.
#[derive(Debug)]
pub(crate) struct Stall {
    tunnel: Rc<TunnelState>,
    stalled: bool,
}

/// What a CONNECT asks for.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// `IP:port`, or `hostname:port`.
    pub authority: http::uri::Authority,
    pub headers: HeaderMap,
}

/// Why there is no tunnel to the peer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting to {0}: {1}")]
    Tcp(SocketAddr, Arc<io::Error>),
    #[error("connecting to {0} timed out")]
    TcpTimeout(SocketAddr),
    #[error("TLS handshake: {0}")]
    Tls(Arc<io::Error>),
    #[error("the peer is not who it should be: {0}")]
    PeerIdentity(Arc<io::Error>),
    #[error("the peer's certificate has been revoked")]
    Revoked,
    #[error("TLS or HTTP/2 handshake timed out")]
    HandshakeTimeout,
    #[error("HTTP/2 handshake: {0}")]
    Http2(Arc<h2::Error>),
    #[error("the attempt to connect ended early")]
    Abandoned,
}

/// Why a stream did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("tunnel failed: {0}")]
    Tunnel(h2::Error),
    #[error("no answer from the peer in time")]
    ResponseTimeout,
    /// Whoever asked can go elsewhere.
    #[error("no sign of the peer within {0:?}")]
    NoSign(Duration),
    #[error("the peer answered {0}")]
    Status(StatusCode),
}

/// Makes a tunnel of a connected socket. The peer must prove to be who `tls` expects.
pub async fn handshake(
    tcp: TcpStream,
    tls: Arc<ClientConfig>,
    settings: &Settings,
) -> Result<Tunnel, ConnectError> {
    match time::timeout(settings.handshake_timeout, shake(tcp, tls, settings)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::HandshakeTimeout),
    }
}

async fn shake(
    tcp: TcpStream,
    tls: Arc<ClientConfig>,
    settings: &Settings,
) -> Result<Tunnel, ConnectError> {
    let peer = tcp
        .peer_addr()
        .map_err(|error| ConnectError::Tls(Arc::new(error)))?;
    let stream = TlsConnector::from(tls)
        .connect(identity::no_server_name(), tcp)
        .await
        .map_err(tls_error)?;
    let (tcp, session) = stream.into_inner();
    let peer_chain = session.peer_certificates().unwrap_or_default().into();
    let key_exchange = identity::key_exchange_group(&session).unwrap_or("unknown");
    let (stream, flusher, activity) = tls::split(tcp, session);
    let (requests, mut connection) = http2(stream, settings).await?;
    let doubt = Doubt::default();
    let pings = connection.ping_pong();
    let lost = lost(pings, activity.clone(), doubt.clone(), settings);
    let driven = poll_fn(move |cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        match flusher.poll_flush(cx) {
            Poll::Ready(Err(error)) if ended.is_pending() => Poll::Ready(Err(error)),
            Poll::Ready(_) | Poll::Pending => ended.map_err(io::Error::other),
        }
    });
    Ok(Tunnel {
        requests,
        shared: drive(peer, driven, activity, None, lost),
        response_timeout: settings.response_timeout,
        stream_limit: settings.client_streams,
        doubt,
        peer_chain,
        key_exchange,
    })
}

async fn http2<T: AsyncRead + AsyncWrite + Unpin>(
    stream: T,
    settings: &Settings,
) -> Result<(SendRequest<Bytes>, Connection<T>), ConnectError> {
    h2::client::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(CLIENT_HEADER_LIST)
        .max_send_buffer_size(CLIENT_SEND_BUFFER)
        .initial_max_send_streams(settings.client_streams)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(|error| ConnectError::Http2(Arc::new(error)))
}

/// Resolves when the peer no longer answers.
fn lost(
    pings: Option<h2::PingPong>,
    activity: Activity,
    doubt: Doubt,
    settings: &Settings,
) -> impl Future<Output = ()> + use<> {
    let (interval, timeout) = (settings.ping_interval, settings.ping_timeout);
    async move {
        match pings {
            Some(pings) => {
                keepalive::peer_lost(pings, activity, doubt, interval, timeout).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Runs the connection of a tunnel until its end, whichever comes first.
fn drive(
    peer: SocketAddr,
    driven: impl Future<Output = io::Result<()>> + 'static,
    activity: Activity,
    outer: Option<Rc<TunnelState>>,
    lost: impl Future<Output = ()> + 'static,
) -> Rc<TunnelState> {
    let shared = Rc::new(TunnelState {
        activity,
        outer,
        streams: Cell::default(),
        stalled: Cell::default(),
        closed: Cell::default(),
        cut: Cell::default(),
        revoked: Notify::default(),
        ended: Notify::default(),
    });
    let state = shared.clone();
    spawn_local(async move {
        tokio::select! {
            // After a process has stood still its deadlines are over, and what it has been sent
            // meanwhile is still to be read.
            biased;
            result = driven => if let Err(error) = result {
                tracing::debug!(%peer, %error, "tunnel ended");
            },
            () = lost => state.cut.set(Some(Cut::PeerLost)),
            () = state.revoked.notified() => state.cut.set(Some(Cut::Revoked)),
        }
        if let Some(cut) = state.cut.get() {
            tracing::info!(%peer, "tunnel cut: {cut}");
        }
        state.closed.set(true);
        state.ended.notify_one();
    });
    shared
}

fn tls_error(error: io::Error) -> ConnectError {
    match tls::invalid_certificate(&error) {
        Some(CertificateError::Revoked) => ConnectError::Revoked,
        // The chain is good, and our verifier refuses the name on it.
        Some(CertificateError::Other(_)) => ConnectError::PeerIdentity(Arc::new(error)),
        _ => ConnectError::Tls(Arc::new(error)),
    }
}

// === impl Tunnel ===

impl Tunnel {
    /// Streams open now.
    pub fn streams(&self) -> usize {
        self.shared.streams.get()
    }

    /// The certificates the peer showed, its own first.
    pub fn peer_chain(&self) -> Arc<[CertificateDer<'static>]> {
        self.peer_chain.clone()
    }

    /// Cuts the tunnel and its streams when the peer's certificate turns out to be `revoked`.
    pub fn cut_when(&self, revoked: impl Future<Output = ()> + 'static) {
        let state = self.shared.clone();
        spawn_local(async move {
            tokio::select! {
                () = revoked => state.revoked.notify_one(),
                () = state.ended.notified() => {}
            }
        });
    }

    /// The key exchange of its handshake, by its TLS name.
    pub fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// Whether another stream may be opened: neither full, nor closing, nor closed. One may
    /// always wait, so that a peer that admits none is not given tunnel after tunnel. Where as
    /// many are stalled as the window has room for, another would stall with them.
    pub(crate) fn has_room(&self) -> bool {
        let limit = self
            .stream_limit
            .min(self.requests.current_max_send_streams());
        self.streams() < limit.max(1) && self.shared.stalled.get() < STALLED
    }

    /// False once the connection has ended or the peer has sent GOAWAY.
    pub(crate) fn is_usable(&self) -> bool {
        if self.shared.closed.get() {
            return false;
        }
        let mut requests = self.requests.clone();
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(requests.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    pub(crate) fn reserve(&self) -> StreamSlot {
        self.shared.streams.set(self.shared.streams.get() + 1);
        StreamSlot(self.shared.clone())
    }

    /// Who the peer's certificate says it is.
    pub fn peer(&self) -> Option<Identity> {
        identity::identity_of(self.peer_chain.first()?)
    }

    /// Times the peer has been heard of.
    pub(crate) fn reads(&self) -> u64 {
        self.shared.activity.reads()
    }

    /// Returns when the peer says nothing any more, half-way to the deadline of a CONNECT that it
    /// does not answer, or when `patience` has an end before that: not even to a probe. An
    /// application that takes its time does not keep its node from answering that.
    pub(crate) async fn falls_silent(&self, patience: Option<Duration>) {
        let half = self.response_timeout / 2;
        let (heard, before) = (
            self.reads(),
            patience.map_or(half, |patience| patience.min(half)) / 2,
        );
        time::sleep(before).await;
        self.doubt.raise();
        time::sleep(before).await;
        if self.reads() != heard {
            std::future::pending().await
        }
    }

    /// How long a CONNECT waits for its answer.
    pub(crate) fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// Opens a stream: sends the CONNECT and waits for its 200.
    pub async fn open(&self, request: ConnectRequest) -> Result<Stream, OpenError> {
        self.open_in(self.reserve(), request).await
    }

    /// Opens a stream, and gives what the peer's 200 says too.
    pub async fn open_described(
        &self,
        request: ConnectRequest,
    ) -> Result<(Stream, HeaderMap), OpenError> {
        self.exchange(self.reserve(), request).await
    }

    pub(crate) async fn open_in(
        &self,
        slot: StreamSlot,
        request: ConnectRequest,
    ) -> Result<Stream, OpenError> {
        let (stream, _) = self.exchange(slot, request).await?;
        Ok(stream)
    }

    async fn exchange(
        &self,
        slot: StreamSlot,
        request: ConnectRequest,
    ) -> Result<(Stream, HeaderMap), OpenError> {
        let opening = async {
            let mut requests = self.requests.clone();
            poll_fn(|cx| requests.poll_ready(cx))
                .await
                .map_err(OpenError::Tunnel)?;
            let (response, sender) = requests
                .send_request(request.into_http(), false)
                .map_err(OpenError::Tunnel)?;
            let response = response.await.map_err(OpenError::Tunnel)?;
            if response.status() != StatusCode::OK {
                return Err(OpenError::Status(response.status()));
            }
            let (parts, body) = response.into_parts();
            Ok((Stream::new(sender, body, Some(slot)), parts.headers))
        };
        match time::timeout(self.response_timeout, opening).await {
            Ok(result) => result,
            Err(_) => Err(OpenError::ResponseTimeout),
        }
    }
}

// === impl TunnelState ===

impl TunnelState {
    fn cut(&self) -> Option<Cut> {
        let outer = || self.outer.as_ref()?.cut();
        self.cut.get().or_else(outer)
    }
}

// === impl StreamSlot ===

impl StreamSlot {
    pub(crate) fn stall(&self) -> Stall {
        Stall {
            tunnel: self.0.clone(),
            stalled: false,
        }
    }

    pub(crate) fn cut(&self) -> Option<Cut> {
        self.0.cut()
    }

    pub(crate) fn tunnel(&self) -> Rc<TunnelState> {
        self.0.clone()
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

// === impl Stall ===

impl Stall {
    pub(crate) fn set(&mut self, stalled: bool) {
        let count = &self.tunnel.stalled;
        match (self.stalled, stalled) {
            (false, true) => count.set(count.get() + 1),
            (true, false) => count.set(count.get() - 1),
            (true, true) | (false, false) => {}
        }
        self.stalled = stalled;
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.set(false);
    }
}

// === impl ConnectRequest ===

impl ConnectRequest {
    /// A request for an address.
    pub fn to(target: SocketAddr, headers: HeaderMap) -> Self {
        let authority = target
            .to_string()
            .parse()
            .expect("a socket address is an authority");
        Self { authority, headers }
    }

    fn into_http(self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = self.authority.into();
        *request.headers_mut() = self.headers;
        request
    }
}

// === impl OpenError ===

impl OpenError {
    /// Whether the tunnel broke rather than the peer answered: a fresh one may work.
    pub(crate) fn is_tunnel_failure(&self) -> bool {
        match self {
            Self::Tunnel(_) => true,
            Self::Connect(_) | Self::ResponseTimeout | Self::NoSign(_) | Self::Status(_) => false,
        }
    }
}
