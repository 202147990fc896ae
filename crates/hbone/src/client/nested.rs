//! A tunnel within a stream of another: double HBONE, through a gateway into another network. The
//! gateway ends the outer tunnel only, and passes what is in the stream on as it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures::TryFutureExt;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time;
use tokio_rustls::TlsConnector;

use super::{ConnectError, Tunnel, drive, http2, lost, tls_error};
use crate::guard::{Guard, Peer};
use crate::keepalive::Doubt;
use crate::settings::Settings;
use crate::stream::Stream;
use crate::tls::Activity;

/// Makes a tunnel in `stream`, which `gateway` passes on. Who is behind the gateway must prove to be
/// who `tls` expects. The stream ends with the tunnel.
pub async fn handshake_within(
    stream: Stream,
    gateway: SocketAddr,
    tls: Arc<ClientConfig>,
    settings: &Settings,
) -> Result<Tunnel, ConnectError> {
    match time::timeout(
        settings.handshake_timeout,
        shake(stream, gateway, tls, settings),
    )
    .await
    {
        Ok(result) => result,
        Err(_) => Err(ConnectError::HandshakeTimeout),
    }
}

async fn shake(
    stream: Stream,
    gateway: SocketAddr,
    tls: Arc<ClientConfig>,
    settings: &Settings,
) -> Result<Tunnel, ConnectError> {
    let outer = stream.tunnel();
    let activity = outer
        .as_ref()
        .map_or_else(Activity::default, |outer| outer.activity.of_carried());
    let carried = Carried {
        stream,
        received: Bytes::new(),
        unsent: Bytes::new(),
        activity: activity.clone(),
    };
    let stream = TlsConnector::from(tls)
        .connect(identity::no_server_name(), carried)
        .await
        .map_err(tls_error)?;
    let (_, session) = stream.get_ref();
    let peer_chain = session.peer_certificates().unwrap_or_default().into();
    let key_exchange = identity::key_exchange_group(session).unwrap_or("unknown");
    let (requests, mut connection) = http2(Guarded::new(stream), settings).await?;
    let doubt = Doubt::default();
    let pings = connection.ping_pong();
    let lost = lost(pings, activity.clone(), doubt.clone(), settings);
    Ok(Tunnel {
        requests,
        shared: drive(
            gateway,
            connection.map_err(io::Error::other),
            activity,
            outer,
            lost,
        ),
        response_timeout: settings.response_timeout,
        stream_limit: settings.client_streams,
        doubt,
        peer_chain,
        key_exchange,
    })
}

/// What the inner tunnel's server says, watched as the outer one's is.
struct Guarded<S> {
    inner: S,
    guard: Guard,
}

/// A stream as the socket of a tunnel.
struct Carried {
    stream: Stream,
    received: Bytes,
    /// Accepted and waiting for the outer tunnel's window.
    unsent: Bytes,
    activity: Activity,
}

// === impl Guarded ===

impl<S> Guarded<S> {
    fn new(inner: S) -> Self {
        Self {
            inner,
            guard: Guard::new(Peer::Server),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let seen = self.guard.observe(&buf.filled()[before..], Instant::now);
        Poll::Ready(seen.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        self.guard.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

// === impl Carried ===

impl Carried {
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.stream.poll_send(cx, &mut self.unsent);
        sent.map_err(io::Error::other)
    }
}

impl AsyncRead for Carried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            match ready!(self.stream.poll_receive(cx)) {
                Some(Ok(bytes)) => {
                    self.activity.count();
                    self.received = bytes;
                }
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let amount = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..amount]);
        self.received.advance(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Carried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unsent(cx))?;
        self.unsent = Bytes::copy_from_slice(buf);
        match self.poll_unsent(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(buf.len())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_unsent(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unsent(cx))?;
        // It fails only where the stream has ended already.
        let _ = self.stream.finish();
        Poll::Ready(Ok(()))
    }
}
