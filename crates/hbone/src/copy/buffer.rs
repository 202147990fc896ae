//! The thread's read buffer, shared by all its copies.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use runtime::memory;
use tokio::io::AsyncRead;
use tokio::net::tcp::ReadHalf;
use tokio_util::io::poll_read_buf;

/// Most bytes taken from a socket at a time.
const READ_SIZE: usize = 128 << 10;
/// Reads up to this size are copied out, so that a short message that waits for its
/// peer doesn't keep a whole buffer alive.
const SMALL: usize = 4 << 10;

thread_local! {
    static BUFFER: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads what the socket has; empty at its end.
pub(super) fn poll_read(
    reader: &mut ReadHalf<'_>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Bytes>> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.reserve(READ_SIZE);
        let amount = ready!(poll_read_buf(Pin::new(reader), cx, buffer))?;
        let chunk = if amount <= SMALL {
            let chunk = Bytes::copy_from_slice(buffer);
            buffer.clear();
            chunk
        } else {
            // It may stay for as long as its peer takes nothing, or the tunnel is slow.
            memory::take(amount);
            buffer.split().freeze()
        };
        Poll::Ready(Ok(chunk))
    })
}

/// Reads what the socket has and hands it to `use_bytes` in place; none at its end.
pub(super) fn poll_read_with<R>(
    reader: &mut ReadHalf<'_>,
    cx: &mut Context<'_>,
    use_bytes: impl FnOnce(&[u8], &mut Context<'_>) -> R,
) -> Poll<io::Result<Option<R>>> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.reserve(READ_SIZE);
        let amount = ready!(Pin::new(reader).poll_read_into(cx, buffer))?;
        let result = (amount > 0).then(|| use_bytes(buffer, cx));
        buffer.clear();
        Poll::Ready(Ok(result))
    })
}

trait PollReadInto {
    fn poll_read_into(self, cx: &mut Context<'_>, buffer: &mut BytesMut)
    -> Poll<io::Result<usize>>;
}

impl<R: AsyncRead> PollReadInto for Pin<&mut R> {
    fn poll_read_into(
        self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(self, cx, buffer)
    }
}
