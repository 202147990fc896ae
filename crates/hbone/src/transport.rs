//! The socket under TLS: large reads, and a count of them for the keepalive.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

/// TLS asks for 4 KiB at a time; the kernel is asked for this much.
const READ_SIZE: usize = 64 << 10;

/// How many reads have brought bytes, so that a busy connection needs no probe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Rc<Cell<u64>>);

/// A TCP stream that reads ahead. The buffer is given back whenever it is empty.
#[derive(Debug)]
pub(crate) struct Transport {
    tcp: TcpStream,
    ahead: BytesMut,
    activity: Activity,
}

// === impl Activity ===

impl Activity {
    pub(crate) fn reads(&self) -> u64 {
        self.0.get()
    }
}

// === impl Transport ===

impl Transport {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            ahead: BytesMut::new(),
            activity: Activity::default(),
        }
    }

    pub(crate) fn activity(&self) -> Activity {
        self.activity.clone()
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            if this.tcp.poll_read_ready(cx)?.is_pending() {
                this.ahead = BytesMut::new();
                return Poll::Pending;
            }
            this.ahead.reserve(READ_SIZE);
            if ready!(poll_read_buf(Pin::new(&mut this.tcp), cx, &mut this.ahead))? == 0 {
                return Poll::Ready(Ok(()));
            }
            this.activity.0.set(this.activity.0.get() + 1);
        }
        let amount = buf.remaining().min(this.ahead.len());
        buf.put_slice(&this.ahead[..amount]);
        this.ahead.advance(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tcp).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
