//! Tests of policy evaluation: its table, and a naive model that it must agree with.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::snapshot::Change;

fn connection(account: Option<&str>) -> Connection {
    Connection::new(
        account.map(|account| Identity::new("cluster.local", "shop", account)),
        [10, 0, 0, 1].into(),
        SocketAddr::from(([10, 0, 0, 2], 80)),
    )
}

fn rule(matches: &[Match]) -> Rule {
    Rule {
        clauses: vec![Clause {
            matches: matches.to_vec(),
        }],
    }
}

fn from(account: &str) -> Match {
    Match {
        principals: vec![StringMatch::parse(&format!(
            "cluster.local/ns/shop/sa/{account}"
        ))],
        ..Default::default()
    }
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action,
        dry_run: false,
        targets: Vec::new(),
        rules,
    }
}

fn allow(name: &str, account: &str) -> Authorization {
    policy(name, Action::Allow, vec![rule(&[from(account)])])
}

fn deny(name: &str, account: &str) -> Authorization {
    policy(name, Action::Deny, vec![rule(&[from(account)])])
}

fn set(policies: &[Authorization], destination: &Workload) -> PolicySet {
    let mut snapshot = Snapshot::default();
    snapshot.apply(policies.iter().cloned().map(Change::Authorization));
    PolicySet::of(&snapshot, destination)
}

fn web() -> Workload {
    Workload::new("Kubernetes//Pod/shop/web", "web", "shop")
}

fn verdict(policies: &[Authorization], account: Option<&str>) -> Verdict {
    set(policies, &web()).authorize(&connection(account))
}

fn key(name: &str) -> PolicyKey {
    PolicyKey::new("shop", name)
}

#[test]
fn no_policy_allows() {
    assert_eq!(verdict(&[], None), Verdict::AllowedByDefault);
    let deny_other = [deny("d", "other")];
    assert_eq!(
        verdict(&deny_other, Some("client")),
        Verdict::AllowedByDefault
    );
}

#[test]
fn deny_comes_before_allow() {
    let policies = [allow("a", "*"), deny("d", "client")];
    assert_eq!(
        verdict(&policies, Some("client")),
        Verdict::DeniedBy(key("d"))
    );
    assert_eq!(
        verdict(&policies, Some("other")),
        Verdict::AllowedBy(key("a"))
    );
}

#[test]
fn where_allow_policies_apply_one_must_match() {
    let policies = [allow("a", "client"), allow("b", "other")];
    assert_eq!(
        verdict(&policies, Some("other")),
        Verdict::AllowedBy(key("b"))
    );
    assert_eq!(verdict(&policies, Some("third")), Verdict::NoAllowMatched);
    assert_eq!(verdict(&policies, None), Verdict::NoAllowMatched);
}

#[test]
fn no_rules_match_nothing_and_an_empty_rule_everything() {
    let none = |action| [policy("p", action, Vec::new())];
    let every = |action| [policy("p", action, vec![Rule::default()])];
    assert_eq!(verdict(&none(Action::Allow), None), Verdict::NoAllowMatched);
    assert_eq!(
        verdict(&none(Action::Deny), None),
        Verdict::AllowedByDefault
    );
    assert_eq!(
        verdict(&every(Action::Allow), None),
        Verdict::AllowedBy(key("p"))
    );
    assert_eq!(
        verdict(&every(Action::Deny), None),
        Verdict::DeniedBy(key("p"))
    );
}

#[test]
fn an_empty_clause_holds_and_an_empty_match_never() {
    let with = |matches: &[Match]| [policy("p", Action::Allow, vec![rule(matches)])];
    assert!(verdict(&with(&[]), None).is_allowed());
    assert!(!verdict(&with(&[Match::default()]), None).is_allowed());
    assert!(verdict(&with(&[Match::default(), from("client")]), Some("client")).is_allowed());
}

#[test]
fn strict_mutual_tls_denies_whoever_has_no_identity() {
    let no_identity = Match {
        not_principals: vec![StringMatch::Presence],
        ..Default::default()
    };
    let strict = [policy("strict", Action::Deny, vec![rule(&[no_identity])])];
    assert_eq!(verdict(&strict, None), Verdict::DeniedBy(key("strict")));
    assert!(verdict(&strict, Some("client")).is_allowed());
}

#[test]
fn dry_run_only_tells() {
    let mut dry = deny("dry", "client");
    dry.dry_run = true;
    let set = set(&[dry], &web());
    let connection = connection(Some("client"));
    assert!(set.authorize(&connection).is_allowed());
    let told: Vec<&str> = set.dry_run_matches(&connection).map(|p| &*p.name).collect();
    assert_eq!(told, ["dry"]);
}

