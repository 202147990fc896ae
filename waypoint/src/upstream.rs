//! A worker's connections to endpoints: made, kept while they are good, and shared where the
//! protocol allows it.
//!
//! - `link`: one byte stream to an endpoint, in a tunnel or plain.
//! - `dial`: making them.
//! - `pool`: idle HTTP/1.1 connections.
//! - `multiplexed`: HTTP/2 connections.

mod dial;

mod link;

mod pool;

mod multiplexed;

use std::rc::Rc;

use http::{Request, Response, header};
use mesh::destination::Hop;

pub(crate) use self::dial::Dialer;
use self::link::Link;
use self::multiplexed::Multiplexed;
use self::pool::{Key, Pool, Returned};
use crate::http1::call::{self, Answer, Recycle};
use crate::http1::wire::Wire;
use crate::http2;
use crate::limits::Limits;
use crate::message::{Body, Endpoint, Interim, Protocol, Upstream, UpstreamError};
use crate::transport::Stream;

/// The connections of one worker. Clones share them.
#[derive(Clone)]
pub struct Connections(Rc<Shared>);

struct Shared {
    dialer: Dialer,
    http1: Rc<Pool>,
    http2: Rc<Multiplexed>,
    limits: Rc<Limits>,
}

/// Connections that switch protocols carry nothing else.
struct Dedicated;

// === impl Connections ===

impl Connections {
    /// Must be called on the worker's `LocalSet`.
    pub(crate) fn new(dialer: Dialer, limits: Rc<Limits>) -> Self {
        Self(Rc::new(Shared {
            http1: Pool::new(&limits),
            http2: Multiplexed::new(&limits),
            dialer,
            limits,
        }))
    }

    /// A new byte stream to an endpoint.
    pub(crate) async fn connect(&self, hop: &Hop) -> Result<Link, UpstreamError> {
        self.0.dialer.connect(hop).await
    }

    async fn http1(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        interim: &Interim,
    ) -> Result<Response<Body>, UpstreamError> {
        let limits = self.0.limits.clone();
        if request.headers().contains_key(header::UPGRADE) {
            let link = Box::pin(self.connect(&endpoint.hop)).await?;
            let wire = Wire::new(link, Default::default());
            return match call::send(wire, request, interim, Dedicated, limits).await? {
                Answer::Response(response) => Ok(response),
                Answer::Switched(response, wire) => Ok(switched(response, wire)),
            };
        }
        let key = Key::new(&endpoint.hop);
        let wire = match self.0.http1.take(&key) {
            Some(wire) => wire,
            // What only a new connection needs does not stay with the request.
            None => {
                let link = Box::pin(self.connect(&endpoint.hop)).await?;
                Wire::new(link, Default::default())
            }
        };
        let returned = Returned::new(&self.0.http1, key);
        match call::send(wire, request, interim, returned, limits).await? {
            Answer::Response(response) => Ok(response),
            Answer::Switched(..) => {
                Err(UpstreamError::Protocol("101 without an upgrade".to_owned()))
            }
        }
    }

    async fn http2(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        interim: &Interim,
    ) -> Result<Response<Body>, UpstreamError> {
        let connect = || {
            let (connections, hop) = (self.clone(), endpoint.hop.clone());
            async move {
                let limits = connections.0.limits.clone();
                let link = connections.connect(&hop).await?;
                http2::client::handshake(link, &limits).await
            }
        };
        let key = Key::new(&endpoint.hop);
        let (client, slot) = self.0.http2.take(&key, connect).await?;
        client.send(slot, request, interim).await
    }
}

impl Upstream for Connections {
    async fn send(
        &self,
        endpoint: &Endpoint,
        request: Request<Body>,
        interim: &Interim,
    ) -> Result<Response<Body>, UpstreamError> {
        match endpoint.protocol {
            Protocol::Http1 => self.http1(endpoint, request, interim).await,
            Protocol::Http2 => self.http2(endpoint, request, interim).await,
        }
    }
}

fn switched(response: Response<()>, wire: Wire<Link>) -> Response<Body> {
    let io = Stream::new(wire.transport, wire.input.pending);
    response.map(|()| Body::Upgraded(Box::pin(io)))
}

// === impl Dedicated ===

impl Recycle<Link> for Dedicated {
    fn recycle(&self, _: Wire<Link>) {}
}
