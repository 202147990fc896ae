//! What Istio's Grafana dashboards and Kiali ask a mesh's metrics for, of a waypoint and of the ztunnels of a
//! mesh that runs: names, labels, and the labels' values.
//!
//! `UPDATE=1` before the test rewrites the files beside it; read the difference before committing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tests::lab::{Lab, SOON};

use crate::shop::{self, ask};

/// By which Kiali groups requests and connections; a series without one of them is passed over. Of connections,
/// `app` is added where it is scraped.
const KIALI: &[&str] = &[
    "source_cluster",
    "source_workload_namespace",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_cluster",
    "destination_service_namespace",
    "destination_service",
    "destination_service_name",
    "destination_workload_namespace",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "response_flags",
];
/// The same, for requests only.
const KIALI_REQUESTS: &[&str] = &["request_protocol", "response_code", "grpc_response_status"];
/// By which dashboards tell who, and Kiali how safely.
const SECURITY: &[&str] = &[
    "reporter",
    "source_principal",
    "destination_principal",
    "connection_security_policy",
];
const REQUESTS: &[&str] = &[
    "istio_requests_total",
    "istio_request_duration_milliseconds_bucket",
    "istio_request_duration_milliseconds_sum",
    "istio_request_duration_milliseconds_count",
    "istio_request_bytes_bucket",
    "istio_request_bytes_sum",
    "istio_request_bytes_count",
    "istio_response_bytes_bucket",
    "istio_response_bytes_sum",
    "istio_response_bytes_count",
];
const MESSAGES: &[&str] = &[
    "istio_request_messages_total",
    "istio_response_messages_total",
];
const CONNECTIONS: &[&str] = &[
    "istio_tcp_connections_opened_total",
    "istio_tcp_connections_closed_total",
    "istio_tcp_sent_bytes_total",
    "istio_tcp_received_bytes_total",
];
/// Of the ztunnel dashboard, besides connections. Ends of xDS streams
/// (`istio_xds_connection_terminations_total`) are counted from the first on.
const OF_ZTUNNELS: &[&str] = &[
    "istio_tcp_sockets_open",
    "istio_dns_requests_total",
    "istio_xds_message_total",
    "workload_manager_active_proxy_count",
    "workload_manager_pending_proxy_count",
    "istio_build",
    "process_open_fds",
];
/// In milliseconds, and bytes.
const BUCKETS: &str = "0.5 1 5 10 25 50 100 250 500 1000 2500 5000 10000 30000 60000 300000 600000 \
                       1800000 3600000 +Inf";

/// One sample: the metric's name, and its labels.
type Sample = (String, BTreeMap<String, String>);

/// Behind a waypoint a web service, one of gRPC and one of bytes; before none a web service.
fn objects() -> String {
    let pod = "\
apiVersion: v1
kind: Pod
metadata: {name: raw, namespace: shop, labels: {app: raw, version: v3}}
spec:
  nodeName: node-2
  containers: [{name: raw, command: [peer, serve, --name, raw]}]
";
    let service = "\
apiVersion: v1
kind: Service
metadata: {name: raw, namespace: shop}
spec:
  selector: {app: raw}
  ports: [{name: tcp-line, port: 8080}]
";
    let route = "\
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: TCPRoute
metadata: {name: raw, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: raw}]
  rules: [{backendRefs: [{name: raw, port: 8080}]}]
";
    let web = shop::versions("web", "{app: echo, version: v1}");
    let rules = "  - backendRefs: [{name: web, port: 80}]\n";
    let web_route = shop::http_route("web", rules);
    let calls = "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: calls, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: calls}]
  rules: [{backendRefs: [{name: calls, port: 7070}]}]
";
    let called = shop::versions("calls", "{app: echo, version: v1}");
    [pod, service, route, &web, &web_route, &called, calls].join("---\n")
}

fn samples(page: &str) -> Vec<Sample> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let (series, _) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split_inclusive("\",");
    let labels = labels.filter_map(|label| {
        let (name, value) = label.trim_end_matches(',').split_once('=')?;
        Some((name.to_owned(), value.trim_matches('"').to_owned()))
    });
    Some((name.to_owned(), labels.collect()))
}

/// The samples of these metrics, as distinct sets of labels and who has them. Where a pod is placed says its
/// locality, of which no dashboard asks.
fn told(samples: &[Sample], of: &[&[&str]]) -> String {
    let is_left_out = |name: &str| {
        let suffixes = ["_region", "_zone", "_subzone"];
        name == "le" || suffixes.iter().any(|suffix| name.ends_with(suffix))
    };
    let mut sets: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, labels) in samples {
        if of.iter().any(|names| names.contains(&name.as_str())) {
            let labels = labels.iter().filter(|(name, _)| !is_left_out(name));
            let lines = labels.map(|(name, value)| format!("  {name}={value}\n"));
            let lines: Vec<_> = lines.collect();
            sets.entry(lines.concat()).or_default().insert(name);
        }
    }
    let blocks: Vec<_> = sets
        .into_iter()
        .map(|(labels, names)| {
            let names: Vec<_> = names.into_iter().collect();
            format!("{}\n{labels}", names.join("\n"))
        })
        .collect();
    blocks.join("\n")
}

