//! One direction at a time between a socket and a stream.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::poll;
use h2::Reason;
use runtime::memory;
use runtime::memory::shedding::WAITING;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::{CopyError, Meter, Progress, TURN, buffer, room};
use crate::stream::{Receiver, Sender};

/// Chunks gathered into one write.
const BATCH: usize = 32;

pub(super) async fn to_stream<M: Meter>(
    reader: &mut ReadHalf<'_>,
    sender: &mut Sender,
    half_closed: Duration,
    progress: &Progress<'_, M>,
) -> Result<(), CopyError> {
    let mut turn = 0;
    // Whether what is read is for nobody any more. It is read all the same: a socket that is
    // closed with bytes unread resets its peer, which then loses what it has not read itself.
    let mut discarding = false;
    loop {
        // A peer that gave the stream up is noticed without bytes to send.
        let chunk = poll_fn(|cx| {
            loop {
                if memory::poll_room(cx).is_ready()
                    && let Poll::Ready(chunk) = buffer::poll_read(reader, cx)
                {
                    return Poll::Ready(chunk.map_err(CopyError::from));
                }
                if discarding {
                    return Poll::Pending;
                }
                match ready!(sender.poll_closed(cx)) {
                    error if reads_no_more(&error) => discarding = true,
                    error => return Poll::Ready(Err(error.into())),
                }
            }
        })
        .await?;
        let amount = chunk.len();
        if amount == 0 {
            return match discarding {
                true => Ok(()),
                false => sender.finish().or_else(unless_reads_no_more),
            };
        }
        if discarding {
            drop(chunk);
        } else {
            match send(reader.as_ref(), sender, chunk, half_closed).await {
                Ok(()) => progress.outgoing(amount),
                Err(CopyError::Tunnel(error)) if reads_no_more(&error) => discarding = true,
                Err(error) => return Err(error),
            }
        }
        turn += amount;
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Sends all of a chunk as the peer's window admits it.
async fn send(
    source: &TcpStream,
    sender: &mut Sender,
    mut chunk: Bytes,
    half_closed: Duration,
) -> Result<(), CopyError> {
    while !chunk.is_empty() {
        // Most often there is room, and what waits for it has no place in every connection.
        let sent = poll_fn(|cx| Poll::Ready(sender.poll_send_some(cx, &mut chunk))).await;
        match sent {
            Poll::Ready(sent) => sent?,
            Poll::Pending => {
                let held = chunk.len();
                let send = |cx: &mut Context<'_>| sender.poll_send_some(cx, &mut chunk);
                Box::pin(room(source, half_closed, held, send)).await?;
            }
        }
    }
    Ok(())
}

/// RFC 9113 §8.1: a peer that has said all may ask us to stop, and what it said still counts.
fn reads_no_more(error: &h2::Error) -> bool {
    error.reason() == Some(Reason::NO_ERROR) && !error.is_go_away() && !error.is_io()
}

fn unless_reads_no_more(error: h2::Error) -> Result<(), CopyError> {
    match reads_no_more(&error) {
        true => Ok(()),
        false => Err(error.into()),
    }
}

pub(super) async fn from_stream<M: Meter>(
    receiver: &mut Receiver,
    writer: &mut WriteHalf<'_>,
    progress: &Progress<'_, M>,
) -> Result<(), CopyError> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut turn = 0;
    loop {
        let ended = poll_fn(|cx| {
            while chunks.len() < BATCH {
                match receiver.poll_data(cx) {
                    Poll::Ready(Some(Ok(chunk))) if chunk.is_empty() => {}
                    Poll::Ready(Some(Ok(chunk))) => chunks.push(chunk),
                    // What came before the error is delivered first; the error comes again.
                    Poll::Ready(Some(Err(error))) if chunks.is_empty() => {
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(Some(Err(_))) => break,
                    Poll::Ready(None) => return Poll::Ready(Ok(true)),
                    Poll::Pending if chunks.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(false))
        })
        .await?;
        let amount = {
            let written = Cell::new(0);
            let mut writing = pin!(write_all(writer, &mut chunks, &written));
            // Most often the socket takes all, and what waits for it has no place in every connection.
            match poll!(writing.as_mut()) {
                Poll::Ready(amount) => amount?,
                Poll::Pending => Box::pin(unless_shed(writing, receiver, &written)).await?,
            }
        };
        receiver.release(amount);
        progress.incoming(amount);
        if ended {
            return finish(writer).await;
        }
        turn += amount;
        if turn >= TURN {
            turn = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Waits for a socket, but not where memory is short: what waits so is what a tunnel's memory is made of.
async fn unless_shed(
    writing: impl Future<Output = io::Result<usize>>,
    receiver: &mut Receiver,
    written: &Cell<usize>,
) -> Result<usize, CopyError> {
    tokio::select! {
        biased;
        amount = writing => Ok(amount?),
        () = WAITING.shed(|| receiver.held(), || written.get() as u64) => Err(CopyError::MemoryShort),
    }
}

/// Writes the chunks and forgets them and the list that held them. Tells how much is written already.
async fn write_all(
    writer: &mut WriteHalf<'_>,
    chunks: &mut Vec<Bytes>,
    progress: &Cell<usize>,
) -> io::Result<usize> {
    let mut first = 0;
    while first < chunks.len() {
        let mut written = poll_fn(|cx| match &chunks[first..] {
            [one] => Pin::new(&mut *writer).poll_write(cx, one),
            many => {
                let mut slices = [IoSlice::new(&[]); BATCH];
                for (slice, chunk) in slices.iter_mut().zip(many) {
                    *slice = IoSlice::new(chunk);
                }
                Pin::new(&mut *writer).poll_write_vectored(cx, &slices[..many.len()])
            }
        })
        .await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        progress.set(progress.get() + written);
        while written > 0 {
            let part = written.min(chunks[first].len());
            chunks[first].advance(part);
            written -= part;
            if chunks[first].is_empty() {
                first += 1;
            }
        }
    }
    *chunks = Vec::new();
    Ok(progress.get())
}

async fn finish(writer: &mut WriteHalf<'_>) -> Result<(), CopyError> {
    match writer.shutdown().await {
        Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error.into()),
        _ => Ok(()),
    }
}
