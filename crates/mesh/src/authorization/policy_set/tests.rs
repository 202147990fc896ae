//! Which policies a waypoint evaluates of what, and what those do that decide nothing.

use super::super::{Clause, Match, RequestMatch, Rule, StringMatch};
use super::*;
use crate::policy_target::PolicyTarget;
use crate::request_authentication::{AuthenticationSet, RequestAuthentication};
use crate::service::{Port, Service};
use crate::snapshot::Change;
use crate::workload::Memberships;

fn gateway() -> Gateway {
    Gateway {
        namespace: "shop".into(),
        name: "waypoint".into(),
        class: "istio-waypoint".into(),
    }
}

fn hostname(name: &str) -> NamespacedHostname {
    NamespacedHostname {
        namespace: "shop".into(),
        hostname: format!("{name}.shop.svc.cluster.local").into(),
    }
}

fn service(name: &str) -> Service {
    Service {
        ports: vec![port(8080)],
        ..Service::new(name, "shop", &hostname(name).hostname)
    }
}

fn port(target_port: u16) -> Port {
    Port {
        service_port: 80,
        target_port,
        app_protocol: Default::default(),
    }
}

fn pod(name: &str, services: &[&str]) -> Workload {
    let services = services.iter().map(|name| (hostname(name), Vec::new()));
    let mut pod = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
    pod.addresses = [[10, 0, 0, 2].into()].into_iter().collect();
    pod.services = services.collect();
    pod
}

fn policy(name: &str, action: Action, one: Match) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause { matches: vec![one] }],
        }],
    }
}

fn everyone() -> Match {
    Match {
        not_destination_ports: vec![1],
        ..Match::default()
    }
}

fn attached(name: &str, targets: &[PolicyTarget]) -> Authorization {
    Authorization {
        scope: Scope::Target,
        targets: targets.to_vec(),
        ..policy(name, Action::Deny, everyone())
    }
}

fn of_scope(name: &str, namespace: &str, scope: Scope) -> Authorization {
    Authorization {
        namespace: namespace.into(),
        scope,
        ..policy(name, Action::Deny, everyone())
    }
}

fn snapshot(policies: impl IntoIterator<Item = Authorization>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.apply(policies.into_iter().map(Change::AuthorizationPolicy));
    snapshot
}

fn connection() -> Connection {
    Connection::new(None, [10, 0, 0, 1].into(), ([10, 0, 0, 2], 8080).into())
}

fn names(set: &PolicySet) -> Vec<String> {
    let explanation = set.explain(&connection(), None);
    let names = explanation.policies.iter();
    names.map(|trace| trace.policy.to_string()).collect()
}

#[test]
fn a_service_has_the_policies_of_its_targets_its_namespace_and_the_mesh() {
    let target = |name: &str| PolicyTarget::Service(hostname(name));
    let of_gateway = |name: &str| PolicyTarget::Gateway {
        namespace: "shop".into(),
        name: name.into(),
    };
    let class = |class: &str| PolicyTarget::GatewayClass(class.into());
    let mut snapshot = snapshot([
        attached("a-service", &[target("web"), of_gateway("waypoint")]),
        attached("b-other-service", &[target("db")]),
        attached("c-gateway", &[of_gateway("waypoint")]),
        attached("d-other-gateway", &[of_gateway("other")]),
        attached("e-class", &[class("istio-waypoint")]),
        attached("f-other-class", &[class("weft-waypoint")]),
        of_scope("g-namespace", "shop", Scope::Namespace),
        of_scope("h-other-namespace", "bank", Scope::Namespace),
        of_scope("i-mesh", "istio-system", Scope::Global),
        of_scope("j-selector", "shop", Scope::WorkloadSelector),
    ]);
    let set = PolicySet::for_service(&snapshot, &gateway(), &hostname("web"));
    let expected = [
        "istio-system/i-mesh",
        "shop/a-service",
        "shop/c-gateway",
        "shop/e-class",
        "shop/g-namespace",
    ];
    assert_eq!(names(&set), expected);
    // Who guards all of Istio's waypoints means ours, made on demand, as well.
    let ours = Gateway {
        class: "weft-waypoint".into(),
        ..gateway()
    };
    let set = PolicySet::for_service(&snapshot, &ours, &hostname("web"));
    let both = ["shop/e-class", "shop/f-other-class"];
    assert!(
        both.iter()
            .all(|one| names(&set).contains(&(*one).to_owned()))
    );

    let moved = attached("a-service", &[target("db")]);
    snapshot.apply([
        Change::AuthorizationPolicy(moved),
        Change::RemoveAuthorizationPolicy(PolicyKey::new("shop", "c-gateway")),
    ]);
    let set = PolicySet::for_service(&snapshot, &gateway(), &hostname("web"));
    assert_eq!(
        names(&set),
        ["istio-system/i-mesh", "shop/e-class", "shop/g-namespace"]
    );
}

