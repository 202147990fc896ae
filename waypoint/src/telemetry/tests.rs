//! The scrape as Prometheus gets it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mesh::grpc::GrpcCode;
use mesh::identity::Identity;
use mesh::local_reply::response_flag::ResponseFlags;
use mesh::service::Service;
use mesh::workload::Workload;
use runtime::metrics::Exposition;

use super::registry::Registry;
use super::*;

fn scrape(registry: &Registry) -> String {
    let mut exposition = Exposition::default();
    registry.render(&mut exposition);
    exposition.into_text()
}

fn labels(protocol: RequestProtocol) -> RequestLabels {
    RequestLabels {
        protocol,
        response_code: 200,
        grpc_status: match protocol {
            RequestProtocol::Http => None,
            RequestProtocol::Grpc => Some(GrpcCode::Ok),
        },
        response_flags: ResponseFlags::default(),
    }
}

#[test]
fn a_series_has_istios_labels_in_istios_order() {
    let registry = Arc::<Registry>::default();
    let telemetry = Telemetry::new(registry.clone());
    let mut client = Workload::new("k//Pod/shop/client-1", "client-1", "shop");
    client.workload_name = "client".into();
    client.canonical_name = "client".into();
    client.canonical_revision = "v1".into();
    let client = Arc::new(client);
    let service = Arc::new(Service::new("web", "shop", "web.shop.svc.cluster.local"));
    let identity = Identity::new("cluster.local", "shop", "client");
    let peers = Peers {
        source: Some(&client),
        source_identity: Some(&identity),
        service: Some(&service),
        destination: None,
    };
    let series = telemetry.request(&peers, labels(RequestProtocol::Http));
    series.requests.fetch_add(1, Ordering::Relaxed);
    series.duration.record(7.5);
    let expected = "istio_requests_total{reporter=\"waypoint\",source_workload=\"client\",\
        source_workload_namespace=\"shop\",source_canonical_service=\"client\",\
        source_canonical_revision=\"v1\",\
        source_principal=\"spiffe://cluster.local/ns/shop/sa/client\",source_app=\"client\",\
        source_version=\"v1\",source_cluster=\"Kubernetes\",destination_workload=\"unknown\",\
        destination_workload_namespace=\"unknown\",destination_principal=\"unknown\",\
        destination_app=\"unknown\",destination_version=\"unknown\",\
        destination_service=\"web.shop.svc.cluster.local\",\
        destination_canonical_service=\"unknown\",destination_canonical_revision=\"unknown\",\
        destination_service_name=\"web\",destination_service_namespace=\"shop\",\
        destination_cluster=\"unknown\",request_protocol=\"http\",response_code=\"200\",\
        grpc_response_status=\"\",response_flags=\"-\",\
        connection_security_policy=\"mutual_tls\"} 1";
    let text = scrape(&registry);
    assert!(text.lines().any(|line| line == expected), "{text}");
    for (bound, amount) in [("0.5", 0), ("5", 0), ("10", 1), ("3600000", 1), ("+Inf", 1)] {
        let end = format!(",le=\"{bound}\"}} {amount}");
        let found = text.lines().any(|line| {
            line.starts_with("istio_request_duration_milliseconds_bucket") && line.ends_with(&end)
        });
        assert!(found, "{end} in {text}");
    }
    let sum = text
        .lines()
        .find(|line| line.starts_with("istio_request_duration_milliseconds_sum"));
    assert!(sum.expect("a sum").ends_with(" 7.5"));
    assert!(
        !text
            .lines()
            .any(|line| line.starts_with("istio_request_messages_total{"))
    );
}

#[test]
fn workers_shares_are_added_up_and_idle_series_go() {
    let registry = Arc::<Registry>::default();
    let workers = [
        Telemetry::new(registry.clone()),
        Telemetry::new(registry.clone()),
    ];
    let peers = Peers {
        source: None,
        source_identity: None,
        service: None,
        destination: None,
    };
    for worker in &workers {
        let series = worker.request(&peers, labels(RequestProtocol::Grpc));
        series.requests.fetch_add(2, Ordering::Relaxed);
    }
    let total = |registry: &Registry| {
        let text = scrape(registry);
        let line = text
            .lines()
            .find(|line| line.starts_with("istio_requests_total{"));
        line.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    assert_eq!(total(&registry).as_deref(), Some("4"));
    let (now, idle) = (Instant::now(), Duration::from_secs(60));
    registry.forget_idle(now, idle);
    registry.forget_idle(now + idle / 2, idle);
    assert_eq!(total(&registry).as_deref(), Some("4"));
    registry.forget_idle(now + idle, idle);
    assert_eq!(total(&registry), None);
    // Whoever still held a share gets a new one.
    let series = workers[0].request(&peers, labels(RequestProtocol::Grpc));
    series.requests.fetch_add(1, Ordering::Relaxed);
    assert_eq!(total(&registry).as_deref(), Some("1"));
}
