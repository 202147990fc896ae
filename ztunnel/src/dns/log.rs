//! What is counted and logged of questions, under Istio's names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::Message;
use mesh::workload::Workload;
use metrics::{Label, counter, histogram};
use runtime::logs::{Fields, Record};
use tracing::Level;

use crate::proxy::WorkloadInfo;

/// Of `istio_dns_upstream_request_duration_seconds`.
pub const UPSTREAM_DURATION_BUCKETS: &[f64] = &[0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];

/// It is said at most this often of a pod that its questions are turned away.
const TELL: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Udp,
    Tcp,
}

/// How a question ended.
pub(super) enum Outcome<'a> {
    Mesh(&'a Message),
    Cached(&'a Message),
    Upstream(&'a Message),
    /// Kept beyond its time, as no nameserver answers.
    Stale(&'a Message),
    Failed(&'a str),
    UnknownClient,
}

/// What is full where a question finds no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// As many of the pod's questions wait for nameservers as may.
    Pod,
    /// As many of all pods' questions do.
    Node,
    /// The pod has as many TCP connections as may be.
    Connection,
}

/// One question of one pod.
pub(super) struct Question {
    labels: Vec<Label>,
    query_type: String,
    name: String,
    pod: WorkloadInfo,
}

/// A log line, formatted by the log's own thread.
struct Line {
    pod: WorkloadInfo,
    query_type: String,
    name: String,
    result: String,
    endpoints: String,
}

/// Counts what finds no place, and says so now and then: `told` is when that was.
pub(super) fn turned_away(
    turned: Turned,
    pod: &WorkloadInfo,
    told: &mut Option<Instant>,
    now: Instant,
) {
    counter!("weft_dns_turned_away_total", "reason" => turned.as_str()).increment(1);
    if told.is_some_and(|told| now.duration_since(told) < TELL) {
        return;
    }
    *told = Some(now);
    tracing::warn!(
        limit = turned.as_str(),
        pod = &*pod.name,
        namespace = &*pod.namespace,
        "DNS questions are turned away; names of the mesh are answered"
    );
}

// === impl Turned ===

impl Turned {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Node => "node",
            Self::Connection => "connections",
        }
    }
}

// === impl Question ===

impl Question {
    pub(super) fn new(
        message: &Message,
        via: Via,
        client: Option<&Arc<Workload>>,
        pod: &WorkloadInfo,
    ) -> Self {
        let query = message.queries.first();
        // Only types that have a name: a client could make up 65,536 series otherwise.
        let query_type = query.map_or_else(String::new, |query| query.query_type().to_string());
        let known = query_type.bytes().all(|byte| byte.is_ascii_uppercase());
        let label_type = if known {
            query_type.clone()
        } else {
            "unknown".to_owned()
        };
        let protocol = match via {
            Via::Udp => "udp",
            Via::Tcp => "tcp",
        };
        let text = |text: Option<&Arc<str>>| match text {
            Some(text) if !text.is_empty() => text.to_string(),
            _ => "unknown".to_owned(),
        };
        let service = text(client.map(|client| &client.canonical_name));
        let revision = text(client.map(|client| &client.canonical_revision));
        let labels = vec![
            Label::new("request_query_type", label_type),
            Label::new("request_protocol", protocol),
            Label::new("source_canonical_service", service),
            Label::new("source_canonical_revision", revision),
        ];
        counter!("istio_dns_requests_total", labels.iter()).increment(1);
        Self {
            labels,
            query_type,
            name: query.map_or_else(String::new, |query| query.name().to_ascii()),
            pod: pod.clone(),
        }
    }

    /// It went to the nameservers.
    pub(super) fn forwarded(&self, took: Duration, answered: bool) {
        let labels = || self.labels.iter();
        counter!("istio_dns_upstream_requests_total", labels()).increment(1);
        if !answered {
            counter!("istio_dns_upstream_failures_total", labels()).increment(1);
        }
        let name = "istio_dns_upstream_request_duration_seconds";
        histogram!(name, labels()).record(took.as_secs_f64());
    }

    pub(super) fn answered(&self, outcome: Outcome<'_>) {
        if matches!(outcome, Outcome::Stale(_)) {
            counter!("weft_dns_stale_answers_total").increment(1);
        }
        if !tracing::enabled!(target: "dns", Level::DEBUG) {
            return;
        }
        let (result, answer) = match outcome {
            Outcome::Mesh(answer) => ("mesh", Some(answer)),
            Outcome::Cached(answer) => ("cached", Some(answer)),
            Outcome::Upstream(answer) => ("forwarded", Some(answer)),
            Outcome::Stale(answer) => ("stale", Some(answer)),
            Outcome::Failed(error) => (error, None),
            Outcome::UnknownClient => ("the pod is not known to the mesh yet", None),
        };
        let endpoints: Vec<String> = answer
            .into_iter()
            .flat_map(|answer| &answer.answers)
            .filter_map(|record| record.data.ip_addr())
            .map(|address| address.to_string())
            .collect();
        runtime::logs::write(Box::new(Line {
            pod: self.pod.clone(),
            query_type: self.query_type.clone(),
            name: self.name.clone(),
            result: result.to_owned(),
            endpoints: endpoints.join(","),
        }));
    }
}

// === impl Line ===

impl Record for Line {
    fn level(&self) -> Level {
        Level::DEBUG
    }

    fn target(&self) -> &str {
        "dns"
    }

    fn message(&self) -> &str {
        "dns request"
    }

    fn fields(&self, fields: &mut Fields<'_>) {
        fields.text("src.workload", &self.pod.name);
        fields.text("src.namespace", &self.pod.namespace);
        fields.text("query", &self.query_type);
        fields.text("domain", &self.name);
        fields.text("result", &self.result);
        fields.text("endpoints", &self.endpoints);
    }
}
