//! The access log: target `access`, Istio's fields in Istio's order.
//!
//! A line is the data path's record until the log's own thread formats it.

use runtime::logs::{Fields, Record};
use tracing::Level;

use crate::proxy::access_log::{AccessLog, AccessLogRecord, Direction, Event};

/// Hands records to the process's log.
#[derive(Debug)]
pub struct ProcessLog;

struct Line(AccessLogRecord);

// === impl ProcessLog ===

impl AccessLog for ProcessLog {
    fn wants(&self, event: Event) -> bool {
        match event {
            Event::Open => tracing::enabled!(target: "access", Level::DEBUG),
            // Whether it ended well is known only then.
            Event::Close => tracing::enabled!(target: "access", Level::ERROR),
            Event::Reject => tracing::enabled!(target: "access", Level::WARN),
        }
    }

    fn write(&self, record: AccessLogRecord) {
        let line = Line(record);
        let on = match line.level() {
            Level::INFO => tracing::enabled!(target: "access", Level::INFO),
            // What the caller was told it may write.
            _ => true,
        };
        if on {
            runtime::logs::write(Box::new(line));
        }
    }
}

// === impl Line ===

impl Record for Line {
    fn level(&self) -> Level {
        match (self.0.event, &self.0.error) {
            (Event::Open, _) => Level::DEBUG,
            (Event::Close, None) => Level::INFO,
            (Event::Close, Some(_)) => Level::ERROR,
            (Event::Reject, _) => Level::WARN,
        }
    }

    fn target(&self) -> &str {
        "access"
    }

    fn message(&self) -> &str {
        match self.0.event {
            Event::Open => "connection opened",
            Event::Close => "connection complete",
            Event::Reject => "connection failed",
        }
    }

    fn fields(&self, fields: &mut Fields<'_>) {
        let record = &self.0;
        let (source, destination) = (&record.source, &record.destination);
        fields.display("src.addr", source.address);
        if let Some(workload) = &source.workload {
            fields.text("src.workload", workload.name());
            fields.text("src.namespace", &workload.namespace);
        }
        if let Some(identity) = &source.identity {
            fields.text("src.identity", &identity.to_string());
        }
        if let Some(workload) = &source.workload {
            fields.text("src.cluster", &workload.cluster_id);
        }
        fields.display("dst.addr", destination.address);
        if let Some(address) = &record.hbone_address {
            fields.display("dst.hbone_addr", address);
        }
        if let Some(service) = &record.service {
            fields.text("dst.service", service);
        }
        if let Some(workload) = &destination.workload {
            fields.text("dst.workload", workload.name());
            fields.text("dst.namespace", &workload.namespace);
        }
        if let Some(identity) = &destination.identity {
            fields.text("dst.identity", &identity.to_string());
        }
        if let Some(workload) = &destination.workload {
            fields.text("dst.cluster", &workload.cluster_id);
        }
        let direction = match record.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        fields.text("direction", direction);
        match record.event {
            Event::Open => {}
            Event::Close | Event::Reject => {
                fields.number("bytes_sent", record.bytes_sent);
                fields.number("bytes_recv", record.bytes_received);
                fields.text("duration", &format!("{}ms", record.duration.as_millis()));
            }
        }
        if let Some(error) = &record.error {
            fields.text("error", error);
        }
        // Ours; last, so that Istio's fields stay where they are.
        if let Some(group) = record.tls_group {
            fields.text("tls.group", group);
        }
        if let Some(verdict) = &record.dry_run {
            fields.text("policy.dry_run", verdict);
        }
        if let Some(trace) = record.trace {
            fields.display("trace", trace);
        }
    }
}

#[cfg(test)]
mod tests;
