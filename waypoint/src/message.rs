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

/// Put in a request's extensions by the engine where the client asked to switch protocols; the
/// pipeline answers with a 101 that carries an [`Upgraded`] in its extensions.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequested;

/// In the extensions of a 101 response: the other side's connection after the switch.
#[derive(Clone)]
pub struct Upgraded(pub Rc<std::cell::RefCell<Option<Pin<Box<dyn Io>>>>>);

/// In a request's extensions: interim responses (100, 103; RFC 9110 §15.2) are sent here.
#[derive(Clone)]
pub struct Interim(pub Rc<dyn Fn(http::Response<()>)>);

/// One request of a connection, to its response. Dropping the future gives the request up.
pub trait Exchange {
    fn exchange(
        &self,
        downstream: &Rc<Downstream>,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<Body>>;
}

/// One try of a request at one endpoint.
pub trait Upstream {
    fn send(
        &self,
        endpoint: &Endpoint,
        request: http::Request<Body>,
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
    /// The response was not HTTP, or not allowed.
    #[error("upstream protocol error: {0}")]
    Protocol(String),
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
            Self::Empty => Poll::Ready(None),
            Self::Full(_) => match std::mem::take(&mut *self) {
                Self::Full(data) if !data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
                Self::Empty | Self::Full(_) | Self::Stream(_) => Poll::Ready(None),
            },
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_empty(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Empty => http_body::SizeHint::with_exact(0),
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
        }
    }
}
