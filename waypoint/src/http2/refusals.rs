//! Streams that the HTTP/2 library refuses by itself, seen in what it writes.
//!
//! A malformed request never becomes one: the library resets its stream and tells nobody but the
//! client. So the frames that it writes are looked at, their heads only, for RST_STREAM.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::Reason;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// RFC 9113 §6.4.
const RST_STREAM: u8 = 3;
const FRAME_HEAD: usize = 9;
/// With the error code that is all of RST_STREAM's payload.
const RESET: usize = FRAME_HEAD + 4;

/// What is told of each refused stream: its number, and why.
pub(crate) type Told = Rc<dyn Fn(u32, Reason)>;

/// A byte stream whose written frames are looked at.
pub(crate) struct Watched<S> {
    io: S,
    frames: Frames,
    told: Told,
}

/// Where in the frames the next byte is.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; RESET],
    read: usize,
    /// Bytes of the payload still to come.
    left: usize,
}

/// Streams that have become requests: their own end tells of them.
#[derive(Default)]
pub(crate) struct Accepted(RefCell<Vec<u32>>);

/// One of them, until dropped.
pub(crate) struct Request {
    accepted: Rc<Accepted>,
    stream: u32,
}

/// What a client is told that is refused for this; none for a reset that is none of the library's
/// own: we give up what its client or its endpoint has given up.
pub(crate) fn status(reason: Reason) -> Option<StatusCode> {
    match reason {
        Reason::NO_ERROR | Reason::INTERNAL_ERROR | Reason::CANCEL | Reason::CONNECT_ERROR => None,
        Reason::REFUSED_STREAM => Some(StatusCode::SERVICE_UNAVAILABLE),
        Reason::ENHANCE_YOUR_CALM => Some(StatusCode::TOO_MANY_REQUESTS),
        _ => Some(StatusCode::BAD_REQUEST),
    }
}

// === impl Watched ===

impl<S> Watched<S> {
    pub(crate) fn new(io: S, told: Told) -> Self {
        Self {
            io,
            frames: Frames::default(),
            told,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.frames.read(&buf[..written], &*this.told);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

// === impl Frames ===

impl Frames {
    fn read(&mut self, mut data: &[u8], told: &dyn Fn(u32, Reason)) {
        loop {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            if data.is_empty() {
                return;
            }
            let wanted = if self.read >= FRAME_HEAD {
                RESET
            } else {
                FRAME_HEAD
            };
            let (read, rest) = data.split_at(data.len().min(wanted - self.read));
            self.head[self.read..][..read.len()].copy_from_slice(read);
            self.read += read.len();
            data = rest;
            let [a, b, c, kind, _, stream @ .., d, e, f, g] = self.head;
            match self.read {
                FRAME_HEAD if kind == RST_STREAM => {}
                FRAME_HEAD => {
                    self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                    self.read = 0;
                }
                RESET => {
                    self.read = 0;
                    let reason = u32::from_be_bytes([d, e, f, g]);
                    told(u32::from_be_bytes(stream), reason.into());
                }
                _ => {}
            }
        }
    }
}

// === impl Accepted ===

impl Accepted {
    pub(crate) fn begin(self: &Rc<Self>, stream: u32) -> Request {
        self.0.borrow_mut().push(stream);
        Request {
            accepted: self.clone(),
            stream,
        }
    }

    pub(crate) fn contains(&self, stream: u32) -> bool {
        self.0.borrow().contains(&stream)
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut accepted = self.accepted.0.borrow_mut();
        if let Some(at) = accepted.iter().position(|one| *one == self.stream) {
            accepted.swap_remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        let head = [&length[1..], &[kind, 0], &stream.to_be_bytes()].concat();
        [&head, payload].concat()
    }

    #[test]
    fn resets_are_seen_however_frames_are_cut() {
        let bytes = [
            frame(4, 0, b""),
            frame(0, 1, b"\0\0\x04\x03 looks like one"),
            frame(RST_STREAM, 3, &1u32.to_be_bytes()),
            frame(1, 5, &[RST_STREAM; 300]),
            frame(RST_STREAM, 0x7fff_fffe, &7u32.to_be_bytes()),
        ]
        .concat();
        for size in [1, 2, 8, 9, 10, 12, 13, 14, 400] {
            let seen = RefCell::new(Vec::new());
            let mut frames = Frames::default();
            for part in bytes.chunks(size) {
                frames.read(part, &|stream, reason| {
                    seen.borrow_mut().push((stream, reason))
                });
            }
            let expected = [
                (3, Reason::PROTOCOL_ERROR),
                (0x7fff_fffe, Reason::REFUSED_STREAM),
            ];
            assert_eq!(*seen.borrow(), expected, "by {size}");
        }
    }
}
