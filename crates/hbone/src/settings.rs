//! Windows, limits and times of a tunnel, with Istio's defaults.

use std::time::Duration;

/// What both ends of a tunnel are configured with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// HTTP/2 SETTINGS_INITIAL_WINDOW_SIZE.
    pub stream_window: u32,
    /// Window of the whole connection.
    pub connection_window: u32,
    /// HTTP/2 SETTINGS_MAX_FRAME_SIZE.
    pub frame_size: u32,
    /// Streams a server admits on one connection.
    pub server_streams: u32,
    /// Streams a client puts on one connection at most, whatever the server admits.
    pub client_streams: usize,
    /// How often an otherwise silent connection is probed.
    pub ping_interval: Duration,
    /// How long a probe may stay unanswered.
    pub ping_timeout: Duration,
    /// Budget of the TLS and HTTP/2 handshakes.
    pub handshake_timeout: Duration,
    /// How long the answer to a CONNECT may take.
    pub response_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame_size: 1 << 20,
            server_streams: 200,
            client_streams: 100,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(10),
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
