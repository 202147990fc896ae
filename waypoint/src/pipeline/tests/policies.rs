//! Authorization of requests and connections, and admission of tunnels.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};
use mesh::authorization::{
    Action, Authorization, Clause, Match, PathPattern, RequestMatch, Rule, Scope, StringMatch,
};
use mesh::destination::Authority;
use mesh::identity::Identity;
use mesh::policy_target::PolicyTarget;
use mesh::route::{Backend, Route, RouteKey, RouteKind, RouteParent, RouteRules, TcpRule};
use mesh::service::AppProtocol;
use mesh::snapshot::Change;

use super::harness::{Mesh, OTHER_VIP, VIP, get, host, pod, post, route, rule, run, service, to};
use crate::message::{Arrival, Body, Pipeline, Refusal};

pub(super) fn policy(name: &str, action: Action, path: &str) -> Authorization {
    let request = RequestMatch {
        paths: vec![PathPattern::Text(StringMatch::parse(path))],
        ..RequestMatch::default()
    };
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::Target,
        action,
        dry_run: false,
        targets: vec![PolicyTarget::Service(host("web"))],
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    request: Some(Arc::new(request)),
                    ..Match::default()
                }],
            }],
        }],
    }
}

fn of(policy: Authorization) -> Change {
    Change::AuthorizationPolicy(policy)
}

/// CVE-2022-29228: nothing goes on after an answer of our own.
#[test]
fn denied_requests_get_istios_answer_and_never_reach_a_backend() {
    run(async || {
        let mesh = Mesh::new(vec![of(policy("no-admin", Action::Deny, "/admin*"))]);
        let got = mesh.send(get("/admin/x")).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN);
        assert_eq!(got.text(), "RBAC: access denied");
        // What is matched is what is forwarded.
        let got = mesh.send(get("/a/../admin/x")).await;
        assert_eq!(got.status, StatusCode::FORBIDDEN);
        assert_eq!(mesh.upstream.seen().len(), 0);
        assert_eq!(mesh.send(get("/a")).await.status, StatusCode::OK);
        let mut grpc = post("/admin", Body::Empty);
        let kind = HeaderValue::from_static("application/grpc");
        grpc.headers_mut().insert("content-type", kind);
        let got = mesh.send(grpc).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(got.header("grpc-status"), Some("7"));
    });
}

#[test]
fn who_may_not_come_in_is_not_told_what_there_is() {
    run(async || {
        let allowed = of(policy("only", Action::Allow, "/ok"));
        let mesh = Mesh::new(vec![
            allowed,
            route(vec![rule("/ok", &[("web", 1)], vec![])]),
        ]);
        assert_eq!(mesh.send(get("/ok")).await.status, StatusCode::OK);
        assert_eq!(mesh.send(get("/none")).await.status, StatusCode::FORBIDDEN);
    });
}

#[test]
fn endpoints_with_policies_of_their_own_are_asked_again() {
    run(async || {
        let mut own = policy("own", Action::Deny, "/secret");
        own.scope = Scope::WorkloadSelector;
        own.targets.clear();
        let mut other = pod("other-0", "10.0.0.3", &["other"]);
        other.request_policies = vec![own.key()];
        let mesh = Mesh::new(vec![
            of(own),
            Change::Workload(other),
            route(vec![rule("/", &[("other", 1)], vec![])]),
        ]);
        assert_eq!(
            mesh.send(get("/secret")).await.status,
            StatusCode::FORBIDDEN
        );
        assert_eq!(mesh.send(get("/")).await.status, StatusCode::OK);
        assert_eq!(mesh.upstream.seen().len(), 1);
    });
}

#[test]
fn a_policy_that_has_not_arrived_denies() {
    run(async || {
        let mut changed = Vec::new();
        for (name, address) in [("web-0", "10.0.0.1"), ("web-1", "10.0.0.2")] {
            let mut pod = pod(name, address, &["web"]);
            pod.request_policies = vec![mesh::authorization::PolicyKey::new("shop", "late")];
            changed.push(Change::Workload(pod));
        }
        let mesh = Mesh::new(changed);
        assert_eq!(mesh.send(get("/")).await.status, StatusCode::FORBIDDEN);
    });
}

#[test]
fn audit_and_dry_run_decide_nothing() {
    run(async || {
        let mut dry = policy("dry", Action::Deny, "/*");
        dry.dry_run = true;
        let audit = policy("audit", Action::Audit, "/*");
        let mesh = Mesh::new(vec![of(dry), of(audit)]);
        assert_eq!(mesh.send(get("/")).await.status, StatusCode::OK);
    });
}

