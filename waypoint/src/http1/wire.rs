//! A transport with what was read ahead of the message and what waits to be written. Without a
//! message under way neither holds a buffer.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::chunked::{self, ChunkError};
use super::framing::Length;
use super::head::HeadError;
use crate::limits::HeadLimits;
use crate::message::BodyError;
use crate::transport::Transport;

/// Chunks up to this size are copied next to what is written before them; larger ones go by
/// themselves.
const COPY: usize = 8 << 10;

pub(crate) struct Wire<T> {
    pub(crate) transport: T,
    pub(crate) input: Input,
    pub(crate) output: Output,
}

/// What was received and not yet used.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) pending: Bytes,
    /// The beginning of a head that came in pieces; [`Self::pending`] is empty then.
    partial: BytesMut,
    scanned: usize,
    pub(crate) ended: bool,
}

/// What is to be written, in order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    length: usize,
}

/// Reads one message's body.
#[derive(Debug)]
pub(crate) enum Decoder {
    Exact(u64),
    Chunked(Box<chunked::Decoder>),
    UntilClose,
    Done,
}

/// What the next bytes of a body were.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(Frame<Bytes>),
    More,
    End,
}

/// Why no head came.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The peer ended within a head.
    Truncated,
    Io(io::Error),
    Head(HeadError),
}

// === impl Wire ===

impl<T: Transport> Wire<T> {
    pub(crate) fn new(transport: T, received: Bytes) -> Self {
        Self {
            transport,
            input: Input {
                pending: received,
                ..Input::default()
            },
            output: Output::default(),
        }
    }

    /// Reads a head with `parse`; none where the peer has ended before its first byte.
    pub(crate) fn poll_head<H>(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        mut parse: impl FnMut(&mut Bytes) -> Result<Option<H>, HeadError>,
    ) -> Poll<Result<Option<H>, ReadError>> {
        loop {
            let parsed = self.input.try_head(limits, &mut parse);
            if let Some(head) = parsed.map_err(ReadError::Head)? {
                return Poll::Ready(Ok(Some(head)));
            }
            if self.input.ended {
                return Poll::Ready(match self.input.is_empty() {
                    true => Ok(None),
                    false => Err(ReadError::Truncated),
                });
            }
            ready!(self.poll_more(cx)).map_err(ReadError::Io)?;
        }
    }

    /// Reads the next frame of a body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
        limits: &HeadLimits,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match decoder.decode(&mut self.input.pending, limits) {
                Ok(Step::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Step::End) => return Poll::Ready(None),
                Ok(Step::More) => {}
                Err(error) => {
                    return Poll::Ready(Some(Err(BodyError::Protocol(error.to_string()))));
                }
            }
            if self.input.ended {
                return Poll::Ready(match decoder {
                    Decoder::UntilClose => {
                        *decoder = Decoder::Done;
                        None
                    }
                    Decoder::Done => None,
                    Decoder::Exact(_) | Decoder::Chunked(_) => {
                        Some(Err(BodyError::Reset("closed within a body".to_owned())))
                    }
                });
            }
            if let Err(error) = ready!(self.poll_more(cx)) {
                return Poll::Ready(Some(Err(BodyError::Reset(error.to_string()))));
            }
        }
    }

    /// Receives once.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let received = ready!(self.transport.poll_receive(cx))?;
        if received.is_empty() {
            self.input.ended = true;
        } else {
            self.input.push(received);
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_flush(cx, &mut self.transport)
    }
}

// === impl Input ===

