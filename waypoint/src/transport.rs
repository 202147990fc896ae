//! One byte stream of a client or an endpoint, whatever carries it: read and written by the
//! chunk, so that a tunnel's data frames are not copied.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes asked of a socket at a time.
const READ_SIZE: usize = 32 << 10;
/// Reads up to this size are copied out of the thread's buffer instead of keeping it alive.
const SMALL: usize = 4 << 10;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// A byte stream in both directions. Dropping it breaks what is still open.
pub(crate) trait Transport: Unpin + 'static {
    /// The next bytes; empty once the peer has ended its direction.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>>;

    /// Takes from the front of `data`; ready once nothing is left of it.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>>;

    /// Ends the direction towards the peer.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends both directions at once, so that the peer sees a broken connection.
    fn abort(&mut self);
}

/// Anything that reads and writes as a socket does.
#[derive(Debug)]
pub(crate) struct Socket<S>(pub(crate) S);

/// Reads and writes a transport as a socket, for whoever needs one.
pub(crate) struct Stream<T> {
    transport: T,
    /// Received and not yet read.
    received: Bytes,
    /// Written and not yet admitted by the peer's window.
    unsent: Bytes,
}

impl Transport for hbone::stream::Stream {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match ready!(self.poll_receive(cx)) {
            Some(received) => Poll::Ready(received.map_err(io::Error::other)),
            None => Poll::Ready(Ok(Bytes::new())),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        self.poll_send(cx, data).map_err(io::Error::other)
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish().map_err(io::Error::other))
    }

    fn abort(&mut self) {
        self.abort();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Transport for Socket<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        BUFFER.with_borrow_mut(|buffer| {
            buffer.reserve(READ_SIZE);
            let socket = Pin::new(&mut self.0);
            let amount = ready!(tokio_util::io::poll_read_buf(socket, cx, buffer))?;
            if amount <= SMALL {
                let chunk = Bytes::copy_from_slice(buffer);
                buffer.clear();
                return Poll::Ready(Ok(chunk));
            }
            Poll::Ready(Ok(buffer.split().freeze()))
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        while !data.is_empty() {
            let written = ready!(Pin::new(&mut self.0).poll_write(cx, data))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            data.advance(written);
        }
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.0).poll_shutdown(cx)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }

    fn abort(&mut self) {}
}

// === impl Stream ===

impl<T: Transport> Stream<T> {
    /// Reads `received` before anything of the transport's.
    pub(crate) fn new(transport: T, received: Bytes) -> Self {
        Self {
            transport,
            received,
            unsent: Bytes::new(),
        }
    }
}

impl<T: Transport> AsyncRead for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            self.received = ready!(self.transport.poll_receive(cx))?;
        }
        let amount = self.received.len().min(buf.remaining());
        buf.put_slice(&self.received[..amount]);
        self.received.advance(amount);
        if self.received.is_empty() {
            // An empty rest would keep its chunk alive.
            self.received = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for Stream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.transport.poll_send(cx, &mut this.unsent))?;
        this.unsent = Bytes::copy_from_slice(buf);
        // What the window does not admit now is taken on all the same, once.
        if let Poll::Ready(Err(error)) = this.transport.poll_send(cx, &mut this.unsent) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.transport.poll_send(cx, &mut this.unsent)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.transport.poll_send(cx, &mut this.unsent))?;
        this.transport.poll_finish(cx)
    }
}
