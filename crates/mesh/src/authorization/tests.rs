//! What policies decide on connections, case by case, and on anything as a naive model has it.

mod strategies;

mod model;

use super::evaluation::Facts;
use super::policy_list::PolicyList;
use super::request::OtherReadings;
use super::*;
use crate::snapshot::{Change, Snapshot};
use crate::workload::Workload;

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
    set(policies, &web()).authorize(&connection(account), None)
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
    let enforced = set.authorize(&connection, None);
    assert!(enforced.is_allowed());
    let tried = set.dry_run_verdict(&enforced, &connection, None);
    assert_eq!(tried, Some(Verdict::DeniedBy(key("dry"))));
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
            .authorize(&connection(Some("client")), None)
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
    let refused = set(&[allow("a", "*")], &chosen).authorize(&connection(Some("client")), None);
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

/// Each of many policies is about somebody else.
#[test]
fn policies_that_can_not_hold_for_a_connection_are_not_evaluated() {
    let texts = |text: &str| vec![StringMatch::parse(text)];
    type Build = fn(&mut Match, Vec<StringMatch>);
    let cases: [(&str, Build, &str); 8] = [
        (
            "principals",
            |one, texts| one.principals = texts,
            "cluster.local/ns/shop/sa/NUMBER",
        ),
        (
            "principals",
            |one, texts| one.principals = texts,
            "cluster.local/ns/shop/sa/NUMBER*",
        ),
        (
            "principals",
            |one, texts| one.principals = texts,
            "*/sa/NUMBER",
        ),
        (
            "namespaces",
            |one, texts| one.namespaces = texts,
            "NUMBER-*",
        ),
        (
            "namespaces",
            |one, texts| one.namespaces = texts,
            "*-NUMBER",
        ),
        (
            "notPrincipals",
            |one, texts| one.not_principals = texts,
            "*/sa/client",
        ),
        (
            "notNamespaces",
            |one, texts| one.not_namespaces = texts,
            "shop",
        ),
        (
            "notNamespaces",
            |one, texts| one.not_namespaces = texts,
            "sh*",
        ),
    ];
    let connection = connection(Some("client"));
    let others = OtherReadings::default();
    for (attribute, build, text) in cases {
        let mut list = PolicyList::default();
        for number in 0..20 {
            let mut one = Match::default();
            build(
                &mut one,
                texts(&text.replace("NUMBER", &number.to_string())),
            );
            let policy = policy(&number.to_string(), Action::Deny, vec![rule(&[one])]);
            list.add(&Arc::new(policy));
        }
        let facts = Facts {
            connection: &connection,
            request: None,
            others: &others,
        };
        assert_eq!(list.candidates(facts).count(), 0, "{attribute}: {text}");
        let plaintext = Connection {
            source_identity: None,
            ..connection.clone()
        };
        let facts = Facts {
            connection: &plaintext,
            ..facts
        };
        let excepts = attribute.starts_with("not");
        let expected = if excepts { 20 } else { 0 };
        assert_eq!(
            list.candidates(facts).count(),
            expected,
            "{attribute}: {text}"
        );
    }
}