#[test]
fn an_endpoint_has_also_what_selects_it_and_what_its_services_have() {
    let target = |name: &str| PolicyTarget::Service(hostname(name));
    let snapshot = snapshot([
        attached("a-service", &[target("web")]),
        attached("b-backed", &[target("canary")]),
        attached("c-not-backed", &[target("db")]),
        of_scope("d-selects", "shop", Scope::WorkloadSelector),
        of_scope("e-selects-another", "shop", Scope::WorkloadSelector),
        of_scope("f-mesh", "istio-system", Scope::Global),
        of_scope("g-namespace", "bank", Scope::Namespace),
    ]);
    let mut chosen = pod("web-0", &["canary"]);
    chosen.request_policies = vec![PolicyKey::new("shop", "d-selects")];
    let addressed = hostname("web");
    let set = PolicySet::for_endpoint(&snapshot, &gateway(), Some(&addressed), (&chosen, 8080));
    let expected = [
        "istio-system/f-mesh",
        "shop/a-service",
        "shop/b-backed",
        "shop/d-selects",
    ];
    assert_eq!(names(&set), expected);

    chosen.namespace = "bank".into();
    let set = PolicySet::for_endpoint(&snapshot, &gateway(), None, (&chosen, 8080));
    let expected = [
        "bank/g-namespace",
        "istio-system/f-mesh",
        "shop/b-backed",
        "shop/d-selects",
    ];
    assert_eq!(names(&set), expected);
}

/// Two services over one pod: `web` leads from 80 to 8080 and is targeted, `plain` is not.
fn two_services(plain: u16, policies: Vec<Authorization>) -> (Snapshot, Workload) {
    let mut snapshot = snapshot(policies);
    let mut chosen = pod("web-0", &[]);
    chosen.services = Memberships::from_iter([
        (hostname("web"), vec![port(8080)]),
        (hostname("plain"), vec![port(plain)]),
    ]);
    let with_address = |name, last| Service {
        addresses: vec![crate::address::NetworkAddress::new(
            "",
            [10, 96, 0, last].into(),
        )],
        ..service(name)
    };
    snapshot.apply([
        Change::Service(with_address("web", 1)),
        Change::Service(with_address("plain", 2)),
        Change::Workload(chosen.clone()),
    ]);
    (snapshot, chosen)
}

#[test]
fn a_service_that_nothing_guards_does_not_get_around_what_guards_its_pods() {
    let target = |name: &str| PolicyTarget::Service(hostname(name));
    let check = |policies: Vec<Authorization>, port, expected: &[&str]| {
        let (snapshot, chosen) = two_services(port, policies);
        let plain = hostname("plain");
        let at = (&chosen, port);
        let set = PolicySet::for_endpoint(&snapshot, &gateway(), Some(&plain), at);
        assert_eq!(names(&set), expected);
    };
    let guard = || attached("guard", &[target("web")]);
    check(vec![guard()], 8080, &["shop/guard"]);
    // Another port of the pods is not what it guards.
    check(vec![guard()], 9090, &[]);
    // Whoever guards the service has said what it is to let in.
    let own = || attached("own", &[target("plain")]);
    check(vec![guard(), own()], 8080, &["shop/own"]);
    let audit = Authorization {
        action: Action::Audit,
        ..own()
    };
    check(vec![guard(), audit], 8080, &["shop/guard", "shop/own"]);
    let tried = Authorization {
        dry_run: true,
        ..own()
    };
    check(vec![guard(), tried], 8080, &["shop/guard", "shop/own"]);
    let both = attached("both", &[target("web"), target("plain")]);
    check(vec![both], 8080, &["shop/both"]);
}

