//! Round trips, and that what is not understood refuses what it may be about.

use std::net::SocketAddr;

use mesh::authorization::{self, PolicyKey};
use mesh::route::{self, RouteKey, RouteKind, RouteRules};
use mesh::{policy_target, request_authentication};
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::authorization as l4;
use crate::generated::weft::l7::{http_condition, path_match, route as wire_route};
use crate::strategies::l7 as strategies;

proptest! {
    #[test]
    fn routes_read_back_as_written(route in strategies::route()) {
        let bytes = Route::from(&route).encode_to_vec();
        let decoded = Decoded::<route::Route>::read(&route.key, &bytes);
        prop_assert_eq!(decoded, Ok(Decoded { resource: route, problems: Vec::new() }));
    }

    #[test]
    fn policies_read_back_as_written(policy in strategies::authorization_policy()) {
        let bytes = AuthorizationPolicy::from(&policy).encode_to_vec();
        let decoded = Decoded::<authorization::Authorization>::read(&policy.key(), &bytes);
        prop_assert_eq!(decoded, Decoded { resource: policy, problems: Vec::new() });
    }

    #[test]
    fn token_rules_read_back_as_written(policy in strategies::request_authentication()) {
        let bytes = RequestAuthentication::from(&policy).encode_to_vec();
        let decoded =
            Decoded::<request_authentication::RequestAuthentication>::read(&policy.key(), &bytes);
        prop_assert_eq!(decoded, Decoded { resource: policy, problems: Vec::new() });
    }

    #[test]
    fn no_bytes_panic_and_none_allow(bytes: Vec<u8>) {
        let _ = Decoded::<route::Route>::read(&route_key(), &bytes);
        let decoded = read_policy(&bytes);
        prop_assert!(decoded.problems.is_empty() || denies(&decoded));
        let decoded =
            Decoded::<request_authentication::RequestAuthentication>::read(&key(), &bytes);
        prop_assert!(decoded.problems.is_empty() || decoded.resource.unparsable.is_some());
    }
}

fn key() -> PolicyKey {
    PolicyKey::new("shop", "web")
}

fn route_key() -> RouteKey {
    RouteKey::new(RouteKind::Http, "shop", "web")
}

fn read_policy(bytes: &[u8]) -> Decoded<authorization::Authorization> {
    Decoded::<authorization::Authorization>::read(&key(), bytes)
}

fn denies(decoded: &Decoded<authorization::Authorization>) -> bool {
    let destination = SocketAddr::from(([10, 0, 0, 2], 80));
    let connection = authorization::Connection::new(None, [10, 0, 0, 1].into(), destination);
    let policy = &decoded.resource;
    policy.action == authorization::Action::Deny && policy.matches(&connection, None)
}

// === Routes ===

/// A rule about `/a` that leads to a service.
fn http_rule() -> HttpRule {
    let path = PathMatch {
        path: Some(path_match::Path::PathPrefix("/a".to_owned())),
    };
    HttpRule {
        name: Some("first".to_owned()),
        matches: vec![HttpMatch {
            conditions: vec![HttpCondition {
                condition: Some(http_condition::Condition::Path(path)),
            }],
        }],
        backends: vec![
            (&route::Backend {
                backend: route::BackendRef::Service {
                    service: mesh::address::NamespacedHostname::new("shop", "web"),
                    port: 80,
                    subset: None,
                },
                weight: 1,
                filters: Vec::new(),
            })
                .into(),
        ],
        ..Default::default()
    }
}

fn http_route(rules: Vec<HttpRule>) -> Route {
    Route {
        kind: "HTTPRoute".to_owned(),
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        parents: vec![RouteParent {
            service: "shop/web".to_owned(),
            ..Default::default()
        }],
        created: 0,
        rules: Some(wire_route::Rules::Http(HttpRules { rules })),
    }
}

fn read_route(wire: &Route) -> Decoded<route::Route> {
    Decoded::<route::Route>::read(&route_key(), &wire.encode_to_vec()).expect("says what it is")
}

