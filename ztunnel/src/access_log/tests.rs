//! Lines as they must read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hbone::headers::TraceParent;
use mesh::destination::Authority;
use mesh::identity::Identity;
use mesh::workload::Workload;
use runtime::logs::{Format, record};

use super::*;
use crate::proxy::access_log::Party;

fn record(event: Event, error: Option<&str>) -> AccessLogRecord {
    let web = Workload::new("Kubernetes//Pod/shop/web-0", "web-0", "shop");
    let api = Workload::new("Kubernetes//Pod/shop/api-0", "api-0", "shop");
    AccessLogRecord {
        event,
        direction: Direction::Outbound,
        source: Party {
            address: "10.244.1.2:40000".parse().expect("address"),
            workload: Some(Arc::new(web)),
            identity: Some(Identity::new("cluster.local", "shop", "web")),
        },
        destination: Party {
            address: "10.244.2.3:15008".parse().expect("address"),
            workload: Some(Arc::new(api)),
            identity: None,
        },
        hbone_address: Some(Authority::Address(
            "10.244.2.3:8080".parse().expect("address"),
        )),
        service: Some("api.shop.svc.cluster.local".into()),
        bytes_sent: 12,
        bytes_received: 3,
        duration: Duration::from_micros(2900),
        error: error.map(str::to_owned),
        tls_group: None,
        dry_run: None,
        trace: None,
    }
}

fn line(format: Format, record: AccessLogRecord) -> String {
    let mut out = String::new();
    record::write_line(&mut out, format, SystemTime::UNIX_EPOCH, &Line(record));
    out
}

const WHO: &str = "src.addr=10.244.1.2:40000 src.workload=\"web-0\" src.namespace=\"shop\" \
    src.identity=\"spiffe://cluster.local/ns/shop/sa/web\" src.cluster=\"Kubernetes\" \
    dst.addr=10.244.2.3:15008 dst.hbone_addr=10.244.2.3:8080 \
    dst.service=\"api.shop.svc.cluster.local\" dst.workload=\"api-0\" dst.namespace=\"shop\" \
    dst.cluster=\"Kubernetes\" direction=\"outbound\"";
const SUM: &str = "bytes_sent=12 bytes_recv=3 duration=\"2ms\"";

fn check(event: Event, error: Option<&str>, expected: &str) {
    let line = line(Format::Plain, record(event, error));
    let (time, rest) = line.split_once('\t').expect("time first");
    assert_eq!(time, "1970-01-01T00:00:00.000000Z");
    assert_eq!(rest, format!("{expected}\n"));
}

#[test]
fn lines_read_as_istios() {
    check(
        Event::Open,
        None,
        &format!("debug\taccess\tconnection opened\t{WHO}"),
    );
    check(
        Event::Close,
        None,
        &format!("info\taccess\tconnection complete\t{WHO} {SUM}"),
    );
    check(
        Event::Close,
        Some("reset"),
        &format!("error\taccess\tconnection complete\t{WHO} {SUM} error=\"reset\""),
    );
    check(
        Event::Reject,
        Some("unknown source"),
        &format!("warn\taccess\tconnection failed\t{WHO} {SUM} error=\"unknown source\""),
    );
}

#[test]
fn json_lines_hold_the_fields_beside_the_message() {
    let text = line(Format::Json, record(Event::Close, None));
    let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(line["scope"], "access");
    assert_eq!(line["message"], "connection complete");
    assert_eq!(line["src.addr"], "10.244.1.2:40000");
    assert_eq!(line["dst.service"], "api.shop.svc.cluster.local");
    assert_eq!(line["bytes_recv"], 3);
}

#[test]
fn what_is_ours_stands_last() {
    let mut record = record(Event::Close, None);
    record.dry_run = Some("denied by policy shop/try".to_owned());
    let trace = TraceParent::random(&mut rand::rng());
    record.trace = Some(trace.trace_id());
    let line = line(Format::Plain, record);
    let id = trace.to_string()[3..35].to_owned();
    let end = format!("{SUM} policy.dry_run=\"denied by policy shop/try\" trace={id}\n");
    assert!(line.ends_with(&end), "{line}");
}
