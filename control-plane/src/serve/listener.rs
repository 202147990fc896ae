//! The TLS side of the gRPC port: handshakes with deadlines, each on its own task and few for
//! each source, so that neither a slow peer nor one that opens many keeps the others waiting.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use runtime::drain;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a client's first byte, which it sends without waiting for anything.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(2);
/// Handshakes at one time: each costs a signature.
const HANDSHAKES: usize = 256;
/// Of them from one source; a ztunnel needs two.
const HANDSHAKES_PER_SOURCE: usize = 16;
/// After an error that is about this process, such as no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose handshake is done.
pub(super) struct Connection(TlsStream<TcpStream>);

/// How many handshakes each source has open.
#[derive(Clone, Default)]
struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One handshake of a source, until dropped.
struct Handshake {
    sources: Sources,
    source: IpAddr,
}

/// Accepts until the drain begins.
pub(super) fn accept(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    mut drain: drain::Watch,
) -> ReceiverStream<io::Result<Connection>> {
    let (accepted, connections) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(tls);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let sources = Sources::default();
    tokio::spawn(async move {
        loop {
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            let (stream, peer) = tokio::select! {
                accept = listener.accept() => match accept {
                    Ok(accept) => accept,
                    Err(error) => {
                        tracing::warn!("can't accept connections: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
                _ = drain.signaled() => return,
                () = accepted.closed() => return,
            };
            let Some(handshake) = sources.begin(peer.ip()) else {
                tracing::debug!(%peer, "refused: too many handshakes from there");
                continue;
            };
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                let _permits = (permit, handshake);
                // Failing to set it costs latency, nothing else.
                let _ = stream.set_nodelay(true);
                let first = tokio::time::timeout(FIRST_BYTE_TIMEOUT, stream.readable());
                if !matches!(first.await, Ok(Ok(()))) {
                    return tracing::debug!(%peer, "said nothing");
                }
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let _ = accepted.send(Ok(Connection(stream))).await;
                    }
                    Ok(Err(error)) => tracing::debug!(%peer, "TLS handshake failed: {error}"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

// === impl Sources, Handshake ===

impl Sources {
    /// None where the source has as many as it may.
    fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let source = network(address);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_default();
        (*count < HANDSHAKES_PER_SOURCE).then(|| {
            *count += 1;
            Handshake {
                sources: self.clone(),
                source,
            }
        })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let open = self.sources.0.lock();
        let mut open = open.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
    }
}

/// An IPv4 address stands for itself; whoever has an IPv6 address has its /64 too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

// === impl Connection ===

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.0.get_ref().0.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_handshakes_to_the_others() {
        let sources = Sources::default();
        let attacker = |last: u16| IpAddr::from([0xfd00, 0, 0, 1, 0, 0, 0, last]);
        let mut open: Vec<_> = (0..100)
            .filter_map(|number| sources.begin(attacker(number)))
            .collect();
        assert_eq!(open.len(), HANDSHAKES_PER_SOURCE);
        let other = IpAddr::from([10, 0, 0, 1]);
        let others = sources.begin(other);
        assert!(others.is_some());
        open.pop();
        assert!(sources.begin(attacker(1)).is_some());
        drop((open, others));
        assert!(sources.0.lock().expect("not poisoned").is_empty());
    }
}
