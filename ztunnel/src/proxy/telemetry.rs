//! What is counted and written of one connection, from its start to its one end.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use hbone::client::{ConnectError, OpenError};
use hbone::copy::{CopyError, Meter};
use hbone::headers::TraceId;
use hbone::stream::Cut;
use http::StatusCode;
use mesh::authorization::Verdict;
use mesh::destination::Authority;
use mesh::service::Service;
use tokio::time::Instant;

use super::access_log::{AccessLogRecord, Direction, Event, Party};
use super::worker::{Worker, reporter};
use crate::metrics::shortages::{self, Wanted};
use crate::metrics::{ConnectionSecurityPolicy, Labels, ResponseFlags, Series};

/// Who talks to whom, as one side sees it.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) direction: Direction,
    pub(crate) source: Party,
    pub(crate) destination: Party,
    pub(crate) hbone_address: Option<Authority>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) security: ConnectionSecurityPolicy,
    pub(crate) tls_group: Option<&'static str>,
    /// What dry-run policies would have said, where it is something else.
    pub(crate) dry_run: Option<Box<Verdict>>,
    /// By which the lines at both ends are known to be of one connection.
    pub(crate) trace: Option<TraceId>,
    pub(crate) started: Instant,
}

/// An established connection. It is counted closed when this is dropped at the latest.
pub(crate) struct Tracked {
    worker: Rc<Worker>,
    conversation: Conversation,
    series: Arc<Series>,
    received: Cell<u64>,
    sent: Cell<u64>,
    finished: Cell<bool>,
}

/// Why a connection failed, for people and for the `response_flags` label.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) flags: ResponseFlags,
    pub(crate) reason: String,
    /// What the network said, where it was that.
    pub(crate) unreached: Option<Unreached>,
}

/// How a connection attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreached {
    Refused,
    Network,
    /// Also: no answer.
    Host,
    /// The kernel had no place left to track it, and dropped it.
    Untracked,
}

// === impl Conversation ===

impl Conversation {
    /// Counts and logs a connection that is now established.
    pub(crate) fn open(self, worker: &Rc<Worker>) -> Tracked {
        let series = self.series(worker, ResponseFlags::None);
        series.opened.increment(1);
        let log = &worker.shared.access_log;
        if log.wants(Event::Open) {
            log.write(self.record(Event::Open, (0, 0), None));
        }
        Tracked {
            worker: worker.clone(),
            conversation: self,
            series,
            received: Cell::new(0),
            sent: Cell::new(0),
            finished: Cell::new(false),
        }
    }

    /// Counts and logs a connection that was never established.
    pub(crate) fn fail(&self, worker: &Worker, failure: &Failure) {
        let series = self.series(worker, failure.flags);
        series.opened.increment(1);
        series.failed.increment(1);
        series.closed.increment(1);
        if failure.unreached == Some(Unreached::Untracked) {
            shortages::count_refusal(reporter(self.direction), Wanted::Conntrack);
        }
        let log = &worker.shared.access_log;
        if log.wants(Event::Close) {
            log.write(self.record(Event::Close, (0, 0), Some(failure.reason.clone())));
        }
    }

    /// Logs a connection that was turned away before it was known whose it is.
    pub(crate) fn reject(&self, worker: &Worker, reason: impl fmt::Display) {
        let log = &worker.shared.access_log;
        if log.wants(Event::Reject) {
            log.write(self.record(Event::Reject, (0, 0), Some(reason.to_string())));
        }
    }

    fn series(&self, worker: &Worker, flags: ResponseFlags) -> Arc<Series> {
        worker.shared.series.series(&Labels {
            reporter: reporter(self.direction),
            security: self.security,
            flags,
            source: self.source.workload.as_ref(),
            source_identity: self.source.identity.as_ref(),
            service: self.service.as_ref(),
            destination: self.destination.workload.as_ref(),
            destination_identity: self.destination.identity.as_ref(),
        })
    }

    fn record(&self, event: Event, bytes: (u64, u64), error: Option<String>) -> AccessLogRecord {
        AccessLogRecord {
            event,
            direction: self.direction,
            source: self.source.clone(),
            destination: self.destination.clone(),
            hbone_address: self.hbone_address.clone(),
            service: self
                .service
                .as_ref()
                .map(|service| service.hostname.clone()),
            bytes_received: bytes.0,
            bytes_sent: bytes.1,
            duration: self.started.elapsed(),
            error,
            tls_group: self.tls_group,
            dry_run: self.dry_run.as_ref().map(ToString::to_string),
            trace: self.trace,
        }
    }
}

// === impl Tracked ===

