//! Connections that are not HTTP: policy on what is known of them, a backend by weight, and what
//! is counted of them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use http::StatusCode;
use mesh::authorization::{Connection, Verdict};
use mesh::destination::Hop;
use mesh::local_reply::response_flag::{ResponseFlag, ResponseFlags};
use mesh::route::select::RouteTable;
use mesh::route::{BackendRef, backend};
use mesh::service::Service;
use mesh::workload::Workload;
use tokio::time::Instant;

use super::Worker;
use super::authorization::authorize;
use super::cluster::{Active, hop};
use super::plan::Destination;
use crate::access_log::{Format, Line};
use crate::message::{ConnectionMeter, ConnectionRoute, Downstream, UpstreamError};
use crate::telemetry::{Peers, TcpSeries, Telemetry};

/// Endpoints tried for one connection before it is given up.
const CANDIDATES: usize = 5;

/// Counts one connection.
struct Meter {
    telemetry: Rc<Telemetry>,
    downstream: Rc<Downstream>,
    format: Option<Format>,
    source: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
    cluster: Option<Arc<str>>,
    opened: (Instant, SystemTime),
    reached: RefCell<Reached>,
    received: Cell<u64>,
    sent: Cell<u64>,
    _active: Option<Active>,
}

#[derive(Default)]
struct Reached {
    destination: Option<Arc<Workload>>,
    address: Option<SocketAddr>,
    series: Option<Arc<TcpSeries>>,
    failure: Option<String>,
}

// === impl Worker ===

impl<U> Worker<U> {
    pub(super) fn route_connection(
        &self,
        downstream: &Rc<Downstream>,
    ) -> Result<ConnectionRoute, String> {
        let mut meter = self.meter(downstream);
        match self.choose_hops(downstream, &mut meter) {
            Ok(hops) => Ok(ConnectionRoute {
                hops,
                meter: Rc::new(meter),
            }),
            Err((flag, reason)) => {
                meter.refused(flag, &reason);
                Err(reason)
            }
        }
    }

    fn choose_hops(
        &self,
        downstream: &Rc<Downstream>,
        meter: &mut Meter,
    ) -> Result<Vec<Hop>, (ResponseFlag, String)> {
        let gone = || {
            let text = format!("nothing is at {} any more", downstream.destination);
            (ResponseFlag::NoRouteFound, text)
        };
        let destination = self.destination(downstream).ok_or_else(gone)?;
        meter.service = destination.service.clone();
        let before = connection(downstream, &destination, destination.policy_address);
        let verdict = authorize(&destination.policies.authorization, &before, None);
        let final_verdict = destination.is_uniform || is_denied_anyway(&verdict);
        if final_verdict && !verdict.is_allowed() {
            return Err((
                ResponseFlag::UnauthorizedExternalService,
                verdict.to_string(),
            ));
        }
        if let Some(workload) = &destination.workload {
            let expected = Arc::new([workload.identity()]);
            return Ok(vec![hop(workload, downstream.destination, expected)]);
        }
        let service = destination.service.as_ref().ok_or_else(gone)?.key();
        let (service, port) = match &destination.routes {
            RouteTable::Tcp(selected) => {
                let chosen =
                    backend::choose(&selected.rule.backends, &mut *self.random.borrow_mut());
                match chosen.map(|chosen| &chosen.backend) {
                    Some(BackendRef::Service { service, port, .. }) => (service.clone(), *port),
                    Some(BackendRef::Invalid(why)) => {
                        return Err((ResponseFlag::NoClusterFound, why.to_string()));
                    }
                    None => {
                        let text = format!("{} has no backend", selected.route.key);
                        return Err((ResponseFlag::NoClusterFound, text));
                    }
                }
            }
            // Not HTTP after all: it goes where it was sent.
            RouteTable::Unrouted | RouteTable::Http(_) => (service, downstream.destination.port()),
        };
        let unhealthy = || {
            let text = format!("service {service} has no usable endpoint for port {port}");
            (ResponseFlag::NoHealthyUpstream, text)
        };
        let cluster = self.cluster(&service, port).ok_or_else(unhealthy)?;
        meter.cluster = Some(cluster.name.clone());
        let addressed = destination.service.as_ref().map(|service| service.key());
        let mut hops: Vec<Hop> = Vec::new();
        let mut tried = Vec::new();
        let mut refused = None;
        while tried.len() < CANDIDATES.min(cluster.len()) {
            let chosen = cluster.choose(&tried, &mut *self.random.borrow_mut());
            let Some((pick, hop)) = chosen else { break };
            tried.push(pick.id.clone());
            let same = addressed.as_ref() == Some(&service) && destination.is_uniform;
            if !same {
                let policies = self.plans(|plans| {
                    plans.endpoint_policies(&self.gateway, addressed.as_ref(), &hop.workload)
                });
                let at = connection(downstream, &destination, Some(hop.target));
                let verdict = authorize(&policies.authorization, &at, None);
                if !verdict.is_allowed() {
                    refused = Some(verdict);
                    continue;
                }
            }
            hops.push(hop);
        }
        match (hops.is_empty(), refused) {
            (true, Some(verdict)) => Err((
                ResponseFlag::UnauthorizedExternalService,
                verdict.to_string(),
            )),
            (true, None) => Err(unhealthy()),
            (false, _) => {
                meter._active = Some(cluster.begin_request());
                Ok(hops)
            }
        }
    }

