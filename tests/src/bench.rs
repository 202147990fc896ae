//! Loads that the benchmark puts on a path, and their server. One thread each: what is measured
//! is the path, so that neither end may take the cores the mesh needs.
//!
//! - [`client`], [`server`], [`tunnel`]: the ends, in pods; [`pace`] and [`tally`] are the client's.
//! - [`objects`]: the pods; [`system`]: what is compared, and where it runs.
//! - [`load`]: the rows of the table; [`handshake`], [`memory`]: what is no load.
//! - [`report`]: runs all of it; [`table`] shows it.
//! - [`http`]: loads of HTTP through a waypoint.

pub mod apply;

pub mod client;

pub mod server;

pub mod tunnel;

mod pace;

mod tally;

mod objects;

mod system;

mod load;

mod handshake;

mod memory;

pub mod report;

mod table;

pub mod http;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Echoes bytes.
pub const ECHO_PORT: u16 = 7000;
/// Discards bytes.
pub const SINK_PORT: u16 = 7001;
/// Sends bytes until the client closes.
pub const SOURCE_PORT: u16 = 7002;
/// Says how many tunnels a pod has taken that speaks HBONE itself.
pub const COUNT_PORT: u16 = 7003;

/// One read or write in bulk, in bytes.
const BULK_BUFFER: usize = 256 * 1024;

/// Whose pods are inside a mesh: of our ztunnel, and of another.
const NAMESPACES: [&str; 2] = ["weft", "other"];

/// As many descriptors as the host allows, for thousands of connections.
fn raise_descriptor_limit() -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
}
