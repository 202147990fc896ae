//! Which of several routes decides.

use std::sync::Arc;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::{HttpTable, RouteTable, Selection};
use crate::address::NamespacedHostname;
use crate::request::Request;
use crate::route::{
    HttpMatch, HttpRule, PathMatch, Pattern, Route, RouteKey, RouteKind, RouteParent, RouteRules,
    TcpRule,
};
use crate::snapshot::{Change, Snapshot};

fn service() -> NamespacedHostname {
    NamespacedHostname::parse("shop/web.shop.svc.cluster.local").unwrap()
}

fn route(kind: RouteKind, name: &str, rules: RouteRules) -> Route {
    Route {
        key: RouteKey::new(kind, "shop", name),
        parents: vec![RouteParent {
            service: service(),
            port: None,
            clients: None,
        }],
        created: 0,
        rules,
    }
}

/// One rule for each list of paths.
fn rules(rules: &[&[PathMatch]]) -> RouteRules {
    let rule = |paths: &&[PathMatch]| HttpRule {
        matches: paths
            .iter()
            .map(|path| HttpMatch {
                path: Some(path.clone()),
                ..HttpMatch::default()
            })
            .collect(),
        ..HttpRule::default()
    };
    RouteRules::Http(rules.iter().map(rule).collect())
}

fn http(name: &str, paths: &[PathMatch]) -> Route {
    route(RouteKind::Http, name, rules(&[paths]))
}

fn exact(path: &str) -> PathMatch {
    PathMatch::Exact(path.into())
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::PathPrefix(path.into())
}

fn table(routes: Vec<Route>, port: u16, clients: &str) -> RouteTable {
    let mut snapshot = Snapshot::default();
    snapshot.apply(routes.into_iter().map(Change::Route));
    RouteTable::new(&snapshot, &service(), port, clients)
}

fn request<'a>(path: &'a str, headers: &'a HeaderMap) -> Request<'a> {
    Request {
        method: &Method::GET,
        host: "web",
        port: None,
        path,
        query: None,
        headers,
        remote_ip: [10, 0, 0, 1].into(),
        claims: None,
    }
}

/// `name index` of what decides, or what there is instead.
fn select(table: &RouteTable, path: &str) -> String {
    match table {
        RouteTable::Unrouted => "unrouted".to_owned(),
        RouteTable::Tcp(tcp) => format!("tcp {} {}", tcp.route.key.name, tcp.index),
        RouteTable::Http(http) => match http.select(&request(path, &HeaderMap::new())) {
            Selection::NoMatch => "no match".to_owned(),
            Selection::Rule(selected) => format!("{} {}", selected.route.key.name, selected.index),
        },
    }
}

#[test]
fn without_routes_the_service_serves() {
    assert_eq!(select(&table(vec![], 80, "shop"), "/"), "unrouted");
}

#[test]
fn with_routes_what_matches_none_is_not_found() {
    let table = table(vec![http("a", &[exact("/a")])], 80, "shop");
    assert_eq!(select(&table, "/a"), "a 0");
    assert_eq!(select(&table, "/b"), "no match");
    assert_eq!(select(&table, "*"), "no match");
}

#[test]
fn a_rule_without_matches_takes_what_is_left() {
    let everything = route(RouteKind::Http, "a", rules(&[&[], &[prefix("/b")]]));
    let table = table(vec![everything], 80, "shop");
    assert_eq!(select(&table, "/b/c"), "a 1");
    assert_eq!(select(&table, "/c"), "a 0");
}

#[test]
fn the_most_specific_match_of_all_routes_decides() {
    let table = table(
        vec![
            http("root", &[prefix("/")]),
            http("short", &[prefix("/a")]),
            http("long", &[prefix("/a/b/")]),
            http("exact", &[exact("/a/b/c")]),
        ],
        80,
        "shop",
    );
    assert_eq!(select(&table, "/a/b/c"), "exact 0");
    assert_eq!(select(&table, "/a/b/c/d"), "long 0");
    assert_eq!(select(&table, "/a/b"), "long 0");
    assert_eq!(select(&table, "/a/bc"), "short 0");
    assert_eq!(select(&table, "/ab"), "root 0");
    assert_eq!(select(&table, "/"), "root 0");
}

#[test]
fn older_then_first_by_name_then_first_by_rule_wins_ties() {
    let mut young = http("a", &[prefix("/x")]);
    young.created = 2;
    let mut old = http("z", &[prefix("/x")]);
    old.created = 1;
    assert_eq!(
        select(&table(vec![young.clone(), old], 80, "shop"), "/x"),
        "z 0"
    );
    let mut same = http("b", &[prefix("/x")]);
    same.created = 2;
    assert_eq!(select(&table(vec![same, young], 80, "shop"), "/x"), "a 0");
    let twice = route(
        RouteKind::Http,
        "a",
        rules(&[&[prefix("/x")], &[prefix("/x")]]),
    );
    assert_eq!(select(&table(vec![twice], 80, "shop"), "/x"), "a 0");
}

#[test]
fn a_virtual_service_goes_by_its_own_order() {
    let declared = rules(&[
        &[PathMatch::StringPrefix("/a".into())],
        &[exact("/ab")],
        &[PathMatch::StringPrefix("/b/c".into())],
        &[],
        &[exact("/z")],
    ]);
    let table = table(
        vec![route(RouteKind::VirtualService, "v", declared)],
        80,
        "shop",
    );
    assert_eq!(select(&table, "/ab"), "v 0");
    assert_eq!(select(&table, "/b/cd"), "v 2");
    assert_eq!(select(&table, "/b/d"), "v 3");
    assert_eq!(select(&table, "/z"), "v 3");
}

