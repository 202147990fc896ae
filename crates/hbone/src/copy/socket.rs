//! One direction from a socket to another.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use runtime::memory::{self, Pressure};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::splice::{Pipe, Spliced};
use super::{CopyError, TURN, buffer, room};

/// Bytes moved in large reads, one after the other, after which a transfer counts as bulk.
const BULK: usize = 256 << 10;
/// What a large read is.
const LARGE: usize = 16 << 10;
/// What is read at most where memory is short: a socket that takes anything takes as much.
const SCARCE: usize = 4 << 10;

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
    half_closed: Duration,
    count: impl Fn(usize),
) -> Result<(), CopyError> {
    let mut turn = 0;
    let mut run = 0;
    loop {
        let amount = match step(reader, writer).await? {
            Moved::End => return finish(writer).await,
            Moved::All(amount) => {
                count(amount);
                amount
            }
            Moved::Part(amount, rest) => {
                count(amount);
                memory::take(rest.len());
                let mut left = &rest[..];
                while !left.is_empty() {
                    let write = |cx: &mut Context<'_>| Pin::new(&mut *writer).poll_write(cx, left);
                    let room = room(reader.as_ref(), half_closed, left.len(), write);
                    let written = Box::pin(room).await?;
                    count(written);
                    left = &left[written..];
                }
                amount + rest.len()
            }
        };
        run = if amount >= LARGE { run + amount } else { 0 };
        turn += amount;
        if run >= BULK {
            run = 0;
            if bulk(reader, writer, half_closed, &count).await? {
                return finish(writer).await;
            }
        }
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Splices until the source pauses, or memory is short, or the source ends: then true.
async fn bulk(
    reader: &ReadHalf<'_>,
    writer: &WriteHalf<'_>,
    half_closed: Duration,
    count: &impl Fn(usize),
) -> Result<bool, CopyError> {
    // What waits in a pipe is more than what is copied at a time.
    if memory::pressure() >= Pressure::Refuse {
        return Ok(false);
    }
    // Without a pipe, for want of descriptors, bytes are copied.
    let Ok(pipe) = Pipe::take() else {
        return Ok(false);
    };
    let mut turn = 0;
    let mut pauses = 0;
    loop {
        let splicing = pipe.splice(reader.as_ref(), writer.as_ref(), half_closed);
        match splicing.await? {
            Spliced::Moved(amount) => {
                count(amount);
                turn += amount;
                pauses = 0;
                if memory::pressure() >= Pressure::Refuse {
                    pipe.give_back();
                    return Ok(false);
                }
            }
            // A sender that is only slower than us is given a moment.
            Spliced::Idle if pauses < 2 => {
                pauses += 1;
                tokio::task::yield_now().await;
            }
            Spliced::Idle => {
                pipe.give_back();
                return Ok(false);
            }
            Spliced::End => {
                pipe.give_back();
                return Ok(true);
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
        let at_most = match memory::poll_room(cx) {
            Poll::Ready(()) => buffer::READ_SIZE,
            // What is handed on at once needs no memory.
            Poll::Pending => {
                ready!(writer.as_ref().poll_write_ready(cx))?;
                SCARCE
            }
        };
        let read = buffer::poll_read_with(reader, cx, at_most, |bytes, cx| {
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

async fn finish(writer: &mut WriteHalf<'_>) -> Result<(), CopyError> {
    match writer.shutdown().await {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error.into()),
        _ => Ok(()),
    }
}
