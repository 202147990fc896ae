//! What is written of one connection. Records are formatted off the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hbone::headers::TraceId;
use mesh::destination::Authority;
use mesh::identity::Identity;
use mesh::workload::Workload;

/// Takes records without blocking.
pub trait AccessLog: Send + Sync {
    /// Whether anyone wants records of this kind; they are not made otherwise.
    fn wants(&self, event: Event) -> bool;

    fn write(&self, record: AccessLogRecord);
}

/// Why there is a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is established; for debugging.
    Open,
    /// It has ended, or was never established; an error tells why.
    Close,
    /// It was turned away before it was known whose it is.
    Reject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub struct Party {
    pub address: SocketAddr,
    pub workload: Option<Arc<Workload>>,
    /// From the certificate; none without mutual TLS.
    pub identity: Option<Identity>,
}

#[derive(Clone, Debug)]
pub struct AccessLogRecord {
    pub event: Event,
    pub direction: Direction,
    pub source: Party,
    /// Its address is where bytes went: a tunnel's outer address, or the application's.
    pub destination: Party,
    /// What was asked for where a tunnel carried the connection: the application's address, or a
    /// service in another network.
    pub hbone_address: Option<Authority>,
    /// The service's hostname.
    pub service: Option<Arc<str>>,
    /// From the server to the client.
    pub bytes_sent: u64,
    /// From the client to the server.
    pub bytes_received: u64,
    pub duration: Duration,
    pub error: Option<String>,
    /// The key exchange of the tunnel's handshake.
    pub tls_group: Option<&'static str>,
    /// What dry-run policies would have said, where it is something else.
    pub dry_run: Option<String>,
    /// The same at both ends; none where nothing carried it from one to the other.
    pub trace: Option<TraceId>,
}
