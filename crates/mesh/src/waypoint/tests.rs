//! The course of a request by what policies and routes say, as a table.

use http::{HeaderMap, Method, StatusCode};

use super::*;
use crate::authorization::PolicyKey;
use crate::route::{
    HttpMatch, HttpRule, PathMatch, Route, RouteKey, RouteKind, RouteParent, RouteRules, TcpRule,
};
use crate::snapshot::Change;

fn service() -> NamespacedHostname {
    NamespacedHostname::new("shop", "web.shop.svc.cluster.local")
}

/// A service without endpoints, and what is attached to it.
fn destination(rules: Option<RouteRules>, is_uniform: bool) -> Destination {
    let key = service();
    let gateway = Gateway {
        namespace: "shop".into(),
        name: "waypoint".into(),
        class: "istio-waypoint".into(),
    };
    let kind = match &rules {
        Some(RouteRules::Tcp(_)) => RouteKind::Tcp,
        Some(RouteRules::Http(_)) | None => RouteKind::Http,
    };
    let route = rules.map(|rules| Route {
        key: RouteKey::new(kind, "shop", "way"),
        parents: vec![RouteParent {
            service: key.clone(),
            port: None,
            clients: None,
        }],
        created: 0,
        rules,
    });
    let mut snapshot = Snapshot::default();
    snapshot.apply([Change::Service(Service::new("web", "shop", &key.hostname))]);
    snapshot.apply(route.map(Change::Route));
    let destination = Destination::of_service(&snapshot, &gateway, &key, 80, "shop");
    Destination {
        is_uniform,
        ..destination.expect("the service is there")
    }
}

/// A rule for `/old`, which redirects, and one for `/api`.
fn http_rules() -> RouteRules {
    let rule = |path: &str, filters: Vec<Filter>| HttpRule {
        matches: vec![HttpMatch {
            path: Some(PathMatch::PathPrefix(path.into())),
            ..HttpMatch::default()
        }],
        filters,
        ..HttpRule::default()
    };
    let redirect = Filter::RequestRedirect(RequestRedirect {
        scheme: None,
        hostname: Some("example.org".into()),
        port: None,
        path: None,
        status: StatusCode::FOUND,
    });
    RouteRules::Http(vec![rule("/old", vec![redirect]), rule("/api", Vec::new())])
}

fn course(destination: &Destination, verdict: &Verdict, path: Option<&str>) -> &'static str {
    let headers = HeaderMap::new();
    let request = path.map(|path| Request {
        method: &Method::GET,
        host: "web",
        port: None,
        path,
        query: None,
        headers: &headers,
        remote_ip: [10, 0, 0, 1].into(),
        claims: None,
    });
    match destination.course(verdict, request.as_ref()) {
        Course::Denied => "denied",
        Course::NoRoute => "no route",
        Course::Answer(..) => "answer",
        Course::Rule(_) => "rule",
        Course::Connection(_) => "connection",
        Course::Direct => "direct",
    }
}

#[test]
fn who_may_not_come_in_is_not_told_what_there_is() {
    let allowed = Verdict::AllowedByDefault;
    let denied = Verdict::DeniedBy(PolicyKey::new("shop", "deny"));
    let open = Verdict::NoAllowMatched;
    let tcp = || RouteRules::Tcp(vec![TcpRule::default()]);
    for (rules, verdict, path, expected) in [
        (None, &allowed, Some("/api"), "direct"),
        (None, &denied, Some("/api"), "denied"),
        // An endpoint's policy may still allow it.
        (None, &open, Some("/api"), "direct"),
        (Some(http_rules()), &allowed, Some("/api"), "rule"),
        (Some(http_rules()), &allowed, Some("/old"), "answer"),
        (Some(http_rules()), &allowed, Some("/other"), "no route"),
        (Some(http_rules()), &open, Some("/api"), "rule"),
        (Some(http_rules()), &open, Some("/old"), "denied"),
        (Some(http_rules()), &open, Some("/other"), "denied"),
        (Some(http_rules()), &denied, Some("/api"), "denied"),
        (Some(http_rules()), &allowed, None, "direct"),
        (Some(tcp()), &allowed, None, "connection"),
        (Some(tcp()), &allowed, Some("/api"), "connection"),
    ] {
        let told = format!("{rules:?} {verdict:?} {path:?}");
        let seen = course(&destination(rules, false), verdict, path);
        assert_eq!(seen, expected, "{told}");
    }
    // Where all endpoints are alike, the verdict is theirs.
    let uniform = destination(Some(http_rules()), true);
    assert_eq!(course(&uniform, &open, Some("/api")), "denied");
}

#[test]
fn endpoints_of_another_service_are_asked_again() {
    let other = NamespacedHostname::new("shop", "other.shop.svc.cluster.local");
    for (is_uniform, backend, expected) in [
        (true, Some(&service()), true),
        (true, Some(&other), false),
        (false, Some(&service()), false),
        (true, None, false),
    ] {
        let destination = destination(None, is_uniform);
        assert_eq!(destination.is_decided_for(backend), expected, "{backend:?}");
    }
}
