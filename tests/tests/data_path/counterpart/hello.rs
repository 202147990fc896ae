//! What the other end says before anything is asked: its handshake, and the frames that HTTP/2 begins
//! with, of which libraries tell little.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mesh::identity::Identity;
use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than anybody begins with.
const BEGINNING: usize = 4096;
/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// RFC 9113 §6.9.2.
const INITIAL_WINDOW: u32 = 65_535;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) identity: Option<Identity>,
    pub(crate) alpn: Option<String>,
    /// Only a client can name one.
    pub(crate) server_name: Option<String>,
    pub(crate) group: Option<&'static str>,
    pub(crate) settings: BTreeMap<Setting, u32>,
    pub(crate) connection_window: u32,
}

/// RFC 9113 §6.5.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    EnablePush,
    MaxConcurrentStreams,
    InitialWindowSize,
    MaxFrameSize,
    MaxHeaderListSize,
    Other(u16),
}

/// A connection of which the beginning is kept.
pub(super) struct Recorded<T> {
    inner: T,
    read: Recording,
}

/// What has been read first.
#[derive(Clone, Default)]
pub(super) struct Recording(Rc<RefCell<Vec<u8>>>);

pub(super) fn record<T>(inner: T) -> (Recorded<T>, Recording) {
    let read = Recording::default();
    let recorded = Recorded {
        inner,
        read: read.clone(),
    };
    (recorded, read)
}

// === impl Hello ===

impl Hello {
    pub(super) fn of_session(session: &CommonState) -> Self {
        let alpn = session.alpn_protocol();
        Self {
            identity: identity::peer_identity(session),
            alpn: alpn.map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
            server_name: None,
            group: identity::key_exchange_group(session),
            settings: BTreeMap::new(),
            connection_window: INITIAL_WINDOW,
        }
    }

    /// With what the first frames say.
    pub(super) fn with_frames(mut self, mut bytes: &[u8]) -> Self {
        // RFC 9113 §4.1: length, type, flags, stream, payload.
        while let Some((head, rest)) = bytes.split_at_checked(9) {
            let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]]));
            let Some((payload, rest)) = rest.split_at_checked(length.expect("24 bits")) else {
                break;
            };
            match (head[3], &head[5..9]) {
                (0x4, _) => self.settings.extend(settings(payload)),
                (0x8, [0, 0, 0, 0]) => self.connection_window += number(payload),
                _ => {}
            }
            bytes = rest;
        }
        self
    }
}

fn settings(payload: &[u8]) -> impl Iterator<Item = (Setting, u32)> {
    payload.chunks_exact(6).map(|setting| {
        let (name, value) = setting.split_at(2);
        (
            Setting::of(u16::from_be_bytes([name[0], name[1]])),
            number(value),
        )
    })
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

// === impl Setting ===

impl Setting {
    fn of(number: u16) -> Self {
        match number {
            0x2 => Self::EnablePush,
            0x3 => Self::MaxConcurrentStreams,
            0x4 => Self::InitialWindowSize,
            0x5 => Self::MaxFrameSize,
            0x6 => Self::MaxHeaderListSize,
            other => Self::Other(other),
        }
    }
}

// === impl Recording ===

impl Recording {
    /// The frames that a client began with.
    pub(super) fn client(&self) -> Vec<u8> {
        let bytes = self.0.borrow();
        let frames = bytes.strip_prefix(PREFACE).expect("HTTP/2");
        frames.to_vec()
    }

    /// The frames that a server began with.
    pub(super) fn server(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }
}

// === impl Recorded ===

impl<T: AsyncRead + Unpin> AsyncRead for Recorded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        let mut kept = self.read.0.borrow_mut();
        let room = BEGINNING.saturating_sub(kept.len());
        kept.extend(buf.filled()[before..].iter().take(room));
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Recorded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
