//! One direction from a socket to another.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{CopyError, TURN, buffer};

/// What one read brought.
enum Moved {
    End,
    All(usize),
    /// So many bytes are written; the rest waits for the peer.
    Part(usize, Vec<u8>),
}

pub(super) async fn pump(
    reader: &mut ReadHalf<'_>,
    writer: &mut WriteHalf<'_>,
    count: impl Fn(usize),
) -> Result<(), CopyError> {
    let mut turn = 0;
    loop {
        match step(reader, writer).await? {
            Moved::End => {
                return match writer.shutdown().await {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error.into()),
                    _ => Ok(()),
                };
            }
            Moved::All(amount) => {
                count(amount);
                turn += amount;
            }
            Moved::Part(amount, rest) => {
                count(amount);
                writer.write_all(&rest).await?;
                count(rest.len());
                turn += amount + rest.len();
            }
        }
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Reads once and writes it on from the same buffer; only what the peer doesn't take at
/// once is kept.
async fn step(reader: &mut ReadHalf<'_>, writer: &mut WriteHalf<'_>) -> io::Result<Moved> {
    poll_fn(|cx| {
        let read = buffer::poll_read_with(reader, cx, |bytes, cx| {
            match Pin::new(&mut *writer).poll_write(cx, bytes) {
                Poll::Ready(Ok(amount)) if amount == bytes.len() => Ok(Moved::All(amount)),
                Poll::Ready(Ok(amount)) => Ok(Moved::Part(amount, bytes[amount..].to_vec())),
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => Ok(Moved::Part(0, bytes.to_vec())),
            }
        });
        match read {
            Poll::Ready(Ok(Some(moved))) => Poll::Ready(moved),
            Poll::Ready(Ok(None)) => Poll::Ready(Ok(Moved::End)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
