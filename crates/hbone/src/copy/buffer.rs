//! The thread's read buffer, shared by all its copies.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use runtime::memory;
use tokio::net::tcp::ReadHalf;
use tokio_util::io::poll_read_buf;

/// Most bytes taken from a socket at a time.
pub(super) const READ_SIZE: usize = 128 << 10;
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
        // It may stay for as long as its peer takes nothing, or the tunnel is slow.
        let (chunk, stays) = if amount <= SMALL {
            let chunk = Bytes::copy_from_slice(buffer);
            buffer.clear();
            (chunk, amount)
        } else {
            (buffer.split().freeze(), READ_SIZE)
        };
        memory::take(stays);
        Poll::Ready(Ok(chunk))
    })
}

/// Reads what the socket has, so many bytes of it `at_most`, and hands it to `use_bytes` in place; none
/// at its end.
pub(super) fn poll_read_with<R>(
    reader: &mut ReadHalf<'_>,
    cx: &mut Context<'_>,
    at_most: usize,
    use_bytes: impl FnOnce(&[u8], &mut Context<'_>) -> R,
) -> Poll<io::Result<Option<R>>> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.reserve(READ_SIZE);
        let limited = &mut (&mut *buffer).limit(at_most);
        let amount = ready!(poll_read_buf(Pin::new(reader), cx, limited))?;
        let result = (amount > 0).then(|| use_bytes(buffer, cx));
        buffer.clear();
        Poll::Ready(Ok(result))
    })
}
