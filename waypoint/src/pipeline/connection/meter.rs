//! What is counted of one connection, and whether it may still go on.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::SystemTime;

use mesh::destination::Hop;
use mesh::local_reply::response_flag::{ResponseFlag, ResponseFlags};
use mesh::service::Service;
use mesh::workload::Workload;
use tokio::time::Instant;

use crate::access_log::{Format, Line};
use crate::message::{ConnectionMeter, Downstream, UpstreamError};
use crate::pipeline::Worker;
use crate::pipeline::cluster::Active;
use crate::pipeline::streams::Watched;
use crate::telemetry::{Peers, TcpSeries, Telemetry};

/// None where the worker itself is gone.
type Watch = dyn Fn(&Hop) -> Option<Rc<Watched>>;

/// Counts one connection.
pub(super) struct Meter {
    telemetry: Rc<Telemetry>,
    downstream: Rc<Downstream>,
    format: Option<Format>,
    source: Option<Arc<Workload>>,
    pub(super) service: Option<Arc<Service>>,
    pub(super) cluster: Option<Arc<str>>,
    opened: (Instant, SystemTime),
    reached: RefCell<Reached>,
    received: Cell<u64>,
    sent: Cell<u64>,
    pub(super) active: Option<Active>,
    /// Begins to watch policies for the connection to an endpoint.
    watch: Box<Watch>,
    watched: OnceCell<Rc<Watched>>,
}

#[derive(Default)]
struct Reached {
    destination: Option<Arc<Workload>>,
    address: Option<SocketAddr>,
    series: Option<Arc<TcpSeries>>,
    failure: Option<String>,
}

// === impl Worker ===

impl<U: 'static> Worker<U> {
    pub(super) fn meter(self: &Rc<Self>, downstream: &Rc<Downstream>) -> Meter {
        let watch = {
            let (worker, downstream) = (Rc::downgrade(self), downstream.clone());
            move |hop: &Hop| {
                let (worker, strong) = (worker.clone(), worker.upgrade()?);
                let (downstream, hop) = (downstream.clone(), hop.clone());
                let watched = strong.streams.watch(move || {
                    worker
                        .upgrade()
                        .is_none_or(|worker| worker.would_allow_connection(&downstream, &hop))
                });
                // Policies may have changed while the endpoint was dialled.
                watched.check();
                Some(watched)
            }
        };
        Meter {
            telemetry: self.telemetry.clone(),
            downstream: downstream.clone(),
            format: self.shared.config.access_log,
            source: self.source(downstream),
            service: None,
            cluster: None,
            opened: (Instant::now(), SystemTime::now()),
            reached: RefCell::default(),
            received: Cell::new(0),
            sent: Cell::new(0),
            active: None,
            watch: Box::new(watch),
            watched: OnceCell::new(),
        }
    }
}

pub(super) fn line(format: Format, downstream: &Downstream, start_time: SystemTime) -> Line {
    Line {
        format,
        start_time,
        request: None,
        response_code: 0,
        response_flags: ResponseFlags::default(),
        response_code_details: "".into(),
        connection_termination_details: None,
        upstream_transport_failure_reason: None,
        bytes_received: 0,
        bytes_sent: 0,
        duration: std::time::Duration::ZERO,
        upstream_service_time: None,
        upstream_host: None,
        upstream_cluster: None,
        downstream_local_address: downstream.destination,
        downstream_remote_address: downstream.source,
        route_name: None,
    }
}

// === impl Meter ===

impl Meter {
    fn series(&self, destination: Option<&Arc<Workload>>, flags: ResponseFlags) -> Arc<TcpSeries> {
        let peers = Peers {
            source: self.source.as_ref(),
            source_identity: self.downstream.source_identity.as_ref(),
            service: self.service.as_ref(),
            destination,
        };
        self.telemetry.connection(&peers, flags)
    }

    /// It was never let in.
    pub(super) fn refused(&self, flag: ResponseFlag, reason: &str) {
        let mut flags = ResponseFlags::default();
        flags.add(flag);
        let series = self.series(None, flags);
        series.opened.fetch_add(1, Ordering::Relaxed);
        series.closed.fetch_add(1, Ordering::Relaxed);
        self.write_line(flags, Some(reason), None);
    }

    fn write_line(&self, flags: ResponseFlags, details: Option<&str>, transport: Option<String>) {
        let Some(format) = self.format else {
            return;
        };
        let mut line = line(format, &self.downstream, self.opened.1);
        line.response_flags = flags;
        line.connection_termination_details = details.map(|text| text.to_owned().into());
        line.upstream_transport_failure_reason = transport;
        line.bytes_received = self.received.get();
        line.bytes_sent = self.sent.get();
        line.duration = self.opened.0.elapsed();
        line.upstream_host = self.reached.borrow().address;
        line.upstream_cluster = self.cluster.clone();
        line.write();
    }
}

impl ConnectionMeter for Meter {
    fn connected(&self, hop: &Hop, result: Result<(), &UpstreamError>) {
        let mut reached = self.reached.borrow_mut();
        reached.address = Some(hop.target);
        match result {
            Ok(()) => {
                let series = self.series(Some(&hop.workload), ResponseFlags::default());
                series.opened.fetch_add(1, Ordering::Relaxed);
                reached.destination = Some(hop.workload.clone());
                reached.series = Some(series);
                reached.failure = None;
                if let Some(watched) = (self.watch)(hop) {
                    // One connection reaches one endpoint.
                    let _ = self.watched.set(watched);
                }
            }
            Err(error) => reached.failure = Some(error.to_string()),
        }
    }

    fn received(&self, bytes: u64) {
        self.received.set(self.received.get() + bytes);
        if let Some(series) = &self.reached.borrow().series {
            series.received_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn sent(&self, bytes: u64) {
        self.sent.set(self.sent.get() + bytes);
        if let Some(series) = &self.reached.borrow().series {
            series.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn poll_denied(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.watched.get() {
            Some(watched) if watched.is_denied(cx) => Poll::Ready(()),
            Some(_) | None => Poll::Pending,
        }
    }

    fn closed(&self, failure: Option<&str>) {
        let (series, transport) = {
            let mut reached = self.reached.borrow_mut();
            (reached.series.take(), reached.failure.take())
        };
        let mut flags = ResponseFlags::default();
        match series {
            Some(series) => {
                series.closed.fetch_add(1, Ordering::Relaxed);
                if self
                    .watched
                    .get()
                    .is_some_and(|watched| watched.has_denied())
                {
                    flags.add(ResponseFlag::UnauthorizedExternalService);
                }
            }
            None => {
                flags.add(ResponseFlag::UpstreamConnectionFailure);
                let series = self.series(None, flags);
                series.opened.fetch_add(1, Ordering::Relaxed);
                series.closed.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.write_line(flags, failure, transport);
    }
}
