//! The series of `istio_tcp_*`: labels, and counter handles kept while connections use them.
//!
//! Labels are made once per series, not per connection. A series nobody holds any more leaves
//! this cache at the next upkeep, and the recorder's registry when it has been idle long enough.
//! There are never more than [`MAXIMUM`] label sets: whoever would make another (a peer with a
//! name of its own for each connection, say) is counted as unknown.

mod label_sets;

pub(crate) mod shortages;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh::identity::Identity;
use mesh::service::Service;
use mesh::workload::Workload;
use metrics::{Counter, Label, SharedString};

use self::label_sets::LabelSets;

const UNKNOWN: &str = "unknown";
/// Label sets that may be in use. Each costs about 7 KB.
pub const MAXIMUM: usize = 10_000;
/// How long the recorder keeps what nobody changes, where nothing else is said.
pub const IDLE: Duration = Duration::from_secs(3600);

/// What is known of a connection when it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    pub reporter: Reporter,
    pub security: ConnectionSecurityPolicy,
    pub flags: ResponseFlags,
    pub source: Option<&'a Arc<Workload>>,
    /// From the certificate, or our own; only over mutual TLS.
    pub source_identity: Option<&'a Identity>,
    pub service: Option<&'a Arc<Service>>,
    pub destination: Option<&'a Arc<Workload>>,
    pub destination_identity: Option<&'a Identity>,
}

/// Who counts: the client's tunnel or the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reporter {
    Source,
    Destination,
}

/// How a connection's peers were authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionSecurityPolicy {
    MutualTls,
    Unknown,
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlags {
    None,
    /// Policy denied.
    Deny,
    /// The connection to the next hop failed.
    Connect,
    TlsFailure,
    H2HandshakeFailure,
    /// A timeout on 15008, as a network policy in the way causes it.
    NetworkPolicy,
    /// The peer has another identity than expected.
    IdentityError,
    CertRevoked,
}

/// Counters of one label set.
#[derive(Debug)]
pub struct Series {
    pub opened: Counter,
    pub closed: Counter,
    pub failed: Counter,
    /// From client to server.
    pub received_bytes: Counter,
    /// From server to client.
    pub sent_bytes: Counter,
}

/// Every series in use.
#[derive(Debug)]
pub struct SeriesCache(Mutex<Cached>);

#[derive(Debug)]
struct Cached {
    series: HashMap<Key, Entry>,
    label_sets: LabelSets,
}

/// Workloads and services count as what the snapshot shares: one allocation, one object.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    reporter: Reporter,
    security: ConnectionSecurityPolicy,
    flags: ResponseFlags,
    source: Option<usize>,
    destination: Option<usize>,
    service: Option<usize>,
    source_identity: Option<Identity>,
    destination_identity: Option<Identity>,
}

#[derive(Debug)]
struct Entry {
    series: Arc<Series>,
    /// Which label set it is.
    label_set: u64,
    /// Holds the addresses in the key, so that no other object takes them.
    _source: Option<Arc<Workload>>,
    _destination: Option<Arc<Workload>>,
    _service: Option<Arc<Service>>,
}

// === impl SeriesCache ===

impl Default for SeriesCache {
    fn default() -> Self {
        Self::new(IDLE)
    }
}

impl SeriesCache {
    /// `idle`: how long the recorder keeps what nobody changes.
    pub fn new(idle: Duration) -> Self {
        Self::with_maximum(idle, MAXIMUM)
    }

    fn with_maximum(idle: Duration, maximum: usize) -> Self {
        Self(Mutex::new(Cached {
            series: HashMap::new(),
            label_sets: LabelSets::new(maximum, idle),
        }))
    }

