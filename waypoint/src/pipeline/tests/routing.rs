//! Where requests go, and what is done to them on the way.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, StatusCode};
use mesh::route::{
    BackendRef, Cors, Filter, HeaderModifier, PathModifier, RequestMirror, RequestRedirect,
    UrlRewrite,
};
use mesh::snapshot::Change;

use super::harness::{Mesh, frames, get, host, post, route, rule, run, to};
use crate::message::Body;

fn modifier(name: &'static str, value: &'static str) -> HeaderModifier {
    HeaderModifier {
        set: vec![(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )],
        ..HeaderModifier::default()
    }
}

#[test]
fn without_routes_the_service_itself_serves() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let got = mesh.send(get("/a?b=1")).await;
        assert_eq!((got.status, &*got.text()), (StatusCode::OK, "ok"));
        assert_eq!(got.header("server"), Some("istio-envoy"));
        assert!(got.headers.contains_key("x-envoy-upstream-service-time"));
        let seen = mesh.upstream.last();
        assert!(seen.workload.starts_with("web-"), "{seen:?}");
        assert_eq!(
            (seen.method, &*seen.uri),
            (http::Method::GET, "http://web.shop/a?b=1")
        );
        assert!(!seen.headers.contains_key("host"));
        assert_eq!(seen.headers["x-envoy-attempt-count"], "1");
        assert_eq!(seen.headers["x-forwarded-proto"], "http");
        assert_eq!(seen.headers["x-request-id"].len(), 36);
    });
}

#[test]
fn a_request_has_one_form() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let request = Request::get("/a/./b/../%63?q=%2F")
            .header("host", "WEB.shop.:80")
            .body(Body::Empty);
        mesh.send(request.expect("a request")).await;
        assert_eq!(mesh.upstream.last().uri, "http://web.shop:80/a/c?q=%2F");
        for path in ["/a/..;x/b", "/%00"] {
            let got = mesh.send(get(path)).await;
            assert_eq!(got.status, StatusCode::BAD_REQUEST, "{path}");
        }
        let request = Request::get("/")
            .header("host", "user@web")
            .body(Body::Empty);
        let got = mesh.send(request.expect("a request")).await;
        assert_eq!(got.status, StatusCode::BAD_REQUEST);
        assert_eq!(mesh.upstream.seen().len(), 1);
    });
}

/// CVE-2020-8843, CVE-2023-27487, CVE-2024-45806.
#[test]
fn clients_do_not_speak_for_proxies() {
    run(async || {
        let mesh = Mesh::new(vec![]);
        let mut request = get("/");
        for name in [
            "x-envoy-original-path",
            "x-envoy-retry-on",
            "x-istio-attributes",
            "x-forwarded-client-cert",
        ] {
            let value = HeaderValue::from_static("mine");
            request.headers_mut().append(name, value.clone());
            request.headers_mut().append(name, value);
        }
        let id = HeaderValue::from_static("chosen");
        request.headers_mut().insert("x-request-id", id);
        let xff = HeaderValue::from_static("1.2.3.4, 5.6.7.8");
        request.headers_mut().insert("x-forwarded-for", xff);
        let trace = HeaderValue::from_static("00-1-2-01");
        request.headers_mut().insert("traceparent", trace);
        mesh.send(request).await;
        let seen = mesh.upstream.last().headers;
        assert!(!seen.values().any(|value| value == "mine"), "{seen:?}");
        assert_eq!(seen["x-request-id"], "chosen");
        assert_eq!(seen["x-forwarded-for"], "1.2.3.4, 5.6.7.8");
        assert_eq!(seen["traceparent"], "00-1-2-01");
    });
}

