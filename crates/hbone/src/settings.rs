//! Windows, limits and times of a tunnel, with Istio's defaults where they don't let one
//! connection hold up another.

use std::time::Duration;

const STREAM_WINDOW: u32 = 4 << 20;
const CLIENT_STREAMS: usize = 100;
/// Applications that may stop reading before others on their tunnel notice.
pub(crate) const STALLED: usize = 16;
/// Applications that use up a window made smaller when they stop reading: as many as Istio's.
const STALLED_WITHIN: u32 = 4;
/// RFC 9113 §6.9.1.
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// What both ends of a tunnel are configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// HTTP/2 SETTINGS_INITIAL_WINDOW_SIZE.
    pub stream_window: u32,
    /// Window of the whole connection. An application that does not read keeps up to
    /// [`Self::stream_window`] of it; see [`Self::window_for`].
    pub connection_window: u32,
    /// HTTP/2 SETTINGS_MAX_FRAME_SIZE.
    pub frame_size: u32,
    /// Streams a server admits on one connection.
    pub server_streams: u32,
    /// Streams a client puts on one connection at most, whatever the server admits.
    pub client_streams: usize,
    /// How often an otherwise silent connection is probed.
    pub ping_interval: Duration,
    /// How long a probe may stay unanswered, from when what was sent before it has arrived and the
    /// peer was last heard.
    pub ping_timeout: Duration,
    /// Budget of the TLS and HTTP/2 handshakes.
    pub handshake_timeout: Duration,
    /// How long the answer to a CONNECT may take.
    pub response_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: STREAM_WINDOW,
            connection_window: Self::window_for(STREAM_WINDOW, CLIENT_STREAMS),
            frame_size: 1 << 20,
            server_streams: 200,
            client_streams: CLIENT_STREAMS,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
        }
    }
}

impl Settings {
    /// The connection window with which stalled applications leave their siblings room: a
    /// window for each of them, up to sixteen, and four more. It is also the most that a tunnel
    /// buffers, 80 MiB by default, and only if sixteen applications stop reading while their
    /// clients go on sending. Eight bulk streams take up less than half of it; Istio's 16 MiB
    /// are used up by four.
    pub fn window_for(stream_window: u32, streams: usize) -> u32 {
        let stalled = u32::try_from(streams.min(STALLED)).unwrap_or(u32::MAX);
        let wanted = stream_window.saturating_mul(stalled + 4);
        wanted.min(LARGEST_WINDOW)
    }

    /// The same settings for a tunnel that buffers no more than `window`.
    pub fn within(&self, window: u32) -> Self {
        Self {
            connection_window: self.connection_window.min(window),
            stream_window: self.stream_window.min(window / STALLED_WITHIN),
            ..self.clone()
        }
    }
}

/// SETTINGS_MAX_HEADER_LIST_SIZE a server states.
pub(crate) const SERVER_HEADER_LIST: u32 = 65_536;
/// SETTINGS_MAX_HEADER_LIST_SIZE a client states.
pub(crate) const CLIENT_HEADER_LIST: u32 = 16_384;
/// Bytes one stream may have queued for sending, per end.
pub(crate) const SERVER_SEND_BUFFER: usize = 400 << 10;
pub(crate) const CLIENT_SEND_BUFFER: usize = 4 << 20;
