//! Loads that the benchmark puts on a path, and their server. One thread each: what is measured
//! is the path, so that neither end may take the cores the mesh needs.

pub mod client;

pub mod http;

pub mod report;

pub mod server;

/// Echoes bytes.
pub const ECHO_PORT: u16 = 7000;
/// Discards bytes.
pub const SINK_PORT: u16 = 7001;
/// Sends bytes until the client closes.
pub const SOURCE_PORT: u16 = 7002;

/// One read or write in bulk, in bytes.
const BULK_BUFFER: usize = 256 * 1024;