fn check_golden(name: &str, told: &str) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/waypoint/dashboards");
    let file = folder.join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&folder)?;
        fs::write(&file, told)?;
    }
    let expected = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    ensure!(told == expected, "{name} is\n{told}");
    Ok(())
}

/// Each of these metrics is there, and each of its series has these labels, none of them empty: a tool
/// takes what has no value for `unknown`.
fn ensure_labelled(samples: &[Sample], metrics: &[&str], labels: &[&str]) -> Result<()> {
    for metric in metrics {
        let mut series = samples.iter().filter(|(name, _)| name == metric).peekable();
        ensure!(series.peek().is_some(), "no {metric}");
        for (_, has) in series {
            for label in labels {
                let value = has
                    .get(*label)
                    .with_context(|| format!("{metric} without {label}: {has:?}"))?;
                // Not every request is gRPC.
                ensure!(
                    !value.is_empty() || *label == "grpc_response_status",
                    "{metric}: no {label}"
                );
            }
        }
    }
    Ok(())
}

fn waypoint(lab: &Lab) -> Result<Vec<Sample>> {
    let label = "gateway.networking.k8s.io/gateway-name";
    let pods = lab.pods()?;
    let pod = pods
        .iter()
        .find(|pod| !pod["metadata"]["labels"][label].is_null());
    let name = pod.context("no waypoint")?["metadata"]["name"].as_str();
    let page = ["peer", "http", "127.0.0.1:15020", "/stats/prometheus"];
    let place = format!("shop/{}", name.context("a name")?);
    Ok(samples(&lab.exec(&place, &page)?))
}

#[test]
fn what_dashboards_ask_for_is_there() {
    let lab = shop::own();
    lab.write("dashboards.yaml", &objects()).expect("written");
    let each = [
        ("shop/client", &["http://web.shop/"][..]),
        (
            "shop/client",
            &["--grpc", "http://calls.shop:7070/echo.Echo/Said"],
        ),
        ("shop/client", &["http://echo-v1.shop/"]),
        ("shop/client", &["http://echo-v2.shop/"]),
        // The node of this one has names to look up, too.
        ("shop/intruder", &["http://echo-v2.shop/"]),
    ];
    for (from, arguments) in each {
        lab.eventually(SOON, "an answer", || {
            let answer = ask(&lab, from, arguments)?;
            ensure!(answer.status == 200, "{answer:?}");
            Ok(())
        })
        .expect("answered");
    }
    lab.eventually(SOON, "bytes", || {
        lab.peer("shop/client", &["get", "raw.shop:8080"]).map(drop)
    })
    .expect("answered");

    // What was asked before its waypoint was there is of no interest, nor are failures.
    let fine = |samples: Vec<Sample>| -> Vec<Sample> {
        let fine = |labels: &BTreeMap<String, String>| {
            labels
                .get("response_flags")
                .is_none_or(|flags| flags == "-")
        };
        samples
            .into_iter()
            .filter(|(_, labels)| fine(labels))
            .collect()
    };
    lab.eventually(SOON, "the waypoint tells", || {
        let samples = fine(waypoint(&lab)?);
        for metrics in [REQUESTS, MESSAGES, CONNECTIONS] {
            ensure_labelled(&samples, metrics, SECURITY)?;
        }
        ensure_labelled(&samples, REQUESTS, KIALI)?;
        ensure_labelled(&samples, REQUESTS, KIALI_REQUESTS)?;
        ensure_labelled(&samples, CONNECTIONS, KIALI)?;
        ensure_labelled(&samples, &["istio_build"], &["component", "tag"])?;
        let buckets: BTreeSet<&str> = samples
            .iter()
            .filter(|(name, _)| name.ends_with("_bucket"))
            .filter_map(|(_, labels)| labels.get("le").map(String::as_str))
            .collect();
        ensure!(
            buckets == BUCKETS.split_whitespace().collect(),
            "{buckets:?}"
        );
        check_golden(
            "waypoint.txt",
            &told(&samples, &[REQUESTS, MESSAGES, CONNECTIONS]),
        )
    })
    .expect("told");
    for node in ["node-1", "node-2"] {
        lab.eventually(SOON, "the ztunnel tells", || {
            let samples = fine(samples(&lab.metrics(node)?));
            ensure_labelled(&samples, CONNECTIONS, KIALI)?;
            ensure_labelled(&samples, CONNECTIONS, SECURITY)?;
            ensure_labelled(&samples, OF_ZTUNNELS, &[])?;
            ensure_labelled(&samples, &["istio_build"], &["component", "tag"])?;
            ensure_labelled(&samples, &["istio_xds_message_total"], &["url"])?;
            check_golden(
                &format!("ztunnel-{node}.txt"),
                &told(&samples, &[CONNECTIONS]),
            )
        })
        .expect("told");
    }
}