#[test]
fn scopes_say_who_is_concerned() {
    let mut global = deny("global", "*");
    global.scope = Scope::Global;
    global.namespace = "istio-system".into();
    let mut selector = deny("selector", "*");
    selector.scope = Scope::WorkloadSelector;
    let bank = Workload::new("Kubernetes//Pod/bank/db", "db", "bank");
    let mut chosen = web();
    chosen.authorization_policies = vec![key("selector")];
    let denied = |policies: &[Authorization], destination: &Workload| {
        !set(policies, destination)
            .authorize(&connection(Some("client")))
            .is_allowed()
    };
    assert!(denied(&[global.clone()], &web()) && denied(&[global], &bank));
    assert!(denied(&[deny("n", "*")], &web()) && !denied(&[deny("n", "*")], &bank));
    assert!(denied(&[selector.clone()], &chosen) && !denied(&[selector], &web()));
}

#[test]
fn a_named_policy_that_has_not_arrived_refuses() {
    let mut chosen = web();
    chosen.authorization_policies = vec![key("late")];
    let refused = set(&[allow("a", "*")], &chosen).authorize(&connection(Some("client")));
    assert_eq!(refused, Verdict::PolicyUnknown(key("late")));
    assert!(!refused.is_allowed());
}

#[test]
fn what_is_unparsable_never_allows_and_always_denies() {
    let unparsable = Match {
        unparsable: Some("a port of 70000".into()),
        ..from("client")
    };
    let with = |action| {
        [policy(
            "p",
            action,
            vec![rule(std::slice::from_ref(&unparsable))],
        )]
    };
    assert_eq!(
        verdict(&with(Action::Allow), Some("client")),
        Verdict::NoAllowMatched
    );
    assert_eq!(
        verdict(&with(Action::Deny), Some("other")),
        Verdict::DeniedBy(key("p"))
    );
}

#[test]
fn texts_match_as_policies_write_them() {
    for (pattern, text, matches) in [
        ("*", "a", true),
        ("*", "", false),
        ("shop", "shop", true),
        ("shop", "Shop", false),
        ("shop", "shop2", false),
        ("sh*", "shop", true),
        ("sh*", "ash", false),
        ("*op", "shop", true),
        ("*op", "ops", false),
    ] {
        assert_eq!(
            StringMatch::parse(pattern).matches(text),
            matches,
            "{pattern} {text}"
        );
    }
}

// === The naive model ===

/// Istio's documentation of a match, spelled out attribute by attribute.
fn model_match(one: &Match, deny: bool, connection: &Connection) -> bool {
    if one.unparsable.is_some() {
        return deny;
    }
    let text = |pattern: &StringMatch, value: &str| match pattern {
        StringMatch::Exact(exact) => value == exact.to_string(),
        StringMatch::Prefix(prefix) => value.get(..prefix.len()) == Some(prefix),
        StringMatch::Suffix(suffix) => {
            value.len() >= suffix.len() && value[value.len() - suffix.len()..] == **suffix
        }
        StringMatch::Presence => !value.is_empty(),
    };
    let identity = connection.source_identity.as_ref();
    let namespace = identity
        .map(|id| id.namespace.to_string())
        .unwrap_or_default();
    let principal = identity.map(|id| id.to_string().replace("spiffe://", ""));
    let account = identity.map(|id| (id.namespace.clone(), id.service_account.clone()));
    let source = connection.source_ip;
    let (ip, port) = (connection.destination.ip(), connection.destination.port());

    // Per attribute: is the positive list set, does it hold, does the negative one hold.
    let principal_is = |m: &StringMatch| principal.as_ref().is_some_and(|p| text(m, p));
    let account_is =
        |m: &ServiceAccountMatch| account == Some((m.namespace.clone(), m.service_account.clone()));
    let within = |net: &IpNet, ip: IpAddr| {
        net.network().is_ipv4() == ip.is_ipv4() && net.network() <= ip && ip <= net.broadcast()
    };
    let attributes = [
        (
            one.namespaces.len(),
            one.namespaces.iter().any(|m| text(m, &namespace)),
        ),
        (
            one.principals.len(),
            one.principals.iter().any(principal_is),
        ),
        (
            one.service_accounts.len(),
            one.service_accounts.iter().any(account_is),
        ),
        (
            one.source_ips.len(),
            one.source_ips.iter().any(|net| within(net, source)),
        ),
        (
            one.destination_ips.len(),
            one.destination_ips.iter().any(|net| within(net, ip)),
        ),
        (
            one.destination_ports.len(),
            one.destination_ports.contains(&port),
        ),
    ];
    let negations = [
        (
            one.not_namespaces.len(),
            one.not_namespaces.iter().any(|m| text(m, &namespace)),
        ),
        (
            one.not_principals.len(),
            one.not_principals.iter().any(principal_is),
        ),
        (
            one.not_service_accounts.len(),
            one.not_service_accounts.iter().any(account_is),
        ),
        (
            one.not_source_ips.len(),
            one.not_source_ips.iter().any(|net| within(net, source)),
        ),
        (
            one.not_destination_ips.len(),
            one.not_destination_ips.iter().any(|net| within(net, ip)),
        ),
        (
            one.not_destination_ports.len(),
            one.not_destination_ports.contains(&port),
        ),
    ];
    let nothing_set = attributes
        .iter()
        .chain(&negations)
        .all(|(length, _)| *length == 0);
    !nothing_set
        && attributes
            .iter()
            .all(|(length, holds)| *length == 0 || *holds)
        && negations.iter().all(|(_, holds)| !holds)
}

