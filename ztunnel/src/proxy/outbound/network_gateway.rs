//! Connections into another network: a tunnel through its gateway, and in one of its streams a
//! tunnel of this connection's own to whoever serves it there.

use hbone::client::{self, ConnectError, ConnectRequest, OpenError, Tunnel};
use hbone::copy::{self, Side};
use hbone::headers::{self, TraceParent};
use hbone::stream::Stream;
use http::{HeaderMap, HeaderValue};
use mesh::destination::{Authority, Crossing, Hop};

use super::Client;
use super::attempts::{Fault, HopFailure};
use crate::metrics::ResponseFlags;
use crate::proxy::access_log::Direction;
use crate::proxy::connections::Protocol;
use crate::proxy::telemetry::{Conversation, Failure};

/// What was opened behind the gateway.
struct Inner {
    tunnel: Tunnel,
    stream: Stream,
    /// What the 200 says of who serves it.
    headers: HeaderMap,
}

// === impl Client ===

impl Client {
    pub(super) async fn through_gateway(
        &mut self,
        hop: &Hop,
        crossing: &Crossing,
    ) -> Result<(), HopFailure> {
        let mut conversation = self.mutual(hop, crossing.address);
        conversation.hbone_address = Some(crossing.authority.clone());
        let trace = TraceParent::random(&mut rand::rng());
        conversation.trace = Some(trace.trace_id());
        // The endpoint stands for all of its network: who serves is known when it has answered.
        conversation.destination.workload = None;
        conversation.destination.identity = None;
        let inner = match Box::pin(self.open_within(crossing, trace)).await {
            Ok(inner) => inner,
            Err((failure, fault)) => {
                return Err(HopFailure {
                    conversation,
                    failure,
                    fault,
                });
            }
        };
        self.name_server(&mut conversation, &inner);
        let Inner {
            tunnel, mut stream, ..
        } = inner;
        // It ends with its only stream.
        drop(tunnel);
        self.established(&hop.workload);
        self.caller.reached().await;
        let tracked = conversation.open(&self.worker);
        let _listed = self.list(crossing.address, Protocol::DoubleHbone);
        let half_closed = self.worker.shared.config.half_closed_timeout;
        let tcp = &mut self.caller.tcp;
        let result = copy::tunnel(tcp, &mut stream, Side::Client, half_closed, &tracked).await;
        tracked.finish(Failure::of_tunnel(stream.cut(), result));
        Ok(())
    }

    /// Who serves, by its certificate and by what it says of itself.
    fn name_server(&self, conversation: &mut Conversation, inner: &Inner) {
        conversation.tls_group = Some(inner.tunnel.key_exchange());
        conversation.destination.identity = inner.tunnel.peer();
        if self.worker.shared.config.response_baggage
            && let Some(identity) = &conversation.destination.identity
        {
            let described = self.worker.described.workload(identity, &inner.headers);
            conversation.destination.workload = described;
        }
    }

    async fn open_within(
        &self,
        crossing: &Crossing,
        trace: TraceParent,
    ) -> Result<Inner, (Failure, Fault)> {
        let Some(asked) = request(&crossing.authority) else {
            let reason = format!("{} can't be asked for", crossing.authority);
            let failure = Failure::new(ResponseFlags::Connect, reason);
            return Err((failure, Fault::Final));
        };
        let headers = self.headers(trace);
        let outer = ConnectRequest {
            authority: asked.clone(),
            headers: headers.clone(),
        };
        let (address, expected) = (crossing.address, &crossing.gateway_expected);
        // It serves endpoints of all its network: their names make no difference to its tunnels.
        let opening = self.open_tunnel(None, address, expected, outer, false);
        let opened = Box::pin(opening).await.map_err(|(failure, fault)| {
            let fault = match fault {
                Fault::Endpoint => Fault::Gateway,
                Fault::Silent | Fault::Gateway | Fault::Unclear | Fault::Final => fault,
            };
            (failure, fault)
        })?;
        if let Some(proxies) = &crossing.proxies {
            let ejections = &self.worker.shared.ejections;
            ejections.succeeded(proxies.candidates(), &crossing.gateway);
        }
        let certificate = self.worker.certificate(&self.identity()).await;
        let certificate = certificate.map_err(|reason| {
            let failure = Failure::new(ResponseFlags::TlsFailure, reason);
            (failure, Fault::Final)
        })?;
        let config = &self.worker.shared.config;
        let tls = certificate.client_config(&crossing.expected);
        let shaken = client::handshake_within(opened.stream, address, tls, &config.tunnel).await;
        if matches!(shaken, Err(ConnectError::Revoked)) {
            self.worker.count_revocation(Direction::Outbound);
        }
        let tunnel = shaken.map_err(|error| failed(&error.into()))?;
        self.worker
            .count_handshake(tunnel.key_exchange(), Direction::Outbound);
        self.worker.cut_when_revoked(&certificate, &tunnel);
        let inner = ConnectRequest {
            authority: asked,
            headers: from_network(headers, &config.network),
        };
        let (stream, headers) = tunnel
            .open_described(inner)
            .await
            .map_err(|error| failed(&error))?;
        Ok(Inner {
            tunnel,
            stream,
            headers,
        })
    }
}

/// The gateway is there: what is wrong behind it may not be elsewhere.
fn failed(error: &OpenError) -> (Failure, Fault) {
    (Failure::of_open(error), Fault::of_open(error, false))
}

fn request(authority: &Authority) -> Option<http::uri::Authority> {
    authority.to_string().parse().ok()
}

/// Tells the far side that the address it sees is not the client's.
fn from_network(mut headers: HeaderMap, network: &str) -> HeaderMap {
    if let Ok(network) = HeaderValue::from_str(network) {
        headers.insert(headers::FORWARDED_NETWORK, network);
    }
    headers
}