impl Tracked {
    /// The end, and how it came.
    pub(crate) fn finish(&self, failure: Option<Failure>) {
        if self.finished.replace(true) {
            return;
        }
        self.series.closed.increment(1);
        if let Some(failure) = &failure {
            let series = self.conversation.series(&self.worker, failure.flags);
            series.failed.increment(1);
        }
        let log = &self.worker.shared.access_log;
        if log.wants(Event::Close) {
            let bytes = (self.received.get(), self.sent.get());
            let error = failure.map(|failure| failure.reason);
            log.write(self.conversation.record(Event::Close, bytes, error));
        }
    }
}

impl Meter for Tracked {
    fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        self.series.received_bytes.increment(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        self.series.sent_bytes.increment(bytes);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.finish(Some(Failure::new(ResponseFlags::None, "cut by shutdown")));
    }
}

/// Both sides of a connection between two pods of this process.
pub(crate) struct BothSides<'a>(pub(crate) &'a Tracked, pub(crate) &'a Tracked);

impl Meter for BothSides<'_> {
    fn received(&self, bytes: u64) {
        self.0.received(bytes);
        self.1.received(bytes);
    }

    fn sent(&self, bytes: u64) {
        self.0.sent(bytes);
        self.1.sent(bytes);
    }
}

// === impl Failure ===

impl Failure {
    pub(crate) fn new(flags: ResponseFlags, reason: impl fmt::Display) -> Self {
        Self {
            flags,
            reason: reason.to_string(),
            unreached: None,
        }
    }

    pub(crate) fn denied(verdict: &Verdict) -> Self {
        Self::new(ResponseFlags::Deny, verdict)
    }

    /// A handshake refused, or a tunnel cut, because of a revocation list.
    pub(crate) fn revoked() -> Self {
        Self::cut(Cut::Revoked)
    }

    fn cut(cut: Cut) -> Self {
        let flags = match cut {
            Cut::Revoked => ResponseFlags::CertRevoked,
            Cut::PeerLost => ResponseFlags::None,
        };
        Self::new(flags, cut)
    }

    pub(crate) fn connect(error: &std::io::Error) -> Self {
        let reason = format_args!("connection failed: {error}");
        Self {
            unreached: Some(Unreached::of(error)),
            ..Self::new(ResponseFlags::Connect, reason)
        }
    }

    /// How the end of a copy to or from a tunnel counts, and why the tunnel was cut where it was.
    pub(crate) fn of_tunnel(cut: Option<Cut>, result: Result<(), CopyError>) -> Option<Self> {
        match (result, cut) {
            (Err(_), Some(cut)) => Some(Self::cut(cut)),
            (result, _) => Self::of_copy(result),
        }
    }

    /// How a copy's end counts. An application that resets its connection has not failed.
    pub(crate) fn of_copy(result: Result<(), CopyError>) -> Option<Self> {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
        let error = match result {
            Ok(()) => return None,
            Err(CopyError::Socket(error))
                if matches!(
                    error.kind(),
                    BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof
                ) =>
            {
                return None;
            }
            Err(error) => error,
        };
        Some(Self::new(ResponseFlags::None, error))
    }

    pub(crate) fn of_open(error: &OpenError) -> Self {
        let flags = match error {
            OpenError::Connect(ConnectError::TcpTimeout(_)) => ResponseFlags::NetworkPolicy,
            OpenError::Connect(ConnectError::Tcp(..) | ConnectError::Abandoned) => {
                ResponseFlags::Connect
            }
            OpenError::Connect(ConnectError::Tls(_) | ConnectError::HandshakeTimeout) => {
                ResponseFlags::TlsFailure
            }
            OpenError::Connect(ConnectError::PeerIdentity(_)) => ResponseFlags::IdentityError,
            OpenError::Connect(ConnectError::Revoked) => ResponseFlags::CertRevoked,
            OpenError::Connect(ConnectError::Http2(_)) => ResponseFlags::H2HandshakeFailure,
            OpenError::Status(StatusCode::UNAUTHORIZED) => ResponseFlags::Deny,
            OpenError::Status(_) | OpenError::ResponseTimeout | OpenError::NoSign(_) => {
                ResponseFlags::Connect
            }
            OpenError::Tunnel(_) => ResponseFlags::None,
        };
        let unreached = match error {
            OpenError::Connect(ConnectError::Tcp(_, error)) => Some(Unreached::of(error)),
            _ => None,
        };
        Self {
            unreached,
            ..Self::new(flags, error)
        }
    }
}

// === impl Unreached ===

impl Unreached {
    fn of(error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{ConnectionRefused, NetworkUnreachable, QuotaExceeded};
        match error.kind() {
            ConnectionRefused => Self::Refused,
            NetworkUnreachable => Self::Network,
            QuotaExceeded => Self::Untracked,
            _ => Self::Host,
        }
    }
}