#[test]
fn what_a_policy_says_of_its_service_s_port_it_says_of_the_pod_s() {
    let target = [PolicyTarget::Service(hostname("web"))];
    let on = |action, one: Match| Authorization {
        scope: Scope::Target,
        targets: target.to_vec(),
        ..policy("guard", action, one)
    };
    let ports = |ports: &[u16]| Match {
        destination_ports: ports.to_vec(),
        ..Match::default()
    };
    let not_ports = |ports: &[u16]| Match {
        not_destination_ports: ports.to_vec(),
        ..Match::default()
    };
    let ips = |net: &str| Match {
        destination_ips: vec![net.parse().expect("net")],
        ..Match::default()
    };
    for (action, one, allowed) in [
        (Action::Deny, ports(&[80]), false),
        (Action::Deny, ports(&[81]), true),
        // The pod's port is none of the service's.
        (Action::Deny, ports(&[8080]), true),
        (Action::Deny, not_ports(&[80]), true),
        (Action::Deny, not_ports(&[81, 8080]), false),
        (Action::Allow, ports(&[80]), true),
        (Action::Allow, ports(&[81]), false),
        (Action::Allow, not_ports(&[80]), false),
        (Action::Deny, ips("10.96.0.1/32"), false),
        (Action::Deny, ips("10.0.0.2/32"), true),
    ] {
        let told = format!("{action:?} {one:?}");
        let (snapshot, chosen) = two_services(8080, vec![on(action, one)]);
        let dialled = Connection {
            dialled: Some(([10, 96, 0, 2], 80).into()),
            ..connection()
        };
        let plain = hostname("plain");
        for (service, connection) in [(Some(&plain), dialled), (None, connection())] {
            let set = PolicySet::for_endpoint(&snapshot, &gateway(), service, (&chosen, 8080));
            let verdict = set.authorize(&connection, None);
            assert_eq!(verdict.is_allowed(), allowed, "{told} by {service:?}");
        }
    }
}

#[test]
fn a_listed_policy_that_has_not_arrived_refuses() {
    let late = PolicyKey::new("shop", "late");
    let mut chosen = pod("web-0", &["web"]);
    chosen.request_policies = vec![late.clone()];
    chosen.request_authentications = vec![late.clone()];
    let allow = policy("allow", Action::Allow, everyone());
    let mut snapshot = snapshot([allow]);
    // One of the other kind is not the one that is missing.
    snapshot.apply([Change::RequestAuthentication(RequestAuthentication {
        namespace: "shop".into(),
        name: "late".into(),
        scope: Scope::WorkloadSelector,
        targets: Vec::new(),
        rules: Vec::new(),
        unparsable: None,
    })]);
    let set = PolicySet::for_endpoint(&snapshot, &gateway(), None, (&chosen, 8080));
    let verdict = set.authorize(&connection(), None);
    assert_eq!(verdict, Verdict::PolicyUnknown(late.clone()));
    let tokens = AuthenticationSet::for_endpoint(&snapshot, &gateway(), None, (&chosen, 8080));
    assert_eq!((tokens.policies.len(), tokens.refusal()), (1, None));

    snapshot.apply([Change::RemoveRequestAuthentication(late.clone())]);
    let tokens = AuthenticationSet::for_endpoint(&snapshot, &gateway(), None, (&chosen, 8080));
    assert_eq!(tokens.unknown, Some(late));
    assert!(tokens.refusal().is_some());
}