    /// The counters of a label set, to be held while the connection lasts.
    pub fn series(&self, labels: &Labels<'_>) -> Arc<Series> {
        let mut cached = self.lock();
        let key = Key::of(labels);
        if let Some(known) = cached.series.get(&key) {
            return known.series.clone();
        }
        let rendered = render(labels);
        match cached.label_sets.admit(&rendered) {
            Some(label_set) => cached.insert(key, labels, rendered, label_set),
            None => {
                count_overflow();
                let unknown = labels.anonymous();
                let key = Key::of(&unknown);
                if let Some(known) = cached.series.get(&key) {
                    return known.series.clone();
                }
                let rendered = render(&unknown);
                let label_set = cached.label_sets.admit_anyway(&rendered);
                cached.insert(key, &unknown, rendered, label_set)
            }
        }
    }

    /// Labels of a name resolved for a client.
    pub(crate) fn resolution_labels(&self, source: &Workload, hostname: &Arc<str>) -> Vec<Label> {
        let labels = resolution_labels(source, hostname);
        match self.lock().label_sets.admit(&labels) {
            Some(_) => labels,
            None => {
                count_overflow();
                resolution_labels(source, &UNKNOWN.into())
            }
        }
    }

    /// Keeps the series of open connections alive and lets the others go; to be called
    /// more often than the recorder forgets idle series.
    pub fn upkeep(&self) {
        shortages::touch();
        let Cached { series, label_sets } = &mut *self.lock();
        series.retain(|_, entry| {
            // Also of one that was let go a moment ago, and counted until then.
            label_sets.touch(entry.label_set);
            let held = Arc::strong_count(&entry.series) > 1;
            if held {
                entry.series.touch();
            }
            held
        });
        series.shrink_to_fit();
        label_sets.forget();
    }

    fn lock(&self) -> MutexGuard<'_, Cached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count_overflow() {
    metrics::counter!("weft_metric_series_overflow_total").increment(1);
}

// === impl Cached ===

impl Cached {
    fn insert(
        &mut self,
        key: Key,
        labels: &Labels<'_>,
        rendered: Vec<Label>,
        label_set: u64,
    ) -> Arc<Series> {
        let series = Arc::new(Series::register(rendered));
        let entry = Entry {
            series: series.clone(),
            label_set,
            _source: labels.source.cloned(),
            _destination: labels.destination.cloned(),
            _service: labels.service.cloned(),
        };
        self.series.insert(key, entry);
        series
    }
}

// === impl Labels ===

impl Labels<'_> {
    /// Without anything that says whose connection it is.
    fn anonymous(&self) -> Self {
        Self {
            source: None,
            source_identity: None,
            service: None,
            destination: None,
            destination_identity: None,
            ..*self
        }
    }
}

// === impl Key ===

impl Key {
    fn of(labels: &Labels<'_>) -> Self {
        Self {
            reporter: labels.reporter,
            security: labels.security,
            flags: labels.flags,
            source: labels.source.map(address_of),
            destination: labels.destination.map(address_of),
            service: labels.service.map(address_of),
            source_identity: labels.source_identity.cloned(),
            destination_identity: labels.destination_identity.cloned(),
        }
    }
}

fn address_of<T>(shared: &Arc<T>) -> usize {
    Arc::as_ptr(shared) as usize
}

// === impl Series ===

impl Series {
    fn register(labels: Vec<Label>) -> Self {
        let counter = |name: &'static str| metrics::counter!(name, labels.iter());
        Self {
            opened: counter("istio_tcp_connections_opened_total"),
            closed: counter("istio_tcp_connections_closed_total"),
            failed: counter("istio_tcp_connections_failed_total"),
            received_bytes: counter("istio_tcp_received_bytes_total"),
            sent_bytes: counter("istio_tcp_sent_bytes_total"),
        }
    }

    fn touch(&self) {
        for counter in [
            &self.opened,
            &self.closed,
            &self.failed,
            &self.received_bytes,
            &self.sent_bytes,
        ] {
            counter.increment(0);
        }
    }
}

