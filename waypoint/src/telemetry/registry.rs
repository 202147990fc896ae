//! All series of the process: workers' shares by label set, forgotten when idle, rendered together.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime::metrics::{Exposition, Kind};

use super::histogram::{Histogram, Totals};

/// One worker's share of a request's series.
#[derive(Debug, Default)]
pub(crate) struct RequestSeries {
    pub(crate) requests: AtomicU64,
    /// Milliseconds.
    pub(crate) duration: Histogram,
    pub(crate) request_bytes: Histogram,
    pub(crate) response_bytes: Histogram,
    retired: AtomicBool,
}

/// One worker's share of what is counted of gRPC while streams are open.
#[derive(Debug, Default)]
pub(crate) struct MessageSeries {
    pub(crate) requests: AtomicU64,
    pub(crate) responses: AtomicU64,
    retired: AtomicBool,
}

/// One worker's share of a connection's series.
#[derive(Debug, Default)]
pub(crate) struct TcpSeries {
    pub(crate) opened: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    retired: AtomicBool,
}

/// Everything that is counted, by rendered labels.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    requests: Mutex<BTreeMap<String, Entry<RequestSeries>>>,
    messages: Mutex<BTreeMap<String, Entry<MessageSeries>>>,
    connections: Mutex<BTreeMap<String, Entry<TcpSeries>>>,
    workers: AtomicUsize,
}

#[derive(Debug)]
struct Entry<S> {
    /// By worker.
    shares: BTreeMap<usize, Arc<S>>,
    /// What all shares had counted when they were last seen to change, and when.
    activity: u64,
    changed: Instant,
}

/// A share as the registry sees it.
pub(super) trait Series: Default {
    /// Grows whenever something is counted.
    fn activity(&self) -> u64;
    fn retired(&self) -> &AtomicBool;
}

// === impl Registry ===

impl Registry {
    pub(super) fn request(&self, worker: usize, labels: String) -> Arc<RequestSeries> {
        share(&mut lock(&self.requests), worker, labels)
    }

    pub(super) fn messages(&self, worker: usize, labels: String) -> Arc<MessageSeries> {
        share(&mut lock(&self.messages), worker, labels)
    }

    pub(super) fn connection(&self, worker: usize, labels: String) -> Arc<TcpSeries> {
        share(&mut lock(&self.connections), worker, labels)
    }

    /// A number that no other worker has.
    pub(super) fn worker(&self) -> usize {
        self.workers.fetch_add(1, Ordering::Relaxed)
    }

    /// Forgets series that nothing was counted in for `idle`; their holders are told. Those of
    /// streams and connections that are open stay.
    pub(crate) fn forget_idle(&self, now: Instant, idle: Duration) {
        forget(&mut lock(&self.requests), now, idle);
        forget(&mut lock(&self.messages), now, idle);
        forget(&mut lock(&self.connections), now, idle);
    }

    /// Istio's families.
    pub(crate) fn render(&self, exposition: &mut Exposition) {
        let requests = lock(&self.requests);
        let name = "istio_requests_total";
        let out = exposition.raw_family(name, Kind::Counter, "Requests completed");
        for (labels, entry) in &*requests {
            counter(out, name, labels, entry.total(|series| &series.requests));
        }
        type Measure = fn(&RequestSeries) -> &Histogram;
        let histograms: [(_, _, Measure); 3] = [
            (
                "istio_request_duration_milliseconds",
                "First byte of the request to last byte of the response",
                |series| &series.duration,
            ),
            (
                "istio_request_bytes",
                "Requests, headers and body",
                |series| &series.request_bytes,
            ),
            (
                "istio_response_bytes",
                "Responses, headers and body",
                |series| &series.response_bytes,
            ),
        ];
        for (name, help, measure) in histograms {
            let out = exposition.raw_family(name, Kind::Histogram, help);
            for (labels, entry) in &*requests {
                let mut totals = Totals::default();
                let shares = entry.shares.values();
                shares.for_each(|share| totals.add(measure(share)));
                totals.render(out, name, labels);
            }
        }
        drop(requests);
        self.render_messages(exposition);
        self.render_connections(exposition);
    }

