//! What is known of one request, told when it is over: to the metrics and to the access log.
//!
//! A record that goes before it was finished belongs to a client that has gone.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, StatusCode, Version};
use mesh::grpc::{self, GrpcCode};
use mesh::local_reply::response_flag::{ResponseFlag, ResponseFlags};
use mesh::service::Service;
use mesh::workload::Workload;
use tokio::time::Instant;

use super::messages::Messages;
use super::request_body::RequestBody;
use crate::access_log::{Format, Line, RequestLine};
use crate::message::Downstream;
use crate::telemetry::{MessageSeries, Peers, RequestLabels, RequestProtocol, Telemetry};

/// One request, from its head to the last byte of its response.
pub(crate) struct Record {
    telemetry: Rc<Telemetry>,
    downstream: Rc<Downstream>,
    started: Instant,
    log: Option<Log>,
    pub(crate) is_grpc: bool,
    request_head: u64,
    /// Of a connection that is no longer HTTP.
    upgraded_bytes: u64,
    pub(crate) request_body: Option<Rc<RequestBody>>,
    pub(crate) source: Option<Arc<Workload>>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) destination: Option<Arc<Workload>>,
    response_code: u16,
    response_head: u64,
    response_bytes: u64,
    response_messages: Messages,
    /// Where gRPC's messages are counted, as they pass.
    messages: Option<Arc<MessageSeries>>,
    grpc_status: Option<GrpcCode>,
    pub(crate) flags: ResponseFlags,
    pub(crate) details: Cow<'static, str>,
    pub(crate) upstream_host: Option<SocketAddr>,
    pub(crate) upstream_cluster: Option<Arc<str>>,
    pub(crate) upstream_service_time: Option<Duration>,
    finished: bool,
}

/// What only the access log wants to know.
struct Log {
    format: Format,
    start_time: SystemTime,
    request: RequestLine,
    route_name: Option<Arc<str>>,
    transport_failure: Option<String>,
}

// === impl Record ===

impl Record {
    pub(crate) fn new(
        telemetry: &Rc<Telemetry>,
        downstream: &Rc<Downstream>,
        parts: &Parts,
        format: Option<Format>,
    ) -> Box<Self> {
        let is_grpc = grpc::is_grpc(&parts.headers);
        telemetry.begin();
        Box::new(Self {
            telemetry: telemetry.clone(),
            downstream: downstream.clone(),
            started: Instant::now(),
            log: format.map(|format| Log::new(format, parts)),
            is_grpc,
            request_head: head_bytes(&parts.headers)
                + parts.uri.path_and_query().map_or(0, |it| it.as_str().len()) as u64,
            upgraded_bytes: 0,
            request_body: None,
            source: None,
            service: None,
            destination: None,
            response_code: 0,
            response_head: 0,
            response_bytes: 0,
            response_messages: Messages::new(is_grpc),
            messages: None,
            grpc_status: None,
            flags: ResponseFlags::default(),
            details: Cow::Borrowed("via_upstream"),
            upstream_host: None,
            upstream_cluster: None,
            upstream_service_time: None,
            finished: false,
        })
    }

    pub(crate) fn set_address(&mut self, path: &str, authority: &str) {
        if let Some(log) = &mut self.log {
            path.clone_into(&mut log.request.path);
            authority.clone_into(&mut log.request.authority);
        }
    }

    pub(crate) fn set_request_id(&mut self, id: Option<&HeaderValue>) {
        if let Some(log) = &mut self.log {
            log.request.request_id = id.cloned();
        }
    }

    pub(crate) fn set_route(&mut self, name: &Arc<str>) {
        if let Some(log) = &mut self.log {
            log.route_name = Some(name.clone());
        }
    }

    pub(crate) fn set_transport_failure(&mut self, reason: String) {
        if let Some(log) = &mut self.log {
            log.transport_failure = Some(reason);
        }
    }

    /// The head of the response, as it goes to the client.
    pub(crate) fn response(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.response_code = status.as_u16();
        self.response_head = head_bytes(headers);
        if self.is_grpc {
            self.grpc_status = GrpcCode::of(headers);
        }
    }