/// Labels in Istio's order; what is missing is `unknown`.
fn render(from: &Labels<'_>) -> Vec<Label> {
    let mut labels = Vec::with_capacity(27);
    let mut label = |name: &'static str, value: SharedString| {
        let value = match &*value {
            "" => UNKNOWN.into(),
            _ => value,
        };
        labels.push(Label::new(name, value));
    };
    let principal = |identity: Option<&Identity>| -> SharedString {
        match identity {
            Some(identity) => identity.to_string().into(),
            None => UNKNOWN.into(),
        }
    };
    let shared = |text: Option<&Arc<str>>| -> SharedString {
        text.map_or(UNKNOWN.into(), |text| text.clone().into())
    };

    label("reporter", from.reporter.as_str().into());
    let source = from.source;
    label(
        "source_workload",
        shared(source.map(|w| workload_name(w)).as_ref()),
    );
    label(
        "source_canonical_service",
        shared(source.map(|w| &w.canonical_name)),
    );
    label(
        "source_canonical_revision",
        shared(source.map(|w| &w.canonical_revision)),
    );
    label(
        "source_workload_namespace",
        shared(source.map(|w| &w.namespace)),
    );
    label("source_principal", principal(from.source_identity));
    label("source_app", shared(source.map(|w| &w.canonical_name)));
    label(
        "source_version",
        shared(source.map(|w| &w.canonical_revision)),
    );
    label("source_cluster", shared(source.map(|w| &w.cluster_id)));

    let service = from.service;
    label("destination_service", shared(service.map(|s| &s.hostname)));
    label(
        "destination_service_namespace",
        shared(service.map(|s| &s.namespace)),
    );
    label("destination_service_name", shared(service.map(|s| &s.name)));

    let destination = from.destination;
    label(
        "destination_workload",
        shared(destination.map(|w| workload_name(w)).as_ref()),
    );
    label(
        "destination_canonical_service",
        shared(destination.map(|w| &w.canonical_name)),
    );
    label(
        "destination_canonical_revision",
        shared(destination.map(|w| &w.canonical_revision)),
    );
    label(
        "destination_workload_namespace",
        shared(destination.map(|w| &w.namespace)),
    );
    label(
        "destination_principal",
        principal(from.destination_identity),
    );
    label(
        "destination_app",
        shared(destination.map(|w| &w.canonical_name)),
    );
    label(
        "destination_version",
        shared(destination.map(|w| &w.canonical_revision)),
    );
    label(
        "destination_cluster",
        shared(destination.map(|w| &w.cluster_id)),
    );

    label("request_protocol", "tcp".into());
    label("response_flags", from.flags.as_str().into());
    label("connection_security_policy", from.security.as_str().into());
    for (workload, region, zone) in [
        (source, "source_region", "source_zone"),
        (destination, "destination_region", "destination_zone"),
    ] {
        // Optional labels: left out rather than unknown.
        let Some(locality) = workload.map(|w| &w.locality) else {
            continue;
        };
        if !locality.region.is_empty() {
            label(region, locality.region.clone().into());
        }
        if !locality.zone.is_empty() {
            label(zone, locality.zone.clone().into());
        }
    }
    labels
}

fn resolution_labels(source: &Workload, hostname: &Arc<str>) -> Vec<Label> {
    let label = |name: &'static str, value: &Arc<str>| match &**value {
        "" => Label::new(name, UNKNOWN),
        _ => Label::new(name, value.clone()),
    };
    vec![
        label("source_workload", &workload_name(source)),
        label("source_canonical_service", &source.canonical_name),
        label("source_canonical_revision", &source.canonical_revision),
        label("source_workload_namespace", &source.namespace),
        Label::new("source_principal", source.identity().to_string()),
        label("source_app", &source.canonical_name),
        label("source_version", &source.canonical_revision),
        label("source_cluster", &source.cluster_id),
        label("hostname", hostname),
    ]
}

/// The owner's name; a bare pod is its own.
fn workload_name(workload: &Workload) -> Arc<str> {
    if workload.workload_name.is_empty() {
        workload.name().into()
    } else {
        workload.workload_name.clone()
    }
}

// === impl ResponseFlags ===

impl ResponseFlags {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

// === impl Reporter ===

impl Reporter {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

// === impl ConnectionSecurityPolicy ===

impl ConnectionSecurityPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Unknown => UNKNOWN,
        }
    }
}

#[cfg(test)]
mod tests;