/// The one rule of the route, which must refuse.
fn refusing(decoded: &Decoded<route::Route>) -> &route::HttpRule {
    let RouteRules::Http(rules) = &decoded.resource.rules else {
        panic!("{decoded:?}");
    };
    let [rule] = rules.as_slice() else {
        panic!("{decoded:?}");
    };
    let refused =
        |backend: &route::Backend| matches!(backend.backend, route::BackendRef::Invalid(_));
    assert!(rule.filters.is_empty(), "{rule:?}");
    assert!(
        rule.backends.len() == 1 && rule.backends.iter().all(refused),
        "{rule:?}"
    );
    rule
}

#[test]
fn a_rule_with_anything_unknown_refuses_what_it_is_about() {
    let backend = Backend::default();
    let redirect = RequestRedirect {
        status: 9999,
        ..Default::default()
    };
    let redirect = crate::generated::weft::l7::filter::Filter::RequestRedirect(redirect);
    for (name, rule) in [
        (
            "filter",
            HttpRule {
                filters: vec![Filter { filter: None }],
                ..http_rule()
            },
        ),
        (
            "request_redirect",
            HttpRule {
                filters: vec![Filter {
                    filter: Some(redirect),
                }],
                ..http_rule()
            },
        ),
        (
            "backend",
            HttpRule {
                backends: vec![http_rule().backends[0].clone(), backend],
                ..http_rule()
            },
        ),
        (
            "retry.on",
            HttpRule {
                retry: Some(Retry {
                    on: vec![RetryOn { condition: None }],
                    ..Default::default()
                }),
                ..http_rule()
            },
        ),
        (
            "timeouts.request",
            HttpRule {
                timeouts: Some(Timeouts {
                    request: Some(prost_types::Duration {
                        seconds: -1,
                        nanos: 0,
                    }),
                    ..Default::default()
                }),
                ..http_rule()
            },
        ),
    ] {
        let decoded = read_route(&http_route(vec![rule]));
        let path = refusing(&decoded).matches[0].path.clone();
        assert_eq!(path, Some(route::PathMatch::PathPrefix("/a".into())));
        assert_eq!(decoded.problems.len(), 1, "{name}");
        assert!(decoded.problems[0].starts_with(name), "{decoded:?}");
    }
}

#[test]
fn a_match_with_an_unknown_condition_holds_for_all_it_may_be_about() {
    let mut rule = http_rule();
    rule.matches[0]
        .conditions
        .push(HttpCondition { condition: None });
    let decoded = read_route(&http_route(vec![rule]));
    let matches = &refusing(&decoded).matches;
    assert_eq!(matches.len(), 1);
    assert_eq!(
        matches[0].path,
        Some(route::PathMatch::PathPrefix("/a".into()))
    );
    assert_eq!(decoded.problems, ["condition is missing"]);
}

#[test]
fn rules_of_an_unknown_kind_refuse_everything() {
    let decoded = read_route(&Route {
        rules: None,
        ..http_route(Vec::new())
    });
    assert_eq!(refusing(&decoded).matches, []);
    assert_eq!(decoded.problems, ["rules is missing"]);
}