    pub(crate) fn response_data(&mut self, data: &[u8]) {
        self.response_bytes += data.len() as u64;
        let begun = self.response_messages.read(data);
        if let Some(series) = &self.messages {
            series.responses.fetch_add(begun, Ordering::Relaxed);
        }
    }

    /// Bytes towards the server after the switch to another protocol.
    pub(crate) fn upgraded_data(&mut self, bytes: usize) {
        self.upgraded_bytes += bytes as u64;
    }

    /// It is known between whom messages go.
    pub(crate) fn count_messages(&mut self, body: &RequestBody) {
        if self.is_grpc {
            let series = self.telemetry.messages(&self.peers());
            body.count_messages(series.clone());
            self.messages = Some(series);
        }
    }

    fn peers(&self) -> Peers<'_> {
        Peers {
            source: self.source.as_ref(),
            source_identity: self.downstream.source_identity.as_ref(),
            service: self.service.as_ref(),
            destination: self.destination.as_ref(),
        }
    }

    pub(crate) fn response_trailers(&mut self, trailers: &HeaderMap) {
        if self.is_grpc {
            self.grpc_status = GrpcCode::of(trailers).or(self.grpc_status);
        }
    }

    pub(crate) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let body = self.request_body.as_ref();
        let request_bytes = self.upgraded_bytes + body.map_or(0, |body| body.bytes());
        let duration = self.started.elapsed();
        let labels = RequestLabels {
            protocol: match self.is_grpc {
                true => RequestProtocol::Grpc,
                false => RequestProtocol::Http,
            },
            response_code: self.response_code,
            grpc_status: self.grpc_status,
            response_flags: self.flags,
        };
        let series = self.telemetry.request(&self.peers(), labels);
        series.requests.fetch_add(1, Ordering::Relaxed);
        series.duration.record(duration.as_secs_f64() * 1000.0);
        let sizes = (
            self.request_head + request_bytes,
            self.response_head + self.response_bytes,
        );
        series.request_bytes.record(sizes.0 as f64);
        series.response_bytes.record(sizes.1 as f64);
        self.write_line(request_bytes, duration);
    }

    fn write_line(&mut self, bytes_received: u64, duration: Duration) {
        let Some(log) = self.log.take() else {
            return;
        };
        Line {
            format: log.format,
            start_time: log.start_time,
            request: Some(log.request),
            response_code: self.response_code,
            response_flags: self.flags,
            response_code_details: std::mem::take(&mut self.details),
            connection_termination_details: None,
            upstream_transport_failure_reason: log.transport_failure,
            bytes_received,
            bytes_sent: self.response_bytes,
            duration,
            upstream_service_time: self.upstream_service_time,
            upstream_host: self.upstream_host,
            upstream_cluster: self.upstream_cluster.clone(),
            downstream_local_address: self.downstream.destination,
            downstream_remote_address: self.downstream.source,
            route_name: log.route_name,
        }
        .write();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.telemetry.end();
        if !self.finished {
            self.flags
                .add(ResponseFlag::DownstreamConnectionTermination);
            self.details = Cow::Borrowed("downstream_remote_disconnect");
            self.finish();
        }
    }
}

/// Bytes of a head as HTTP/1.1 would write it.
fn head_bytes(headers: &HeaderMap) -> u64 {
    let bytes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    bytes.sum::<usize>() as u64
}

// === impl Log ===

impl Log {
    fn new(format: Format, parts: &Parts) -> Self {
        Self {
            format,
            start_time: SystemTime::now(),
            request: RequestLine {
                method: parts.method.clone(),
                path: String::new(),
                protocol: match parts.version {
                    Version::HTTP_2 => "HTTP/2",
                    Version::HTTP_10 => "HTTP/1.0",
                    _ => "HTTP/1.1",
                },
                authority: String::new(),
                forwarded_for: parts.headers.get("x-forwarded-for").cloned(),
                user_agent: parts.headers.get(USER_AGENT).cloned(),
                request_id: None,
            },
            route_name: None,
            transport_failure: None,
        }
    }
}
