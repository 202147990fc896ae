//! A TLS session over a socket, shared by HTTP/2, which reads and writes it, and by the
//! task that drives HTTP/2, which flushes it.
//!
//! HTTP/2 flushes after every large frame. Here that is put off until the driver's turn
//! ends, so that the frames of all streams that had something to say leave in one write.

use std::cell::{Cell, RefCell};
use std::io::{self, BufRead, IoSlice, Write};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use runtime::memory;
use rustls::CertificateError;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::guard::{Guard, Peer};
use crate::settings::CLIENT_SEND_BUFFER;
use crate::unacknowledged::unacknowledged;

/// Bytes asked of the kernel at a time.
const READ_SIZE: usize = 64 << 10;
/// Encrypted bytes that may wait for the socket.
const WRITE_BUFFER: usize = 256 << 10;
/// What may wait at most while something does: the buffer, the overhead of its records, and a frame
/// that HTTP/2 has begun, which has no more than a copy reads at a time.
const UNWRITTEN_AT_MOST: u64 = 1 << 20;

thread_local! {
    /// A read buffer that no session of the thread holds. Giving as large a one back to the
    /// allocator at the end of each turn had it tidy up its arena each time.
    static SPARE: Cell<BytesMut> = Cell::default();
}

/// What shows that a connection's peer lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    /// How many reads have brought bytes, so that a busy connection needs no probe.
    reads: Rc<Cell<u64>>,
    /// Of the socket below; none where it is not this process's own.
    session: Weak<RefCell<Session>>,
    /// What may wait, besides, for the session to take it.
    before_session: u64,
}

/// Signs of life at one moment. For a connection within another's stream, the reads are its own and
/// the bytes those of the socket below, which are before and after its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signs {
    /// How many reads have brought bytes.
    pub(crate) reads: u64,
    /// Bytes that the socket has taken.
    pub(crate) written: u64,
    /// An upper bound for the bytes that wait for the socket.
    pub(crate) unwritten_at_most: u64,
    /// Bytes that the peer's kernel has acknowledged.
    pub(crate) acknowledged: u64,
}

/// The end that HTTP/2 has.
pub(crate) struct Tls(Rc<RefCell<Session>>);

/// The end that the driver has.
pub(crate) struct Flusher(Rc<RefCell<Session>>);

struct Session {
    tcp: TcpStream,
    tls: rustls::Connection,
    /// Bytes that the socket has taken.
    written: u64,
    /// Read and not yet decrypted; left to the next session of the thread whenever it is empty.
    ahead: Option<BytesMut>,
    reads: Rc<Cell<u64>>,
    guard: Guard,
}

/// Splits an established session.
pub(crate) fn split(
    tcp: TcpStream,
    tls: impl Into<rustls::Connection>,
) -> (Tls, Flusher, Activity) {
    let mut tls = tls.into();
    tls.set_buffer_limit(Some(WRITE_BUFFER));
    let peer = match &tls {
        rustls::Connection::Client(_) => Peer::Server,
        rustls::Connection::Server(_) => Peer::Client,
    };
    let reads = Rc::default();
    let session = Rc::new(RefCell::new(Session {
        tcp,
        tls,
        written: 0,
        ahead: None,
        reads: Rc::clone(&reads),
        guard: Guard::new(peer),
    }));
    let activity = Activity {
        reads,
        session: Rc::downgrade(&session),
        before_session: 0,
    };
    (Tls(session.clone()), Flusher(session), activity)
}

/// Whether a handshake failed because the peer's certificate has been revoked.
pub(crate) fn is_revoked(error: &io::Error) -> bool {
    invalid_certificate(error).is_some_and(|error| *error == CertificateError::Revoked)
}

/// What was wrong with the peer's certificate, where it was that.
pub(crate) fn invalid_certificate(error: &io::Error) -> Option<&CertificateError> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(error) => Some(error),
        _ => None,
    }
}

// === impl Activity ===

impl Activity {
    /// Of a connection that a stream of this one carries.
    pub(crate) fn of_carried(&self) -> Self {
        Self {
            reads: Rc::default(),
            session: self.session.clone(),
            before_session: CLIENT_SEND_BUFFER as u64,
        }
    }

