//! The series of `istio_tcp_*`: labels, and counter handles kept while connections use them.
//!
//! Labels are made once per series, not per connection. A series nobody holds any more leaves
//! this cache at the next upkeep, and the recorder's registry when it has been idle long enough.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh::identity::Identity;
use mesh::service::Service;
use mesh::workload::Workload;
use metrics::{Counter, Label, SharedString};

const UNKNOWN: &str = "unknown";

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
#[derive(Debug, Default)]
pub struct SeriesCache {
    series: Mutex<HashMap<Key, Entry>>,
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
    /// Holds the addresses in the key, so that no other object takes them.
    _source: Option<Arc<Workload>>,
    _destination: Option<Arc<Workload>>,
    _service: Option<Arc<Service>>,
}

// === impl SeriesCache ===

impl SeriesCache {
    /// The counters of a label set, to be held while the connection lasts.
    pub fn series(&self, labels: &Labels<'_>) -> Arc<Series> {
        let key = Key {
            reporter: labels.reporter,
            security: labels.security,
            flags: labels.flags,
            source: labels.source.map(address_of),
            destination: labels.destination.map(address_of),
            service: labels.service.map(address_of),
            source_identity: labels.source_identity.cloned(),
            destination_identity: labels.destination_identity.cloned(),
        };
        let mut series = self.lock();
        let entry = series.entry(key).or_insert_with(|| Entry {
            series: Arc::new(Series::register(render(labels))),
            _source: labels.source.cloned(),
            _destination: labels.destination.cloned(),
            _service: labels.service.cloned(),
        });
        entry.series.clone()
    }

    /// Keeps the series of open connections alive and lets the others go; to be called
    /// more often than the recorder forgets idle series.
    pub fn upkeep(&self) {
        let mut series = self.lock();
        series.retain(|_, entry| {
            let held = Arc::strong_count(&entry.series) > 1;
            if held {
                entry.series.touch();
            }
            held
        });
        series.shrink_to_fit();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
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
    label("source_workload", shared(source.map(|w| workload_name(w))));
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
        shared(destination.map(|w| workload_name(w))),
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

/// Labels of a name resolved for a client.
pub(crate) fn resolution_labels(source: &Workload, hostname: &Arc<str>) -> Vec<Label> {
    let label = |name: &'static str, value: &Arc<str>| match &**value {
        "" => Label::new(name, UNKNOWN),
        _ => Label::new(name, value.clone()),
    };
    vec![
        label("source_workload", workload_name(source)),
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
fn workload_name(workload: &Workload) -> &Arc<str> {
    if workload.workload_name.is_empty() {
        &workload.name
    } else {
        &workload.workload_name
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