#[test]
fn policies_of_targets_see_what_was_dialled_and_others_the_application() {
    let on_port = |port| Match {
        destination_ports: vec![port],
        ..Match::default()
    };
    let dialled = Connection {
        dialled: Some(([10, 96, 0, 1], 80).into()),
        ..connection()
    };
    for (scope, port) in [
        (Scope::Target, 80),
        (Scope::Namespace, 8080),
        (Scope::WorkloadSelector, 8080),
        (Scope::Global, 8080),
    ] {
        for asked in [80, 8080] {
            let policy = Authorization {
                scope,
                ..policy("port", Action::Deny, on_port(asked))
            };
            assert_eq!(policy.matches(&dialled, None), asked == port, "{scope:?}");
        }
    }
}

#[test]
fn audit_decides_nothing_and_is_told() {
    let audit = policy("audit", Action::Audit, everyone());
    let elsewhere = Match {
        destination_ports: vec![1],
        ..Match::default()
    };
    let other = policy("other", Action::Audit, elsewhere);
    let set = PolicySet::for_service(&snapshot([audit, other]), &gateway(), &hostname("web"));
    let connection = connection();
    assert_eq!(set.authorize(&connection, None), Verdict::AllowedByDefault);
    let told: Vec<&str> = set.audits(&connection, None).map(|p| &*p.name).collect();
    assert_eq!(told, ["audit"]);
    let tried = set.dry_run_verdict(&Verdict::AllowedByDefault, &connection, None);
    assert_eq!(tried, None);
}

#[test]
fn a_dry_run_says_what_the_verdict_would_be() {
    let key = |name| PolicyKey::new("shop", name);
    let nobody = Match {
        destination_ports: vec![1],
        ..Match::default()
    };
    let tried = |name, action, one| Authorization {
        dry_run: true,
        ..policy(name, action, one)
    };
    let allow = || policy("allow", Action::Allow, everyone());
    let narrow = || policy("narrow", Action::Allow, nobody.clone());
    let deny = || policy("deny", Action::Deny, everyone());
    for (policies, enforced, expected) in [
        (vec![], Verdict::AllowedByDefault, None),
        (
            vec![tried("try", Action::Deny, everyone())],
            Verdict::AllowedByDefault,
            Some(Verdict::DeniedBy(key("try"))),
        ),
        (
            vec![allow(), tried("try", Action::Deny, nobody.clone())],
            Verdict::AllowedBy(key("allow")),
            Some(Verdict::AllowedBy(key("allow"))),
        ),
        (
            vec![tried("try", Action::Allow, nobody.clone())],
            Verdict::AllowedByDefault,
            Some(Verdict::NoAllowMatched),
        ),
        (
            vec![narrow(), tried("try", Action::Allow, everyone())],
            Verdict::NoAllowMatched,
            Some(Verdict::AllowedBy(key("try"))),
        ),
        (
            vec![deny(), tried("try", Action::Allow, everyone())],
            Verdict::DeniedBy(key("deny")),
            Some(Verdict::DeniedBy(key("deny"))),
        ),
    ] {
        let set = PolicySet::for_service(&snapshot(policies), &gateway(), &hostname("web"));
        let connection = connection();
        let verdict = set.authorize(&connection, None);
        assert_eq!(verdict, enforced);
        assert_eq!(set.dry_run_verdict(&verdict, &connection, None), expected);
    }
}