#[test]
fn consumer_routes_win_for_their_clients_only() {
    let mut consumer = http("consumer", &[prefix("/a")]);
    consumer.parents[0].clients = Some("tenant".into());
    let routes = vec![http("producer", &[prefix("/")]), consumer];
    let tenant = table(routes.clone(), 80, "tenant");
    assert_eq!(select(&tenant, "/a"), "consumer 0");
    assert_eq!(select(&tenant, "/b"), "no match");
    assert_eq!(select(&table(routes, 80, "other"), "/a"), "producer 0");
}

#[test]
fn the_first_kind_present_on_a_port_decides_alone() {
    let grpc = route(RouteKind::Grpc, "grpc", rules(&[&[exact("/s/m")]]));
    let virtual_service = route(RouteKind::VirtualService, "v", rules(&[&[]]));
    let tcp = route(
        RouteKind::Tcp,
        "tcp",
        RouteRules::Tcp(vec![TcpRule::default()]),
    );
    let mut routes = vec![tcp, virtual_service];
    assert_eq!(select(&table(routes.clone(), 80, "shop"), "/a"), "v 0");
    routes.push(http("http", &[prefix("/a")]));
    assert_eq!(select(&table(routes.clone(), 80, "shop"), "/a"), "http 0");
    routes.push(grpc);
    assert_eq!(select(&table(routes.clone(), 80, "shop"), "/a"), "no match");
    assert_eq!(select(&table(routes, 80, "shop"), "/s/m"), "grpc 0");
}

#[test]
fn a_parent_port_limits_a_route_to_it() {
    let mut on_port = http("port", &[prefix("/")]);
    on_port.parents[0].port = Some(81);
    assert_eq!(
        select(&table(vec![on_port.clone()], 80, "shop"), "/"),
        "unrouted"
    );
    assert_eq!(
        select(&table(vec![on_port.clone()], 81, "shop"), "/"),
        "port 0"
    );
    let tcp = route(
        RouteKind::Tcp,
        "tcp",
        RouteRules::Tcp(vec![TcpRule::default()]),
    );
    let both = vec![on_port, tcp];
    assert_eq!(select(&table(both.clone(), 80, "shop"), "/"), "tcp tcp 0");
    assert_eq!(select(&table(both, 81, "shop"), "/"), "port 0");
}

#[test]
fn the_oldest_tcp_route_decides() {
    let tcp = |name: &str, created| {
        let rules = RouteRules::Tcp(vec![TcpRule::default(), TcpRule::default()]);
        let mut route = route(RouteKind::Tcp, name, rules);
        route.created = created;
        route
    };
    let table = table(vec![tcp("a", 2), tcp("b", 1)], 80, "shop");
    assert_eq!(select(&table, "/"), "tcp b 0");
}

#[test]
fn a_tcp_route_without_rules_has_no_backend() {
    let empty = route(RouteKind::Tcp, "tcp", RouteRules::Tcp(vec![]));
    let RouteTable::Tcp(selected) = table(vec![empty], 80, "shop") else {
        panic!("not routed");
    };
    assert_eq!(selected.rule, TcpRule::default());
}

fn paths() -> impl Strategy<Value = PathMatch> {
    let text = "(/[ab]{0,2}){1,3}";
    prop_oneof![
        text.prop_map(|path| exact(&path)),
        text.prop_map(|path| prefix(&path)),
        text.prop_map(|path| PathMatch::StringPrefix(path.as_str().into())),
        text.prop_map(|path| {
            let pattern = Pattern::new(&format!("{path}.*")).unwrap();
            PathMatch::RegularExpression(pattern)
        }),
    ]
}

proptest! {
    /// The index by path finds what a look at every match in order would.
    #[test]
    fn the_index_changes_nothing(
        kind in prop::sample::select(vec![RouteKind::Http, RouteKind::Grpc, RouteKind::VirtualService]),
        of in prop::collection::vec(prop::collection::vec(paths(), 0..3), 1..6),
        path in "(/[ab]{0,2}){1,4}",
    ) {
        let lists: Vec<&[PathMatch]> = of.iter().map(Vec::as_slice).collect();
        let route = Arc::new(route(kind, "r", rules(&lists)));
        let RouteRules::Http(rules) = &route.rules else { unreachable!() };
        let headers = HeaderMap::new();
        let request = request(&path, &headers);
        let everything = [HttpMatch::default()];
        let expected = rules
            .iter()
            .enumerate()
            .flat_map(|(index, rule)| {
                let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
                matches.iter().map(move |of| (index, of))
            })
            .filter(|(_, of)| of.matches(&request))
            // The last of the greatest is taken, so that the first is asked for in reverse.
            .rev()
            .collect::<Vec<_>>()
            .into_iter()
            .max_by_key(|(_, of)| of.precedence(kind))
            .map(|(index, _)| index);
        let table = HttpTable::new(std::iter::once(&route));
        let selected = match table.select(&request) {
            Selection::Rule(selected) => Some(selected.index),
            Selection::NoMatch => None,
        };
        prop_assert_eq!(selected, expected);
    }
}
