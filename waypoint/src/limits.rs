//! What one client, one message and one worker may take of memory and time.
//!
//! A tunnelled connection holds at most a stream window towards us, one chunk of body per
//! direction ([`Limits::body_chunk`]) and a send window towards its peer; an idle one holds no buffer.

use std::time::Duration;

/// Bounds of the data path. Defaults are Envoy's where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub head: HeadLimits,
    /// Bytes of body gathered before they are written on.
    pub body_chunk: usize,
    /// Bytes of a request body that are read and dropped to keep a connection.
    pub drained_body: usize,
    /// From the first byte of a request's head to its last.
    pub head_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// How long a body may make no progress in either direction.
    pub body_idle_timeout: Duration,
    /// How long a client that is told to go away may still send.
    pub linger: Duration,
    /// Silence after which an undetected connection counts as one that its server begins.
    pub protocol_detection_timeout: Duration,
    /// Whether a client that has ended its direction still gets its response.
    pub half_close: HalfClose,
    /// Whether clients may ask for a tunnel of their own (CONNECT).
    pub user_connect: UserConnect,
    /// Of TCP, TLS, HBONE and HTTP/2 together, for one connection to an endpoint.
    pub connect_timeout: Duration,
    /// How long a connection to an endpoint is kept without a request.
    pub pool_idle_timeout: Duration,
    /// Idle HTTP/1.1 connections kept for one endpoint, on one worker.
    pub pool_idle_connections: usize,
    /// How long a connection that is not HTTP may be silent.
    pub tcp_idle_timeout: Duration,
    /// How long idle connections are kept once the drain has begun.
    pub drain_grace: Duration,
    pub http2: Http2Limits,
    pub capacity: Capacity,
}

/// What the whole process has open at most. Beyond it a tunnel is closed, a tunnelled connection
/// and a request are answered 503, so that what is open goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Of clients' nodes; each takes a file descriptor.
    pub tunnels: usize,
    /// In all tunnels.
    pub connections: usize,
    /// Of all connections; each worker has its share.
    pub requests: usize,
}

/// Bounds of one message's head and of its trailers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of a whole head, and of a trailer section.
    pub bytes: usize,
    /// Fields, at most [`HeadLimits::MOST_FIELDS`].
    pub fields: usize,
    pub method: usize,
    pub target: usize,
}

/// Bounds of one HTTP/2 connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    pub stream_window: u32,
    pub connection_window: u32,
    pub concurrent_streams: u32,
    /// How long a new connection waits for an endpoint that admits no stream.
    pub no_streams_timeout: Duration,
    /// Bytes a stream may have queued for sending.
    pub send_buffer: usize,
    /// Streams reset by the client before they were accepted (rapid reset, CVE-2023-44487).
    pub pending_accept_resets: usize,
    /// Streams reset before they were answered, in one second.
    pub abandoned_streams: u32,
    /// Resets that the peer provoked (CVE-2025-8671).
    pub local_error_resets: usize,
}

/// What a client's end of input means while it waits for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// It is gone: a closed socket looks the same.
    Abort,
    Serve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserConnect {
    Refuse,
    Allow,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            body_chunk: 64 << 10,
            drained_body: 64 << 10,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(3600),
            body_idle_timeout: Duration::from_secs(300),
            linger: Duration::from_secs(1),
            protocol_detection_timeout: Duration::from_millis(100),
            half_close: HalfClose::Abort,
            user_connect: UserConnect::Refuse,
            connect_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(90),
            pool_idle_connections: 512,
            tcp_idle_timeout: Duration::from_secs(3600),
            drain_grace: Duration::from_secs(1),
            http2: Http2Limits::default(),
            capacity: Capacity::default(),
        }
    }
}

// === impl Capacity ===

impl Default for Capacity {
    fn default() -> Self {
        Self {
            tunnels: 16_384,
            connections: 65_536,
            requests: 65_536,
        }
    }
}

// === impl HeadLimits ===

impl HeadLimits {
    pub const MOST_FIELDS: usize = 200;
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            bytes: 60 << 10,
            fields: 100,
            method: 32,
            target: 16 << 10,
        }
    }
}

// === impl Http2Limits ===

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            stream_window: 256 << 10,
            connection_window: 4 << 20,
            concurrent_streams: 100,
            no_streams_timeout: Duration::from_secs(1),
            send_buffer: 256 << 10,
            pending_accept_resets: 20,
            abandoned_streams: 200,
            local_error_resets: 1024,
        }
    }
}