    pub(crate) fn count(&self) {
        self.reads.set(self.reads.get() + 1);
    }

    pub(crate) fn reads(&self) -> u64 {
        self.reads.get()
    }

    pub(crate) fn signs(&self) -> Signs {
        let mut signs = match self.session.upgrade() {
            Some(session) => session.borrow().signs(),
            None => Signs::default(),
        };
        signs.reads = self.reads();
        if signs.unwritten_at_most > 0 {
            signs.unwritten_at_most += self.before_session;
        }
        signs
    }
}

// === impl Flusher ===

impl Flusher {
    /// Sends what HTTP/2 has written. To be called at the end of every turn; the task is
    /// woken for the rest.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }
}

// === impl Session ===

impl Session {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut writer = SocketWriter {
                tcp: &mut self.tcp,
                cx,
            };
            match self.tls.write_tls(&mut writer) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(amount) => self.written += amount as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn signs(&self) -> Signs {
        // A socket that can't be asked is gone, and acknowledges no more.
        let acknowledged = unacknowledged(&self.tcp)
            .map(|unacknowledged| self.written.saturating_sub(unacknowledged))
            .unwrap_or_default();
        Signs {
            reads: self.reads.get(),
            written: self.written,
            unwritten_at_most: match self.tls.wants_write() {
                true => UNWRITTEN_AT_MOST,
                false => 0,
            },
            acknowledged,
        }
    }

    /// Whether all that was read is decrypted.
    fn has_decrypted_all(&self) -> bool {
        self.ahead.as_ref().is_none_or(BytesMut::is_empty)
    }

    /// Decrypts some more, reading from the socket where nothing is left to decrypt.
    fn poll_decrypt(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_decrypted_all() {
            // Without room for what it may bring, nothing is read.
            if memory::poll_room(cx).is_pending() || self.tcp.poll_read_ready(cx)?.is_pending() {
                if let Some(spare) = self.ahead.take() {
                    SPARE.set(spare);
                }
                return Poll::Pending;
            }
            let ahead = self.ahead.get_or_insert_with(|| SPARE.take());
            ahead.reserve(READ_SIZE);
            let amount = ready!(poll_read_buf(Pin::new(&mut self.tcp), cx, ahead))?;
            if amount > 0 {
                self.reads.set(self.reads.get() + 1);
                memory::take(amount);
            }
        }
        // An empty input tells the session that the socket has ended.
        let ahead = self.ahead.get_or_insert_default();
        let taken = self.tls.read_tls(&mut &ahead[..])?;
        ahead.advance(taken);
        if let Err(error) = self.tls.process_new_packets() {
            // The peer is told why, if the socket takes it at once.
            let _ = self.poll_flush(cx);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            while buf.remaining() > 0 {
                let mut reader = self.tls.reader();
                let plain = match reader.fill_buf() {
                    Ok(plain) => plain,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // The bytes that came before the error are delivered first.
                    Err(_) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                    Err(error) => return Poll::Ready(Err(error)),
                };
                if plain.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let amount = plain.len().min(buf.remaining());
                if let Err(flood) = self.guard.observe(&plain[..amount], Instant::now) {
                    let peer = self.tcp.peer_addr().ok();
                    tracing::warn!(?peer, "{flood}: it is cut");
                    return Poll::Ready(Err(io::Error::other(flood)));
                }
                buf.put_slice(&plain[..amount]);
                reader.consume(amount);
            }
            if buf.remaining() == 0 || (buf.filled().len() > before && self.has_decrypted_all()) {
                return Poll::Ready(Ok(()));
            }
            match self.poll_decrypt(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        loop {
            let written = self.tls.writer().write_vectored(bufs)?;
            if written > 0 {
                self.guard.sent(written);
                return Poll::Ready(Ok(written));
            }
            ready!(self.poll_flush(cx))?;
        }
    }
}

// === impl Tls ===

impl AsyncRead for Tls {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.0.borrow_mut();
        session.tls.send_close_notify();
        ready!(session.poll_flush(cx))?;
        match ready!(Pin::new(&mut session.tcp).poll_shutdown(cx)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }
}

/// Writes to the socket; what would wait is `WouldBlock`.
struct SocketWriter<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for SocketWriter<'_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, bufs) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