impl Input {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.partial.is_empty()
    }

    /// Whether a head has begun.
    pub(crate) fn is_partial(&self) -> bool {
        !self.is_empty()
    }

    fn push(&mut self, received: Bytes) {
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&received);
        } else if self.pending.is_empty() {
            self.pending = received;
        } else {
            let mut joined = BytesMut::with_capacity(self.pending.len() + received.len());
            joined.extend_from_slice(&self.pending);
            joined.extend_from_slice(&received);
            self.pending = joined.freeze();
        }
    }

    /// Parses again only when a head's end has come, so that a head in many pieces costs no
    /// more than its bytes.
    fn try_head<H>(
        &mut self,
        limits: &HeadLimits,
        parse: &mut impl FnMut(&mut Bytes) -> Result<Option<H>, HeadError>,
    ) -> Result<Option<H>, HeadError> {
        if !self.partial.is_empty() {
            let from = self.scanned.saturating_sub(3);
            let mut ends = self.partial[from..].windows(3);
            if !ends.any(|three| three == b"\n\r\n" || three[1..] == *b"\n\n") {
                self.scanned = self.partial.len();
                if self.partial.len() > limits.bytes {
                    return Err(HeadError::TooLarge);
                }
                return Ok(None);
            }
            self.pending = mem::take(&mut self.partial).freeze();
            self.scanned = 0;
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        if let Some(head) = parse(&mut self.pending)? {
            if self.pending.is_empty() {
                // An empty rest would keep its chunk alive.
                self.pending = Bytes::new();
            }
            return Ok(Some(head));
        }
        self.partial = BytesMut::from(&mem::take(&mut self.pending)[..]);
        self.scanned = self.partial.len();
        Ok(None)
    }
}

// === impl Output ===

impl Output {
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.tail.is_empty()
    }

    /// Bytes that large chunks hold; small ones are as good as written.
    pub(crate) fn len(&self) -> usize {
        self.length + self.tail.len()
    }

    /// Where small things are written, with room for `size` bytes.
    pub(crate) fn buffer(&mut self, size: usize) -> &mut BytesMut {
        self.tail.reserve(size);
        &mut self.tail
    }

    pub(crate) fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.tail.extend_from_slice(&data);
        } else {
            self.seal();
            self.length += data.len();
            self.chunks.push_back(data);
        }
    }

    pub(crate) fn poll_flush<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut T,
    ) -> Poll<io::Result<()>> {
        self.seal();
        while let Some(chunk) = self.chunks.front_mut() {
            let before = chunk.len();
            let sent = transport.poll_send(cx, chunk);
            self.length -= before - chunk.len();
            ready!(sent)?;
            self.chunks.pop_front();
        }
        self.chunks = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let chunk = mem::take(&mut self.tail).freeze();
            self.length += chunk.len();
            self.chunks.push_back(chunk);
        }
    }
}

// === impl Decoder ===

impl Decoder {
    pub(crate) fn new(length: Length) -> Self {
        match length {
            Length::None => Self::Done,
            Length::Exact(length) => Self::Exact(length),
            Length::Chunked => Self::Chunked(Box::default()),
            Length::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Bytes still to come, where they are known.
    pub(crate) fn exact(&self) -> Option<u64> {
        match self {
            Self::Exact(left) => Some(*left),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes from the front of `input`.
    pub(crate) fn decode(
        &mut self,
        input: &mut Bytes,
        limits: &HeadLimits,
    ) -> Result<Step, ChunkError> {
        let step = match self {
            Self::Done => return Ok(Step::End),
            Self::Exact(_) | Self::UntilClose if input.is_empty() => return Ok(Step::More),
            Self::Exact(left) => {
                let amount = usize::try_from(*left).map_or(input.len(), |n| n.min(input.len()));
                let data = input.split_to(amount);
                *left -= amount as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Step::Frame(Frame::data(data))
            }
            Self::UntilClose => Step::Frame(Frame::data(mem::take(input))),
            Self::Chunked(decoder) => match decoder.decode(input, limits)? {
                chunked::Decoded::Data(data) => Step::Frame(Frame::data(data)),
                chunked::Decoded::More => Step::More,
                chunked::Decoded::End(trailers) => {
                    *self = Self::Done;
                    match trailers {
                        Some(trailers) => Step::Frame(Frame::trailers(trailers)),
                        None => Step::End,
                    }
                }
            },
        };
        if input.is_empty() {
            *input = Bytes::new();
        }
        Ok(step)
    }
}
