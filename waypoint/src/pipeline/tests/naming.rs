//! Endpoints that have only a name.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use mesh::route::{Filter, RequestMirror};
use mesh::snapshot::Change;
use mesh::workload::TunnelProtocol;
use tokio::time::Instant;

use super::harness::{Mesh, config, get, pod, post, route, rule, run, service, to};
use crate::message::Body;
use crate::names::Names;

const TAKES: Duration = Duration::from_secs(2);

/// A mesh with the service `api`, whose only endpoint has a name for an address.
fn mesh(addresses: &[&str], rules: Vec<mesh::route::HttpRule>) -> Mesh {
    let addresses = addresses.iter().map(|one| one.parse().expect("an address"));
    let names = Names::answering(TAKES, addresses.collect::<Vec<IpAddr>>());
    let mut outside = pod("api-0", "192.0.2.200", &["api"]);
    outside.addresses.clear();
    outside.hostname = Some("api.example.com".into());
    outside.tunnel_protocol = TunnelProtocol::None;
    let more = vec![
        Change::Service(service("api", "10.1.0.3")),
        Change::Workload(outside),
        route(rules),
    ];
    Mesh::naming(names, config(), more)
}

#[test]
fn a_request_waits_for_the_first_answer_and_for_no_later_one() {
    run(async || {
        let mesh = mesh(&["192.0.2.1"], vec![rule("/", &[("api", 1)], vec![])]);
        let began = Instant::now();
        assert_eq!(mesh.send(get("/")).await.status, StatusCode::OK);
        assert_eq!(began.elapsed(), TAKES);
        assert_eq!(mesh.upstream.last().workload, "api-0");
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let began = Instant::now();
            assert_eq!(mesh.send(get("/")).await.status, StatusCode::OK);
            assert_eq!(began.elapsed(), Duration::ZERO);
        }
    });
}

#[test]
fn the_first_copy_for_a_name_is_not_lost() {
    run(async || {
        let mirror = Filter::RequestMirror(RequestMirror {
            backend: to("api"),
            numerator: 1,
            denominator: 1,
        });
        let mesh = mesh(&["192.0.2.1"], vec![rule("/", &[("web", 1)], vec![mirror])]);
        let began = Instant::now();
        let got = mesh.send(post("/x", Body::Full("copied".into()))).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(began.elapsed(), Duration::ZERO);
        while mesh.upstream.seen().len() < 2 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let copy = mesh.upstream.last();
        assert_eq!((&*copy.workload, &*copy.body), ("api-0", &b"copied"[..]));
    });
}

/// An address of a family that the waypoint's pod does not have is never reached.
#[test]
fn addresses_of_another_family_are_left_out() {
    run(async || {
        let rules = || vec![rule("/", &[("api", 1)], vec![])];
        let both = mesh(&["2001:db8::1", "192.0.2.1", "2001:db8::2"], rules());
        for _ in 0..20 {
            assert_eq!(both.send(get("/")).await.status, StatusCode::OK);
            assert_eq!(both.upstream.last().target, "192.0.2.1:8080");
        }
        let other = mesh(&["2001:db8::1"], rules());
        let got = other.send(get("/")).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(got.text().contains("api.example.com"), "{}", got.text());
    });
}