fn arrival<'a>(
    identity: Option<&'a Identity>,
    authority: &str,
    headers: &'a HeaderMap,
) -> Arrival<'a> {
    Arrival {
        peer_identity: identity,
        peer_address: SocketAddr::from(([10, 0, 0, 7], 4)),
        authority: match authority.parse() {
            Ok(address) => Authority::Address(address),
            Err(_) => {
                let (host, port) = authority.split_once(':').expect("a port");
                Authority::Hostname(host.into(), port.parse().expect("a port"))
            }
        },
        headers,
    }
}

#[test]
fn only_what_is_bound_to_this_waypoint_is_let_in() {
    run(async || {
        let mut unbound = service("free", "10.1.0.9");
        unbound.waypoint = None;
        let mut elsewhere = service("elsewhere", "10.1.0.8");
        elsewhere.waypoint.as_mut().expect("bound").destination =
            mesh::address::GatewayDestination::Hostname(host("another"));
        let mut direct = pod("direct", "10.0.0.5", &[]);
        direct.waypoint = service("web", VIP).waypoint;
        let mesh = Mesh::new(vec![
            Change::Service(unbound),
            Change::Service(elsewhere),
            Change::Workload(direct),
        ]);
        let client = Identity::new("cluster.local", "shop", "client");
        let headers = HeaderMap::new();
        let admit = |authority: &str| {
            let arrival = arrival(Some(&client), authority, &headers);
            mesh.pipeline.admit(&arrival)
        };
        let web = admit("10.1.0.1:80").expect("bound");
        assert_eq!(web.downstream.service, Some(host("web")));
        let named = admit("web.shop.svc.cluster.local:80").expect("bound");
        assert_eq!(named.downstream.destination, web.downstream.destination);
        let direct = admit("10.0.0.5:9000").expect("bound");
        assert_eq!(direct.downstream.workload.expect("a pod").name(), "direct");
        assert!(matches!(
            admit("10.1.0.1:81"),
            Err(Refusal::UnknownPort(..))
        ));
        assert!(matches!(admit("10.1.0.9:80"), Err(Refusal::NotInFront(_))));
        assert!(matches!(admit("10.1.0.8:80"), Err(Refusal::NotInFront(_))));
        assert!(matches!(
            admit("10.0.0.1:8080"),
            Err(Refusal::NotInFront(_))
        ));
        assert!(matches!(admit("9.9.9.9:80"), Err(Refusal::Unknown(_))));
        let anonymous = mesh.pipeline.admit(&arrival(None, "10.1.0.1:80", &headers));
        assert!(matches!(anonymous, Err(Refusal::NoIdentity)));
    });
}

#[test]
fn connections_go_by_policy_and_by_weight() {
    run(async || {
        let tcp = |weight| {
            Change::Route(Route {
                key: RouteKey::new(RouteKind::Tcp, "shop", "web"),
                parents: vec![RouteParent {
                    service: host("web"),
                    port: None,
                    clients: None,
                }],
                created: 0,
                rules: RouteRules::Tcp(vec![TcpRule {
                    name: None,
                    backends: vec![
                        Backend {
                            backend: to("other"),
                            weight,
                            filters: vec![],
                        },
                        Backend {
                            backend: to("web"),
                            weight: 0,
                            filters: vec![],
                        },
                    ],
                }]),
            })
        };
        let mesh = Mesh::new(vec![tcp(1)]);
        let client = Identity::new("cluster.local", "shop", "client");
        let headers = HeaderMap::new();
        let admission = mesh
            .pipeline
            .admit(&arrival(Some(&client), &format!("{VIP}:80"), &headers))
            .expect("bound");
        assert_eq!(admission.protocol, AppProtocol::Tcp);
        let downstream = Rc::new(admission.downstream);
        let routed = mesh
            .pipeline
            .route_connection(&downstream)
            .await
            .expect("routed");
        assert_eq!(routed.hops[0].workload.name(), "other-0");
        routed.meter.connected(&routed.hops[0], Ok(()));
        routed.meter.received(3);
        routed.meter.sent(5);
        routed.meter.closed(None);
        for (family, value) in [
            ("istio_tcp_connections_opened_total", " 1"),
            ("istio_tcp_connections_closed_total", " 1"),
            ("istio_tcp_received_bytes_total", " 3"),
            ("istio_tcp_sent_bytes_total", " 5"),
        ] {
            let lines = mesh.metrics(family);
            assert!(lines[0].ends_with(value), "{lines:?}");
            assert!(lines[0].contains("request_protocol=\"tcp\""), "{lines:?}");
            assert!(!lines[0].contains("response_code"), "{lines:?}");
        }
        mesh.apply(vec![tcp(0)]);
        assert!(mesh.pipeline.route_connection(&downstream).await.is_err());
        // An attribute of requests: a DENY that needs it is wider on a connection.
        mesh.apply(vec![tcp(1), of(policy("no", Action::Deny, "/x"))]);
        assert!(mesh.pipeline.route_connection(&downstream).await.is_err());
        let _ = OTHER_VIP;
    });
}
