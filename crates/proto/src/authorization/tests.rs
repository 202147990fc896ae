//! Round trips of policies, and that what is not understood fails closed.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::strategies;
use crate::workload::Extension;

proptest! {
    #[test]
    fn reads_back_as_written(policy in strategies::authorization()) {
        let bytes = Authorization::from(&policy).encode_to_vec();
        let decoded = Decoded::read(&policy.key(), &bytes);
        prop_assert_eq!(decoded, Decoded { policy, problems: Vec::new() });
    }

    #[test]
    fn no_bytes_panic_and_none_allow(bytes: Vec<u8>) {
        let decoded = Decoded::read(&key(), &bytes);
        prop_assert!(decoded.problems.is_empty() || decoded.policy.matches(&connection(), None));
    }
}

fn key() -> model::PolicyKey {
    model::PolicyKey::new("shop", "web")
}

fn connection() -> model::Connection {
    let destination = SocketAddr::from(([10, 0, 0, 2], 80));
    model::Connection::new(None, [10, 0, 0, 1].into(), destination)
}

/// A policy of one rule with one match, which would hold for any connection to port 80.
fn wire(action: Action, one: Match) -> Authorization {
    Authorization {
        name: "web".to_owned(),
        namespace: "shop".to_owned(),
        scope: Scope::Namespace.into(),
        action: action.into(),
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    destination_ports: vec![80],
                    ..one
                }],
            }],
        }],
        ..Default::default()
    }
}

#[test]
fn an_entry_not_understood_never_allows_and_always_denies() {
    let bad = Address {
        address: vec![10],
        length: 8,
    };
    let too_long = Address {
        address: vec![10, 0, 0, 0],
        length: 64,
    };
    for (name, one) in [
        (
            "source_ips",
            Match {
                source_ips: vec![bad.clone()],
                ..Default::default()
            },
        ),
        (
            "not_source_ips",
            Match {
                not_source_ips: vec![too_long],
                ..Default::default()
            },
        ),
        (
            "not_destination_ips",
            Match {
                not_destination_ips: vec![bad],
                ..Default::default()
            },
        ),
        (
            "principals",
            Match {
                principals: vec![StringMatch { match_type: None }],
                ..Default::default()
            },
        ),
        (
            "not_destination_ports",
            Match {
                not_destination_ports: vec![65_536 + 81],
                ..Default::default()
            },
        ),
        (
            "extensions",
            Match {
                extensions: vec![Extension {
                    name: "example.com/hours".to_owned(),
                    config: None,
                }],
                ..Default::default()
            },
        ),
    ] {
        for (action, matches) in [(Action::Allow, false), (Action::Deny, true)] {
            let decoded = Decoded::from(wire(action, one.clone()));
            assert_eq!(
                decoded.policy.matches(&connection(), None),
                matches,
                "{name}"
            );
            assert_eq!(decoded.problems.len(), 1, "{name}");
            assert!(decoded.problems[0].starts_with(name), "{decoded:?}");
        }
    }
}

#[test]
fn an_unknown_action_or_scope_denies_all_it_selects() {
    for (scope, action, applied) in [
        (0, 2, model::Scope::Global),
        (2, 7, model::Scope::WorkloadSelector),
        (3, 0, model::Scope::Namespace),
        (-1, -1, model::Scope::Namespace),
    ] {
        let decoded = Decoded::from(Authorization {
            scope,
            action,
            ..wire(Action::Allow, Match::default())
        });
        assert_eq!(decoded.policy.scope, applied);
        assert_eq!(decoded.policy.action, model::Action::Deny);
        assert!(decoded.policy.matches(&connection(), None));
        assert_eq!(decoded.problems.len(), 1);
    }
}

#[test]
fn a_policy_under_another_name_denies_under_the_one_it_was_sent_as() {
    let bytes = wire(Action::Allow, Match::default()).encode_to_vec();
    let decoded = Decoded::read(&model::PolicyKey::new("shop", "other"), &bytes);
    assert_eq!(&*decoded.policy.name, "other");
    assert_eq!(decoded.policy.action, model::Action::Deny);
    assert_eq!(decoded.problems, ["calls itself shop/web"]);
}

#[test]
fn what_the_sender_could_not_express_fails_closed_in_tunnels_that_ignore_extensions() {
    for (action, matches) in [(model::Action::Allow, false), (model::Action::Deny, true)] {
        let policy = model::Authorization {
            action,
            ..denying(&key(), Scope::Namespace, "port name is unknown")
        };
        let mut wire = Authorization::from(&policy);
        assert_eq!(Decoded::from(wire.clone()).policy, policy);
        wire.rules[0].clauses[0].matches[0].extensions.clear();
        assert_eq!(
            Decoded::from(wire).policy.matches(&connection(), None),
            matches
        );
    }
}