    /// A request that broke HTTP before it was one.
    pub(super) fn rejected(&self, downstream: &Rc<Downstream>, status: StatusCode, reason: &str) {
        metrics::counter!("waypoint_requests_rejected_total", "status" => status.as_str().to_owned())
            .increment(1);
        let mut flags = ResponseFlags::default();
        flags.add(ResponseFlag::DownstreamProtocolError);
        let destination = self.destination(downstream);
        let source = self.source(downstream);
        let peers = Peers {
            source: source.as_ref(),
            source_identity: downstream.source_identity.as_ref(),
            service: destination.as_ref().and_then(|one| one.service.as_ref()),
            destination: None,
        };
        let labels = crate::telemetry::RequestLabels {
            protocol: crate::telemetry::RequestProtocol::Http,
            response_code: status.as_u16(),
            grpc_status: None,
            response_flags: flags,
        };
        let series = self.telemetry.request(&peers, labels);
        series.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(format) = self.shared.config.access_log {
            let mut line = line(format, downstream, SystemTime::now());
            line.response_code = status.as_u16();
            line.response_flags = flags;
            line.response_code_details = format!("http_protocol_error_{reason}").into();
            line.write();
        }
    }

    fn meter(&self, downstream: &Rc<Downstream>) -> Meter {
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
            _active: None,
        }
    }
}

/// What no endpoint's ALLOW policy could change.
pub(super) fn is_denied_anyway(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::DeniedBy(_) | Verdict::PolicyUnknown(_) => true,
        Verdict::NoAllowMatched
        | Verdict::AllowedByDefault
        | Verdict::AllowedBy(_)
        | Verdict::AdmittedWaypoint(_) => false,
    }
}

/// As policies see it: what was dialled, and the application behind it.
pub(super) fn connection(
    downstream: &Downstream,
    destination: &Destination,
    application: Option<SocketAddr>,
) -> Connection {
    let dialled = downstream.destination;
    Connection {
        source_identity: downstream.source_identity.clone(),
        source_ip: downstream.source.ip(),
        destination: application.unwrap_or(dialled),
        dialled: destination.service.as_ref().map(|_| dialled),
        sni: None,
    }
}

fn line(format: Format, downstream: &Downstream, start_time: SystemTime) -> Line {
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
    fn refused(&self, flag: ResponseFlag, reason: &str) {
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

    fn closed(&self, failure: Option<&str>) {
        let (series, transport) = {
            let mut reached = self.reached.borrow_mut();
            (reached.series.take(), reached.failure.take())
        };
        let mut flags = ResponseFlags::default();
        match series {
            Some(series) => {
                series.closed.fetch_add(1, Ordering::Relaxed);
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
