//! Connections that are not HTTP: bytes to and fro, with half closes.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use crate::deadline::Deadline;
use crate::message::{ConnectionRoute, Pipeline, UpstreamError};
use crate::session::Session;
use crate::transport::Transport;
use crate::upstream::Connections;

/// Bytes a direction moves before it lets its neighbours run.
const TURN: usize = 1 << 20;

/// Told of bytes once they have been handed on.
pub(crate) trait Count {
    /// Bytes towards the server.
    fn received(&self, bytes: u64);
    /// Bytes towards the client.
    fn sent(&self, bytes: u64);
    /// Ready once the connection must not go on.
    fn poll_denied(&self, cx: &mut Context<'_>) -> Poll<()>;
}

/// Nobody counts.
pub(crate) struct Uncounted;

/// Why bytes stopped flowing before both directions ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("client: {0}")]
    Client(io::Error),
    #[error("endpoint: {0}")]
    Endpoint(io::Error),
    #[error("silent for too long")]
    Idle,
    #[error("a policy denies it now")]
    Denied,
}

/// Serves a client's connection to its end.
pub(crate) async fn serve<T: Transport, P: Pipeline>(
    mut client: T,
    received: Bytes,
    session: Session<P>,
    upstream: &Connections,
) {
    let route = match session.pipeline.route_connection(&session.downstream).await {
        Ok(route) => route,
        Err(reason) => {
            tracing::debug!(%reason, destination = %session.downstream.destination, "connection refused");
            return client.abort();
        }
    };
    let mut failure = "no endpoint".to_owned();
    for hop in &route.hops {
        let connected = Box::pin(upstream.connect(hop)).await;
        let told: Result<(), &UpstreamError> = connected.as_ref().map(|_| ());
        route.meter.connected(hop, told);
        match connected {
            Ok(server) => {
                let idle = session.limits.tcp_idle_timeout;
                let ended = relay(client, received, server, &route, idle).await;
                let failure = ended.err().map(|error| error.to_string());
                return route.meter.closed(failure.as_deref());
            }
            Err(error) => failure = error.to_string(),
        }
    }
    client.abort();
    route.meter.closed(Some(&failure));
}

/// Moves bytes until both directions have ended. `received` is the client's already. On an error
/// both ends are aborted.
pub(crate) async fn relay<C: Transport, S: Transport>(
    mut client: C,
    received: Bytes,
    mut server: S,
    count: &impl Count,
    idle: Duration,
) -> Result<(), RelayError> {
    let mut outgoing = Direction {
        chunk: received,
        ..Direction::default()
    };
    let mut incoming = Direction::default();
    let mut deadline = Deadline::default();
    deadline.set(idle);
    let result = poll_fn(|cx| {
        if count.poll_denied(cx).is_ready() {
            return Poll::Ready(Err(RelayError::Denied));
        }
        let mut moved = 0;
        let to_server = outgoing.poll(cx, &mut client, &mut server, &mut |bytes| {
            moved += bytes;
            count.received(bytes);
        });
        let to_server = to_server.map_err(|error| match error {
            Ended::From(error) => RelayError::Client(error),
            Ended::To(error) => RelayError::Endpoint(error),
        })?;
        let to_client = incoming.poll(cx, &mut server, &mut client, &mut |bytes| {
            moved += bytes;
            count.sent(bytes);
        });
        let to_client = to_client.map_err(|error| match error {
            Ended::From(error) => RelayError::Endpoint(error),
            Ended::To(error) => RelayError::Client(error),
        })?;
        if to_server.is_ready() && to_client.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if moved > 0 {
            deadline.set(idle);
        }
        deadline.poll_elapsed(cx).map(|()| Err(RelayError::Idle))
    })
    .await;
    if result.is_err() {
        client.abort();
        server.abort();
    }
    result
}

#[derive(Debug, Default)]
struct Direction {
    chunk: Bytes,
    ended: bool,
    finished: bool,
}

/// Which side of a direction failed.
enum Ended {
    From(io::Error),
    To(io::Error),
}

// === impl Direction ===

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut impl Transport,
        to: &mut impl Transport,
        count: &mut impl FnMut(u64),
    ) -> Poll<Result<(), Ended>> {
        let mut turn = 0;
        loop {
            if !self.chunk.is_empty() {
                let before = self.chunk.len();
                let sent = to.poll_send(cx, &mut self.chunk);
                let moved = before - self.chunk.len();
                turn += moved;
                count(moved as u64);
                ready!(sent).map_err(Ended::To)?;
                self.chunk = Bytes::new();
            }
            if self.finished {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(to.poll_finish(cx)).map_err(Ended::To)?;
                self.finished = true;
                continue;
            }
            if turn >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let data = ready!(from.poll_receive(cx)).map_err(Ended::From)?;
            self.ended = data.is_empty();
            self.chunk = data;
        }
    }
}

// === impl Count ===

impl Count for ConnectionRoute {
    fn received(&self, bytes: u64) {
        self.meter.received(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.meter.sent(bytes);
    }

    fn poll_denied(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.meter.poll_denied(cx)
    }
}

impl Count for Uncounted {
    fn received(&self, _: u64) {}

    fn sent(&self, _: u64) {}

    fn poll_denied(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