#[test]
fn endpoints_are_uniform_where_no_policy_can_tell_them_apart() {
    let uniform = |second: Workload, policies: Vec<Authorization>| {
        let mut snapshot = snapshot(policies);
        snapshot.apply([
            Change::Service(service("web")),
            Change::Workload(pod("web-0", &["web"])),
            Change::Workload(second),
        ]);
        let entry = snapshot.service(&hostname("web")).expect("applied");
        uniform_endpoint(&snapshot, &gateway(), entry, 80).is_some()
    };
    let alike = || pod("web-1", &["web"]);
    assert!(uniform(alike(), Vec::new()));

    let mut selected = alike();
    selected.request_policies = vec![PolicyKey::new("shop", "one")];
    assert!(!uniform(selected, Vec::new()));
    let mut authenticated = alike();
    authenticated.request_authentications = vec![PolicyKey::new("shop", "one")];
    assert!(!uniform(authenticated, Vec::new()));
    assert!(!uniform(pod("web-1", &["web", "canary"]), Vec::new()));
    let mut another_port = alike();
    another_port.services = Memberships::from_iter([(hostname("web"), vec![port(9090)])]);
    assert!(!uniform(another_port, Vec::new()));
    let by_address = Match {
        destination_ips: vec!["10.0.0.2/32".parse().expect("net")],
        ..Match::default()
    };
    assert!(!uniform(
        alike(),
        vec![policy("ip", Action::Deny, by_address)]
    ));
}

#[test]
fn a_service_without_endpoints_has_none_to_stand_for_it() {
    let mut snapshot = Snapshot::default();
    snapshot.apply([Change::Service(service("web"))]);
    let entry = snapshot.service(&hostname("web")).expect("applied");
    assert!(uniform_endpoint(&snapshot, &gateway(), entry, 80).is_none());
}

#[test]
fn a_node_admits_the_waypoints_in_front() {
    let waypoint = Identity::new("cluster.local", "shop", "waypoint");
    let mut snapshot = Snapshot::default();
    let deny = policy("deny", Action::Deny, everyone());
    snapshot.apply([Change::Authorization(deny)]);
    let mut chosen = pod("web-0", &["web"]);
    chosen.admitted_waypoints = vec![waypoint.clone()];
    let set = PolicySet::of(&snapshot, &chosen);
    let from = |identity| Connection {
        source_identity: identity,
        ..connection()
    };
    let verdict = set.authorize(&from(Some(waypoint.clone())), None);
    assert_eq!(verdict, Verdict::AdmittedWaypoint(waypoint.clone()));
    assert!(verdict.is_allowed());
    for other in [
        None,
        Some(Identity::new("other.domain", "shop", "waypoint")),
        Some(Identity::new("cluster.local", "shop", "waypoint2")),
    ] {
        assert!(!set.authorize(&from(other), None).is_allowed());
    }
    // A waypoint that is in front of another is no one special here.
    let at_waypoint = PolicySet::for_endpoint(&snapshot, &gateway(), None, (&chosen, 8080));
    let verdict = at_waypoint.authorize(&from(Some(waypoint)), None);
    assert_eq!(verdict, Verdict::AllowedByDefault);
}

#[test]
fn an_explanation_says_what_failed_in_the_policy_s_words() {
    let one = Match {
        principals: vec![StringMatch::parse("cluster.local/ns/shop/sa/web")],
        request: Some(Arc::new(RequestMatch {
            not_methods: vec![StringMatch::parse("DELETE"), StringMatch::parse("P*")],
            ..RequestMatch::default()
        })),
        ..Match::default()
    };
    let set = snapshot([policy("allow", Action::Allow, one)]);
    let set = PolicySet::for_service(&set, &gateway(), &hostname("web"));
    let method = http::Method::PUT;
    let request = Request {
        method: &method,
        host: "web",
        port: None,
        path: "/",
        query: None,
        headers: &http::HeaderMap::new(),
        remote_ip: [10, 0, 0, 1].into(),
        claims: None,
    };
    let explanation = set.explain(&connection(), Some(&request));
    assert_eq!(explanation.verdict, Verdict::NoAllowMatched);
    let [policy] = &explanation.policies[..] else {
        panic!("{explanation:?}");
    };
    let told: Vec<_> = policy
        .failures()
        .map(|(rule, one)| (rule, one.to_string()))
        .collect();
    let expected = [
        (
            0,
            "from.source.principals: the client has no identity, wanted \
             cluster.local/ns/shop/sa/web"
                .to_owned(),
        ),
        (
            0,
            "to.operation.notMethods: \"PUT\", unwanted DELETE, P*".to_owned(),
        ),
    ];
    assert_eq!(told, expected);
}
