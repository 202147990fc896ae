//! The access log: one line per request or connection, in Istio's two forms.
//!
//! A line is data until the log's own thread formats it. Whatever a peer had a say in is escaped.

mod form;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method};
use mesh::local_reply::response_flag::ResponseFlags;
use runtime::logs::{Fields, Record};
use tracing::Level;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Istio's default text.
    Text,
    /// One object, with Istio's keys.
    Json,
}

/// What is known once a request or a connection is over.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) format: Format,
    pub(crate) start_time: SystemTime,
    /// None for a connection that is not HTTP.
    pub(crate) request: Option<RequestLine>,
    pub(crate) response_code: u16,
    pub(crate) response_flags: ResponseFlags,
    pub(crate) response_code_details: Cow<'static, str>,
    pub(crate) connection_termination_details: Option<Cow<'static, str>>,
    pub(crate) upstream_transport_failure_reason: Option<String>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) duration: Duration,
    pub(crate) upstream_service_time: Option<Duration>,
    pub(crate) upstream_host: Option<SocketAddr>,
    pub(crate) upstream_cluster: Option<Arc<str>>,
    pub(crate) downstream_local_address: SocketAddr,
    pub(crate) downstream_remote_address: SocketAddr,
    pub(crate) route_name: Option<Arc<str>>,
}

/// What the client said.
#[derive(Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: Method,
    /// Without its query, which may hold secrets.
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    pub(crate) authority: String,
    pub(crate) forwarded_for: Option<HeaderValue>,
    pub(crate) user_agent: Option<HeaderValue>,
    pub(crate) request_id: Option<HeaderValue>,
}

// === impl Line ===

impl Line {
    pub(crate) fn write(self) {
        runtime::logs::write(Box::new(self));
    }
}

impl Record for Line {
    fn level(&self) -> Level {
        Level::INFO
    }

    fn target(&self) -> &str {
        "access"
    }

    fn message(&self) -> &str {
        ""
    }

    fn fields(&self, _: &mut Fields<'_>) {}

    fn own_form(&self, out: &mut String) -> bool {
        match self.format {
            Format::Text => form::text(self, out),
            Format::Json => form::json(self, out),
        }
        true
    }
}

#[cfg(test)]
mod tests;
