//! The admin endpoints, asked as a client asks them.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use mesh::address::{NamespacedHostname, NetworkAddress};
use mesh::authorization::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};
use mesh::service::Service;
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::Workload;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::access_log::ProcessLog;
use crate::certificates::PodCertificates;
use crate::config::Config;
use crate::proxy::Shared;
use crate::proxy::state::State as MeshState;

fn dumped(changes: Vec<Change>) -> Dumped {
    let config = Config::parse(Default::default(), None, 2).expect("valid");
    let mut snapshot = Snapshot::default();
    snapshot.apply(changes);
    let proxy = Shared::new(
        config.proxy.clone(),
        Arc::new(MeshState::new(snapshot)),
        Arc::new(PodCertificates::new(None)),
        Arc::new(ProcessLog),
        Arc::default(),
    );
    Dumped {
        config: Arc::new(config),
        proxy: Arc::new(proxy),
        certificates: None,
        freshness: None,
    }
}

async fn answer(method: &str, path: &str, dumped: Dumped, shutdown: Shutdown) -> Response<Body> {
    let request = Request::builder().method(method).uri(path);
    let request = request.body(Body::empty()).expect("request");
    let router = router(dumped, shutdown);
    router.oneshot(request).await.expect("answers")
}

async fn ask(method: &str, path: &str) -> (StatusCode, String, Shutdown) {
    let shutdown = Shutdown::new();
    let response = answer(method, path, dumped(Vec::new()), shutdown.clone()).await;
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("body");
    let body = String::from_utf8(body.to_vec()).expect("text");
    (status, body, shutdown)
}

#[tokio::test]
async fn every_path_of_the_index_answers() {
    let (status, index, _) = ask("GET", "/").await;
    assert_eq!(status, StatusCode::OK);
    for (path, _) in PATHS {
        assert!(index.contains(path));
        let (status, ..) = ask("GET", &format!("/{path}")).await;
        assert_ne!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn quitting_takes_a_post() {
    let (status, ..) = ask("GET", "/quitquitquit").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    let (status, _, shutdown) = ask("POST", "/quitquitquit").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(shutdown.requested().await, "quitquitquit");
}

#[tokio::test]
async fn a_level_that_is_none_is_refused_with_the_usage() {
    let (status, text, _) = ask("POST", "/logging?level=loud").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("\"loud\"") && text.contains("usage:"));
    let (status, text, _) = ask("POST", "/logging").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text, "current log level is info\n");
}

/// What the mesh or a caller says is shown as data, in which a browser finds no page.
#[tokio::test]
async fn cve_2026_73546_nothing_that_is_said_is_shown_as_a_page() {
    let said = "<script>alert(1)</script>";
    let workload = Workload::new("cluster/v1/Pod/shop/web", said, "shop");
    let dumped = dumped(vec![Change::Workload(workload)]);
    let level = format!(
        "/logging?level={}",
        said.replace('<', "%3C").replace('>', "%3E")
    );
    for (method, path, expected) in [
        ("GET", "/config_dump", "application/json"),
        ("POST", &level, "text/plain; charset=utf-8"),
    ] {
        let response = answer(method, path, dumped.clone(), Shutdown::new()).await;
        assert_eq!(response.headers()["content-type"], expected, "{path}");
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("body");
        let body = String::from_utf8(body.to_vec()).expect("text");
        assert!(body.contains("alert(1)"), "{path}: {body}");
    }
}

fn dump(changes: Vec<Change>) -> Value {
    let mut json = Vec::new();
    dumped(changes).write(&mut json).expect("serialises");
    serde_json::from_slice(&json).expect("JSON")
}

#[test]
fn an_empty_dump_has_every_key() {
    let dump = dump(Vec::new());
    for key in [
        "workloads",
        "services",
        "policies",
        "stagedServices",
        "staticConfig",
        "version",
        "config",
        "certificates",
        "workloadState",
    ] {
        assert!(dump.get(key).is_some(), "{key}");
    }
    assert_eq!(dump["config"]["node"]["clusterId"], "Kubernetes");
}

#[test]
fn workloads_and_services_have_the_shape_istioctl_reads() {
    let key = NamespacedHostname::new("shop", "api.shop.svc.cluster.local");
    let port = mesh::service::Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: Default::default(),
    };
    let mut api = Workload::new("Kubernetes//Pod/shop/api-0", "api-0", "shop");
    api.addresses = ["10.244.1.2".parse().expect("address")]
        .into_iter()
        .collect();
    api.services.insert(key, vec![port]);
    let mut service = Service::new("api", "shop", "api.shop.svc.cluster.local");
    let vip = "10.96.0.7".parse().expect("address");
    service.addresses = vec![NetworkAddress::new("", vip)];
    service.ports = vec![port];
    let dump = dump(vec![Change::Service(service), Change::Workload(api)]);

    assert_eq!(
        dump["workloads"],
        json!([{
            "uid": "Kubernetes//Pod/shop/api-0",
            "name": "api-0",
            "namespace": "shop",
            "serviceAccount": "default",
            "trustDomain": "cluster.local",
            "clusterId": "Kubernetes",
            "workloadIps": ["10.244.1.2"],
            "protocol": "TCP",
            "nativeTunnel": false,
            "networkMode": "Standard",
            "workloadType": "pod",
            "locality": {"region": "", "zone": "", "subzone": ""},
            "status": "Healthy",
            "capacity": 1,
            "services": {"shop/api.shop.svc.cluster.local": {"80": 8080}},
        }])
    );
    let service = &dump["services"][0];
    assert_eq!(service["vips"], json!(["/10.96.0.7"]));
    assert_eq!(service["ports"], json!({"80": 8080}));
    assert_eq!(
        service["endpoints"],
        json!({"Kubernetes//Pod/shop/api-0": {
            "workloadUid": "Kubernetes//Pod/shop/api-0",
            "service": "shop/api.shop.svc.cluster.local",
            "port": {"80": 8080},
            "status": "Healthy",
        }})
    );
    assert_eq!(service["loadBalancer"]["mode"], "Standard");
    assert_eq!(service["visibility"], "Public");
}

#[test]
fn rules_are_three_nested_lists() {
    let only_web = Match {
        principals: vec![StringMatch::Exact("cluster.local/ns/shop/sa/web".into())],
        ..Default::default()
    };
    let policy = Authorization {
        name: "api".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Allow,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![only_web],
            }],
        }],
    };
    assert_eq!(
        dump(vec![Change::Authorization(policy)])["policies"],
        json!([{
            "name": "api",
            "namespace": "shop",
            "scope": "Namespace",
            "action": "Allow",
            "dryRun": false,
            "rules": [[[{"principals": [{"Exact": "cluster.local/ns/shop/sa/web"}]}]]],
        }])
    );
}