#[test]
fn one_bad_rule_leaves_the_others() {
    let bad = HttpRule {
        filters: vec![Filter { filter: None }],
        ..http_rule()
    };
    let decoded = read_route(&http_route(vec![http_rule(), bad]));
    let RouteRules::Http(rules) = &decoded.resource.rules else {
        panic!("{decoded:?}");
    };
    let refused =
        |rule: &route::HttpRule| matches!(rule.backends[0].backend, route::BackendRef::Invalid(_));
    assert_eq!(rules.iter().map(refused).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_route_under_another_name_is_rejected() {
    let bytes = http_route(Vec::new()).encode_to_vec();
    let other = RouteKey::new(RouteKind::Http, "shop", "other");
    let problem = Decoded::<route::Route>::read(&other, &bytes).expect_err("another name");
    assert_eq!(problem, "calls itself HTTPRoute/shop/web");
}

// === Policies ===

fn wire_policy(one: Match) -> AuthorizationPolicy {
    AuthorizationPolicy {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        scope: Scope::Target.into(),
        action: Action::Allow.into(),
        rules: vec![Rule {
            clauses: vec![Clause { matches: vec![one] }],
        }],
        ..Default::default()
    }
}

#[test]
fn a_policy_that_does_not_say_what_it_does_or_is_about_denies() {
    let known = PolicyTarget::from(&policy_target::PolicyTarget::GatewayClass("a".into()));
    for (scope, action, targets, applied) in [
        (4, 0, vec![known.clone()], authorization::Scope::Target),
        (4, 9, vec![known.clone()], authorization::Scope::Target),
        (0, 1, Vec::new(), authorization::Scope::Namespace),
        (9, 1, Vec::new(), authorization::Scope::Namespace),
        // What it targets can't be told from the rest of the namespace.
        (
            4,
            1,
            vec![known, PolicyTarget { target: None }],
            authorization::Scope::Namespace,
        ),
    ] {
        let wire = AuthorizationPolicy {
            scope,
            action,
            targets,
            ..wire_policy(Match::default())
        };
        let decoded = read_policy(&wire.encode_to_vec());
        assert!(denies(&decoded), "{decoded:?}");
        assert_eq!(decoded.resource.scope, applied);
        assert_eq!(decoded.problems.len(), 1, "{decoded:?}");
    }
}

#[test]
fn a_match_about_something_unknown_is_unparsable() {
    let bad_text = l4::StringMatch { match_type: None };
    let unknown = |request| {
        let wire = wire_policy(Match {
            connection: None,
            request: Some(request),
        });
        let decoded = read_policy(&wire.encode_to_vec());
        assert_eq!(decoded.problems.len(), 1, "{decoded:?}");
        let one = &decoded.resource.rules[0].clauses[0].matches[0];
        assert_eq!(one.unparsable.as_deref(), Some(&*decoded.problems[0]));
    };
    unknown(RequestMatch {
        conditions: vec![Condition::default()],
        ..Default::default()
    });
    unknown(RequestMatch {
        paths: vec![PathPattern { pattern: None }],
        ..Default::default()
    });
    unknown(RequestMatch {
        not_hosts: vec![bad_text],
        ..Default::default()
    });
}

#[test]
fn what_is_about_requests_never_allows_at_a_node_and_denies_all_there() {
    let request = authorization::RequestMatch {
        methods: vec![authorization::StringMatch::parse("GET")],
        ..Default::default()
    };
    let one = authorization::Match {
        request: Some(request.into()),
        ..Default::default()
    };
    for (action, denied) in [
        (authorization::Action::Allow, false),
        (authorization::Action::Deny, true),
    ] {
        let policy = authorization::Authorization {
            name: "web".into(),
            namespace: "shop".into(),
            scope: authorization::Scope::Namespace,
            action,
            dry_run: false,
            targets: Vec::new(),
            rules: vec![authorization::Rule {
                clauses: vec![authorization::Clause {
                    matches: vec![one.clone()],
                }],
            }],
        };
        let bytes = l4::Authorization::from(&policy).encode_to_vec();
        let decoded = l4::Decoded::read(&key(), &bytes).policy;
        let destination = SocketAddr::from(([10, 0, 0, 2], 80));
        let connection = authorization::Connection::new(None, [10, 0, 0, 1].into(), destination);
        assert_eq!(decoded.action, action);
        assert_eq!(decoded.matches(&connection, None), denied);
    }
}

#[test]
fn token_rules_that_are_not_understood_make_the_policy_refuse() {
    let wire = RequestAuthentication {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        scope: Scope::Namespace.into(),
        rules: vec![JwtRule::default()],
        ..Default::default()
    };
    let decoded = Decoded::<request_authentication::RequestAuthentication>::read(
        &key(),
        &wire.encode_to_vec(),
    );
    assert_eq!(decoded.problems, ["keys is missing"]);
    assert_eq!(
        decoded.resource.unparsable.as_deref(),
        Some("keys is missing")
    );
}