#[test]
fn rules_choose_backends_and_no_match_is_404() {
    run(async || {
        let mesh = Mesh::new(vec![route(vec![rule("/other", &[("other", 1)], vec![])])]);
        let got = mesh.send(get("/other/x")).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(mesh.upstream.last().workload, "other-0");
        let got = mesh.send(get("/none")).await;
        assert_eq!(got.status, StatusCode::NOT_FOUND);
        let lines = mesh.metrics("istio_requests_total");
        assert!(
            lines
                .iter()
                .any(|line| line.contains("response_code=\"404\"")
                    && line.contains("response_flags=\"NR\"")
                    && line.contains("destination_workload=\"unknown\"")),
            "{lines:#?}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line.contains("destination_workload=\"other-0\"")
                    && line.contains("destination_service=\"web.shop.svc.cluster.local\"")),
            "{lines:#?}"
        );
    });
}

#[test]
fn backends_that_are_not_there_are_500_and_without_endpoints_503() {
    run(async || {
        let invalid = BackendRef::Invalid("Service gone".into());
        let mut rule = rule("/", &[("web", 1)], vec![]);
        rule.backends[0].backend = invalid;
        let mesh = Mesh::new(vec![route(vec![rule.clone()])]);
        assert_eq!(mesh.send(get("/")).await.status, 500);
        rule.backends[0].backend = to("web");
        rule.backends[0].weight = 0;
        mesh.apply(vec![route(vec![rule.clone()])]);
        assert_eq!(mesh.send(get("/")).await.status, 500);
        rule.backends.clear();
        mesh.apply(vec![route(vec![rule])]);
        assert_eq!(mesh.send(get("/")).await.status, 500);
        let gone = ["web-0", "web-1"].map(|pod| format!("Kubernetes//Pod/shop/{pod}"));
        mesh.apply(vec![Change::RemoveRoute(mesh::route::RouteKey::new(
            mesh::route::RouteKind::Http,
            "shop",
            "web",
        ))]);
        mesh.apply(gone.map(|uid| Change::RemoveAddress(uid.into())).into());
        let got = mesh.send(get("/")).await;
        assert_eq!(got.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(got.text(), "no healthy upstream");
    });
}

#[test]
fn headers_and_paths_are_modified_by_rule_and_backend() {
    run(async || {
        let mut rule = rule(
            "/a",
            &[("other", 1)],
            vec![
                Filter::RequestHeaderModifier(modifier("x-rule", "1")),
                Filter::UrlRewrite(UrlRewrite {
                    hostname: Some("new.host".into()),
                    path: Some(PathModifier::ReplacePrefixMatch("/b".into())),
                }),
                Filter::ResponseHeaderModifier(modifier("x-answer", "1")),
            ],
        );
        rule.backends[0].filters = vec![Filter::RequestHeaderModifier(modifier("x-backend", "1"))];
        let mesh = Mesh::new(vec![route(vec![rule])]);
        let got = mesh.send(get("/a/c?q")).await;
        let seen = mesh.upstream.last();
        assert_eq!(seen.uri, "http://new.host/b/c?q");
        assert_eq!(seen.headers["x-rule"], "1");
        assert_eq!(seen.headers["x-backend"], "1");
        assert_eq!(got.header("x-answer"), Some("1"));
    });
}

#[test]
fn redirects_and_preflights_never_reach_a_backend() {
    run(async || {
        let redirect = Filter::RequestRedirect(RequestRedirect {
            scheme: None,
            hostname: Some("other.host".into()),
            path: Some(PathModifier::ReplaceFullPath("/new".into())),
            port: None,
            status: StatusCode::PERMANENT_REDIRECT,
        });
        let cors = Filter::Cors(Cors {
            allow_origins: vec!["https://a.example".into()],
            allow_methods: vec!["PUT".into()],
            ..Cors::default()
        });
        let mesh = Mesh::new(vec![route(vec![
            rule("/old", &[], vec![redirect]),
            rule("/api", &[("web", 1)], vec![cors]),
        ])]);
        let got = mesh.send(get("/old/x")).await;
        assert_eq!(got.status, StatusCode::PERMANENT_REDIRECT);
        assert_eq!(got.header("location"), Some("http://other.host/new"));
        let preflight = Request::options("/api")
            .header("host", "web.shop")
            .header("origin", "https://a.example")
            .header("access-control-request-method", "PUT")
            .body(Body::Empty);
        let got = mesh.send(preflight.expect("a request")).await;
        assert_eq!(got.status, StatusCode::NO_CONTENT);
        assert_eq!(got.header("access-control-allow-methods"), Some("PUT"));
        assert_eq!(mesh.upstream.seen().len(), 0);
        let mut request = get("/api");
        let origin = HeaderValue::from_static("https://a.example");
        request.headers_mut().insert("origin", origin);
        let got = mesh.send(request).await;
        assert_eq!(
            got.header("access-control-allow-origin"),
            Some("https://a.example")
        );
        assert_eq!(mesh.upstream.seen().len(), 1);
    });
}

/// A rule may take away what the answer goes by.
#[test]
fn cve_2023_35943_cors_goes_by_the_origin_that_the_client_sent() {
    run(async || {
        let cors = Filter::Cors(Cors {
            allow_origins: vec!["https://a.example".into()],
            ..Cors::default()
        });
        let remove = Filter::RequestHeaderModifier(HeaderModifier {
            remove: vec![HeaderName::from_static("origin")],
            ..HeaderModifier::default()
        });
        for filters in [vec![cors.clone(), remove.clone()], vec![remove, cors]] {
            let mesh = Mesh::new(vec![route(vec![rule("/", &[("web", 1)], filters)])]);
            let mut request = get("/");
            let origin = HeaderValue::from_static("https://a.example");
            request.headers_mut().insert("origin", origin);
            let got = mesh.send(request).await;
            let allowed = got.header("access-control-allow-origin");
            assert_eq!(allowed, Some("https://a.example"));
            assert!(!mesh.upstream.last().headers.contains_key("origin"));
        }
    });
}

#[test]
fn mirrors_get_the_whole_body_and_nobody_waits_for_them() {
    run(async || {
        let mirror = Filter::RequestMirror(RequestMirror {
            backend: to("other"),
            numerator: 1,
            denominator: 1,
        });
        let mesh = Mesh::new(vec![route(vec![rule("/", &[("web", 1)], vec![mirror])])]);
        let got = mesh.send(post("/x", frames(&[b"one", b"two"]))).await;
        assert_eq!(got.status, StatusCode::OK);
        while mesh.upstream.seen().len() < 2 {
            tokio::task::yield_now().await;
        }
        let seen = mesh.upstream.seen();
        let copy = seen.iter().find(|seen| seen.workload == "other-0");
        let copy = copy.expect("a copy");
        assert_eq!(
            (&*copy.body, &*copy.uri),
            (&b"onetwo"[..], "http://web.shop/x")
        );
        let original = seen.iter().find(|seen| seen.workload != "other-0");
        assert_eq!(original.expect("the request").body, b"onetwo");
    });
}

#[test]
fn tries_go_by_the_protocol_of_the_port() {
    run(async || {
        let mut grpc = super::harness::service("web", super::harness::VIP);
        grpc.ports[0].app_protocol = mesh::service::AppProtocol::Grpc;
        let mesh = Mesh::new(vec![Change::Service(grpc)]);
        mesh.send(get("/")).await;
        assert_eq!(mesh.upstream.last().version, http::Version::HTTP_2);
        let _: Arc<str> = host("web").hostname;
    });
}

#[test]
fn names_with_underscores_are_dealt_with_as_configured() {
    run(async || {
        use crate::config::Underscores;
        for (underscores, status, arrives) in [
            (Underscores::Allow, StatusCode::OK, true),
            (Underscores::Drop, StatusCode::OK, false),
            (Underscores::Reject, StatusCode::BAD_REQUEST, false),
        ] {
            let mut config = super::harness::config();
            config.underscores = underscores;
            let mesh = Mesh::with(config, vec![]);
            let mut request = get("/");
            let admin = HeaderValue::from_static("admin");
            request.headers_mut().insert("x_role", admin);
            assert_eq!(mesh.send(request).await.status, status);
            let seen = mesh.upstream.seen().pop();
            let arrived = seen.is_some_and(|seen| seen.headers.contains_key("x_role"));
            assert_eq!(arrived, arrives, "{underscores:?}");
        }
    });
}