    fn render_messages(&self, exposition: &mut Exposition) {
        let messages = lock(&self.messages);
        type Count = fn(&MessageSeries) -> &AtomicU64;
        let counters: [(_, _, Count); 2] = [
            (
                "istio_request_messages_total",
                "gRPC messages of clients",
                |series| &series.requests,
            ),
            (
                "istio_response_messages_total",
                "gRPC messages of servers",
                |series| &series.responses,
            ),
        ];
        for (name, help, count) in counters {
            let out = exposition.raw_family(name, Kind::Counter, help);
            for (labels, entry) in &*messages {
                counter(out, name, labels, entry.total(count));
            }
        }
    }

    fn render_connections(&self, exposition: &mut Exposition) {
        let connections = lock(&self.connections);
        type Count = fn(&TcpSeries) -> &AtomicU64;
        let counters: [(_, _, Count); 4] = [
            (
                "istio_tcp_connections_opened_total",
                "Connections opened",
                |series| &series.opened,
            ),
            (
                "istio_tcp_connections_closed_total",
                "Connections closed",
                |series| &series.closed,
            ),
            (
                "istio_tcp_received_bytes_total",
                "Bytes from clients",
                |series| &series.received_bytes,
            ),
            ("istio_tcp_sent_bytes_total", "Bytes to clients", |series| {
                &series.sent_bytes
            }),
        ];
        for (name, help, count) in counters {
            let out = exposition.raw_family(name, Kind::Counter, help);
            for (labels, entry) in &*connections {
                counter(out, name, labels, entry.total(count));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn share<S: Series>(
    entries: &mut BTreeMap<String, Entry<S>>,
    worker: usize,
    labels: String,
) -> Arc<S> {
    let entry = entries.entry(labels).or_insert_with(|| Entry {
        shares: BTreeMap::new(),
        activity: 0,
        changed: Instant::now(),
    });
    entry.shares.entry(worker).or_default().clone()
}

/// All shares of a series go together: what one had counted can't be missing from the rest.
fn forget<S: Series>(entries: &mut BTreeMap<String, Entry<S>>, now: Instant, idle: Duration) {
    entries.retain(|_, entry| {
        let activity = entry.shares.values().map(|share| share.activity()).sum();
        if activity != entry.activity {
            (entry.activity, entry.changed) = (activity, now);
        }
        let keep = now.duration_since(entry.changed) < idle || entry.is_held();
        if !keep {
            for share in entry.shares.values() {
                share.retired().store(true, Ordering::Relaxed);
            }
        }
        keep
    });
}

fn counter(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = writeln!(out, "{name}{{{labels}}} {value}");
}

// === impl Entry ===

impl<S> Entry<S> {
    /// By more than this registry and the worker's own telemetry.
    fn is_held(&self) -> bool {
        self.shares
            .values()
            .any(|share| Arc::strong_count(share) > 2)
    }

    fn total(&self, count: fn(&S) -> &AtomicU64) -> u64 {
        let counts = self.shares.values().map(|share| count(share));
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

// === impl Series ===

impl Series for RequestSeries {
    fn activity(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn retired(&self) -> &AtomicBool {
        &self.retired
    }
}

impl Series for MessageSeries {
    fn activity(&self) -> u64 {
        self.requests.load(Ordering::Relaxed) + self.responses.load(Ordering::Relaxed)
    }

    fn retired(&self) -> &AtomicBool {
        &self.retired
    }
}

impl Series for TcpSeries {
    fn activity(&self) -> u64 {
        [
            &self.opened,
            &self.closed,
            &self.received_bytes,
            &self.sent_bytes,
        ]
        .map(|count| count.load(Ordering::Relaxed))
        .iter()
        .sum()
    }

    fn retired(&self) -> &AtomicBool {
        &self.retired
    }
}
