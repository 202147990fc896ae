//! Connections that switched protocols (RFC 9110 §7.8): bytes to and fro after both sides agreed.

use std::pin::Pin;

use crate::http1::wire::Wire;
use crate::message::Io;
use crate::session::Session;
use crate::tcp::{self, Uncounted};
use crate::transport::{Socket, Transport};

/// Carries a client's connection to what its 101 brought.
pub(crate) async fn run<T: Transport, P>(
    wire: Wire<T>,
    server: Pin<Box<dyn Io>>,
    session: &Session<P>,
) {
    let Wire {
        transport, input, ..
    } = wire;
    let idle = session.limits.tcp_idle_timeout;
    let server = Socket(server);
    if let Err(error) = tcp::relay(transport, input.pending, server, &Uncounted, idle).await {
        tracing::debug!(%error, "upgraded connection ended");
    }
}
