//! Requests and responses with streamed bodies.
//!
//! The engine ([`Exchange`]'s caller) ends HBONE and HTTP; the pipeline (its implementor)
//! decides; upstream connections ([`Upstream`]) carry what was decided. All of it stays on the
//! worker that accepted the connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::Frame;
use mesh::address::NamespacedHostname;
use mesh::identity::Identity;
use mesh::workload::Workload;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::pipeline::Remembered;

/// What was tunnelled to the waypoint: one TCP connection of a client.
#[derive(Debug)]
pub struct Downstream {
    /// From the tunnel's certificate.
    pub source_identity: Option<Identity>,
    /// The client, as the tunnel has it.
    pub source: SocketAddr,
    /// What the client dialled.
    pub destination: SocketAddr,
    /// The service at that address; none for a workload dialled by its own.
    pub service: Option<NamespacedHostname>,
    /// The workload dialled by its own address.
    pub workload: Option<Arc<Workload>>,
    pub opened: Instant,
    /// What the pipeline has found of it.
    pub remembered: Remembered,
}

/// The version of HTTP spoken on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Http1,
    Http2,
}

/// A message's content, as it comes in or as it is made.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    /// From a connection, or wrapped by whoever watches it pass.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
    /// No content: the other side's connection after a 101, or a CONNECT's 200.
    Upgraded(Pin<Box<dyn Io>>),
}

/// Why a body ended early.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The sender closed or reset.
    #[error("the sender gave up: {0}")]
    Reset(String),
    /// The sender broke the protocol.
    #[error("malformed body: {0}")]
    Protocol(String),
    /// The one who reads took too long, or a deadline passed.
    #[error("timed out")]
    Timeout,
}

/// Both directions of a connection that is no longer HTTP (after a 101 or a CONNECT's 200).
pub trait Io: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Io for T {}

/// In the extensions of a request whose client asked to switch protocols (its `upgrade` says to
/// which); the answer may be a 101 with [`Body::Upgraded`].
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequested;

/// Where interim responses (100, 103; RFC 9110 §15.2) to a request are sent.
#[derive(Clone)]
pub struct Interim(pub Rc<dyn Fn(http::Response<()>)>);

/// One request of a connection, to its response. Dropping the future gives the request up.
///
/// The request is as it was received, less its hop-by-hop headers: from HTTP/1.1 the URI is a path
/// with the authority in `host` (an absolute URI has replaced `host` by its own authority),
/// from HTTP/2 it is absolute and a `host`, where there is one, equals its authority. A
/// `content-length` is valid and single. What the response's body states as its exact size wins
/// over its `content-length`.
pub trait Exchange {
    fn exchange(
        &self,
        downstream: &Rc<Downstream>,
        request: http::Request<Body>,
        interim: &Interim,
    ) -> impl Future<Output = http::Response<Body>>;
}

/// What decides for a worker's connections: requests, and what is no request.
pub trait Pipeline: Exchange {
    /// Whether a tunnelled connection is let in, and to what.
    fn admit(&self, arrival: &Arrival<'_>) -> Result<Admission, Refusal>;

    /// Where a connection goes that is not HTTP; an error closes it.
    fn route_connection(
        &self,
        downstream: &Rc<Downstream>,
    ) -> impl Future<Output = Result<ConnectionRoute, String>>;

    /// A request that broke HTTP was answered without an exchange, or a connection ended
    /// before it had one: for the access log and the metrics.
    fn rejected(&self, downstream: &Rc<Downstream>, status: http::StatusCode, reason: &str);
}

/// A CONNECT request of a tunnel.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// From the tunnel's certificate.
    pub peer_identity: Option<&'a Identity>,
    pub peer_address: SocketAddr,
    pub authority: mesh::destination::Authority,
    pub headers: &'a http::HeaderMap,
}

/// A tunnelled connection that is let in.
#[derive(Debug)]
pub struct Admission {
    pub downstream: Downstream,
    pub protocol: mesh::service::AppProtocol,
}

/// Why a tunnelled connection is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} is neither a service nor a workload of the mesh")]
    Unknown(String),
    #[error("this waypoint is not in front of {0}")]
    NotInFront(String),
    #[error("the client's certificate names no workload")]
    NoIdentity,
    #[error("{0} has no port {1}")]
    UnknownPort(String, u16),
}

/// Endpoints to try in order for a connection that is not HTTP.
pub struct ConnectionRoute {
    pub hops: Vec<mesh::destination::Hop>,
    pub meter: Rc<dyn ConnectionMeter>,
}

/// Told what becomes of a connection that is not HTTP, or no longer.
pub trait ConnectionMeter {
    /// An endpoint was reached, or could not be.
    fn connected(&self, hop: &mesh::destination::Hop, result: Result<(), &UpstreamError>);
    /// Bytes towards the server.
    fn received(&self, bytes: u64);
    /// Bytes towards the client.
    fn sent(&self, bytes: u64);
    /// Ready once policies have changed so that the connection would not be let in any more.
    fn poll_denied(&self, cx: &mut Context<'_>) -> Poll<()>;
    /// It is over; the reason where it did not end by itself.
    fn closed(&self, failure: Option<&str>);
}

/// One try of a request at one endpoint.
pub trait Upstream {
    fn send(
        &self,
        endpoint: &Endpoint,
        request: http::Request<Body>,
        interim: &Interim,
    ) -> impl Future<Output = Result<http::Response<Body>, UpstreamError>>;
}

/// Where a try goes.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub hop: mesh::destination::Hop,
    pub protocol: Protocol,
}

/// Why a try brought no response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Nothing reached the endpoint: TCP, TLS, HBONE or HTTP/2 could not be established.
    #[error("upstream connect error: {0}")]
    Connect(String),
    /// The tunnel's peer refused the CONNECT, its policy most likely.
    #[error("upstream refused the connection: {0}")]
    Refused(String),
    /// REFUSED_STREAM, or a GOAWAY that excludes the stream (RFC 9113 §8.7): not processed.
    #[error("upstream refused the stream")]
    RefusedStream,
    /// Closed or reset; the head of the request may have been processed if it was sent.
    #[error("upstream reset: {reason}")]
    Reset { head_sent: bool, reason: String },
    /// The request's own body broke off: the client is gone, or wrong.
    #[error("request body: {0}")]
    RequestBody(BodyError),
    /// The response was not HTTP, or not allowed.
    #[error("upstream protocol error: {0}")]
    Protocol(String),
}

// === impl Refusal ===

impl Refusal {
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Unknown(_) | Self::UnknownPort(..) => http::StatusCode::NOT_FOUND,
            Self::NotInFront(_) | Self::NoIdentity => http::StatusCode::FORBIDDEN,
        }
    }
}

// === impl Body ===

impl Body {
    pub fn stream(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty | Self::Upgraded(_) => Poll::Ready(None),
            Self::Full(_) => match std::mem::take(&mut *self) {
                Self::Full(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                Self::Empty | Self::Full(_) | Self::Stream(_) | Self::Upgraded(_) => {
                    Poll::Ready(None)
                }
            },
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Upgraded(_) => true,
            Self::Full(data) => data.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Empty | Self::Upgraded(_) => http_body::SizeHint::with_exact(0),
            Self::Full(data) => http_body::SizeHint::with_exact(data.len() as u64),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Full(data) => write!(f, "Full({} bytes)", data.len()),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Upgraded(_) => f.write_str("Upgraded"),
        }
    }
}