fn model_allows(policies: &[Authorization], connection: &Connection) -> bool {
    let holds = |policy: &Authorization| {
        let deny = policy.action == Action::Deny;
        policy.rules.iter().any(|rule| {
            rule.clauses.iter().all(|clause| {
                clause.matches.is_empty()
                    || clause
                        .matches
                        .iter()
                        .any(|one| model_match(one, deny, connection))
            })
        })
    };
    let live = || policies.iter().filter(|policy| !policy.dry_run);
    if live().any(|policy| policy.action == Action::Deny && holds(policy)) {
        return false;
    }
    let mut allows = live()
        .filter(|policy| policy.action == Action::Allow)
        .peekable();
    allows.peek().is_none() || allows.any(holds)
}

/// Mostly none: with many attributes set hardly any match would ever hold.
fn few<T: Clone + fmt::Debug>(values: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop_oneof![4 => Just(Vec::new()), 1 => vec(values, 1..3)]
}

fn any_text(texts: &'static [&'static str]) -> impl Strategy<Value = Vec<StringMatch>> {
    few(select(texts).prop_map(StringMatch::parse))
}

fn any_nets() -> impl Strategy<Value = Vec<IpNet>> {
    const NETS: &[&str] = &[
        "10.0.0.0/8",
        "10.0.0.1/32",
        "192.0.2.0/24",
        "::/0",
        "fd00::/8",
        "0.0.0.0/0",
    ];
    few(select(NETS).prop_map(|net| net.parse().expect("literal")))
}

fn any_match() -> impl Strategy<Value = Match> {
    let namespaces = || any_text(&["*", "shop", "sh*", "*nk", "other"]);
    let principals = || {
        any_text(&[
            "*",
            "cluster.local/ns/shop/sa/web",
            "*/sa/db",
            "cluster.local/*",
            "other",
        ])
    };
    let accounts = || {
        let one = select(&[("shop", "web"), ("bank", "db"), ("shop", "db")][..]);
        let one = one.prop_map(|(namespace, account)| ServiceAccountMatch {
            namespace: namespace.into(),
            service_account: account.into(),
        });
        few(one)
    };
    let ports = || few(select(&[80_u16, 443][..]));
    let unparsable = proptest::option::weighted(0.05, Just("reason".into()));
    (
        (namespaces(), namespaces(), principals(), principals()),
        (accounts(), accounts(), ports(), ports()),
        (any_nets(), any_nets(), any_nets(), any_nets()),
        unparsable,
    )
        .prop_map(|(texts, rest, nets, unparsable)| Match {
            namespaces: texts.0,
            not_namespaces: texts.1,
            principals: texts.2,
            not_principals: texts.3,
            service_accounts: rest.0,
            not_service_accounts: rest.1,
            destination_ports: rest.2,
            not_destination_ports: rest.3,
            source_ips: nets.0,
            not_source_ips: nets.1,
            destination_ips: nets.2,
            not_destination_ips: nets.3,
            request: None,
            unparsable,
        })
}

fn any_policies() -> impl Strategy<Value = Vec<Authorization>> {
    let clause = vec(any_match(), 0..3).prop_map(|matches| Clause { matches });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    let action = select(&[Action::Allow, Action::Deny][..]);
    let one = (action, proptest::bool::weighted(0.1), vec(rule, 0..3));
    vec(one, 0..4).prop_map(|policies| {
        let number = |(n, (action, dry_run, rules))| Authorization {
            dry_run,
            ..policy(&format!("policy-{n}"), action, rules)
        };
        policies.into_iter().enumerate().map(number).collect()
    })
}

fn any_connection() -> impl Strategy<Value = Connection> {
    let identity = select(&[("shop", "web"), ("shop", "db"), ("bank", "db")][..])
        .prop_map(|(namespace, account)| Identity::new("cluster.local", namespace, account));
    const IPS: &[&str] = &[
        "10.0.0.1",
        "10.9.9.9",
        "192.0.2.7",
        "fd00::1",
        "2001:db8::1",
    ];
    let ip = || select(IPS).prop_map(|ip| ip.parse::<IpAddr>().expect("literal"));
    (
        proptest::option::of(identity),
        ip(),
        ip(),
        select(&[80_u16, 443, 8080][..]),
    )
        .prop_map(|(source_identity, source_ip, ip, port)| {
            Connection::new(source_identity, source_ip, SocketAddr::new(ip, port))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn verdicts_agree_with_the_naive_model(policies in any_policies(), connection in any_connection()) {
        let verdict = set(&policies, &web()).authorize(&connection);
        prop_assert_eq!(verdict.is_allowed(), model_allows(&policies, &connection));
    }
}
