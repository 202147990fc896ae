//! The names of the mesh's trust domain: who is named under one of them is meant under all.
//!
//! As Istio does it: principals that are written out to their account (`DOMAIN/ns/…/sa/…`), and
//! trust domains. `cluster.local` is such a name in a principal whatever the trust domain is, so that
//! policies can be written without knowing it.

use std::sync::Arc;

use mesh::authorization::{ConditionKey, Match, Rule, StringMatch};
use mesh::identity::DEFAULT_TRUST_DOMAIN;

use crate::view::Context;

/// The rules, with principals under each name. What says nothing of the trust domain stays as it is.
pub(super) fn under_each_name(mut rules: Vec<Rule>, context: &Context) -> Vec<Rule> {
    let aliases = context.trust_domain_aliases.iter().map(AsRef::as_ref);
    let mut names: Vec<&str> = vec![&context.trust_domain];
    names.extend(aliases);
    let matches = rules
        .iter_mut()
        .flat_map(|rule| &mut rule.clauses)
        .flat_map(|clause| &mut clause.matches);
    for one in matches {
        for principals in [&mut one.principals, &mut one.not_principals] {
            replace_each(principals, |principal| principals_meant(principal, &names));
        }
        trust_domains(one, &names);
    }
    rules
}

fn trust_domains(one: &mut Match, names: &[&str]) {
    let Some(request) = &mut one.request else {
        return;
    };
    let is_of_them = |key: &ConditionKey| *key == ConditionKey::TrustDomain;
    if !request.conditions.iter().any(|one| is_of_them(&one.key)) {
        return;
    }
    let conditions = &mut Arc::make_mut(request).conditions;
    for condition in conditions.iter_mut().filter(|one| is_of_them(&one.key)) {
        for values in [&mut condition.values, &mut condition.not_values] {
            replace_each(values, |value| match value {
                StringMatch::Exact(domain) if names.contains(&domain.as_ref()) => names
                    .iter()
                    .map(|name| StringMatch::Exact((*name).into()))
                    .collect(),
                _ => vec![value.clone()],
            });
        }
    }
}

/// Each by what it means, without saying anything twice.
fn replace_each(all: &mut Vec<StringMatch>, meaning: impl Fn(&StringMatch) -> Vec<StringMatch>) {
    let mut meant = Vec::with_capacity(all.len());
    for one in all.iter().flat_map(meaning) {
        if !meant.contains(&one) {
            meant.push(one);
        }
    }
    *all = meant;
}

fn principals_meant(principal: &StringMatch, names: &[&str]) -> Vec<StringMatch> {
    let written = match principal {
        StringMatch::Exact(text) => text.to_string(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Suffix(text) => format!("*{text}"),
        StringMatch::Presence => return vec![principal.clone()],
    };
    let Some((domain, rest)) = written.split_once('/') else {
        return vec![principal.clone()];
    };
    // Written out: domain, "ns", namespace, "sa", account.
    let is_whole = rest.split('/').count() == 4;
    let pattern = StringMatch::parse(domain);
    let is_ours = domain == DEFAULT_TRUST_DOMAIN || names.iter().any(|name| pattern.matches(name));
    if domain == "*" || !is_whole || !is_ours {
        return vec![principal.clone()];
    }
    let meant = names.iter().map(|name| match pattern {
        // The pattern means this name already, and perhaps others.
        StringMatch::Suffix(_) if pattern.matches(name) => principal.clone(),
        _ => StringMatch::parse(&format!("{name}/{rest}")),
    });
    meant.collect()
}

#[cfg(test)]
mod tests {
    use mesh::authorization::{Clause, Condition, RequestMatch};

    use super::*;

    #[track_caller]
    fn check(trust_domain: &str, aliases: &[&str], principals: &[&str], meant: &[&str]) {
        let context = Context {
            trust_domain: trust_domain.into(),
            trust_domain_aliases: aliases.iter().map(|name| (*name).into()).collect(),
            ..Context::default()
        };
        let matches = |texts: &[&str]| {
            let all = texts.iter().map(|text| StringMatch::parse(text));
            all.collect::<Vec<_>>()
        };
        let rule = |texts: &[&str]| Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    principals: matches(texts),
                    not_principals: matches(texts),
                    ..Match::default()
                }],
            }],
        };
        assert_eq!(
            under_each_name(vec![rule(principals)], &context),
            [rule(meant)]
        );
    }

    #[test]
    fn a_principal_is_meant_under_each_name_of_its_trust_domain() {
        let aliases = &["old.example", "older.example"];
        let all = &[
            "new.example/ns/a/sa/b",
            "old.example/ns/a/sa/b",
            "older.example/ns/a/sa/b",
        ];
        for name in [
            "new.example",
            "old.example",
            "older.example",
            "cluster.local",
        ] {
            check("new.example", aliases, &[&format!("{name}/ns/a/sa/b")], all);
        }
        check(
            "new.example",
            aliases,
            &["new.example/ns/a/sa/b", "old.example/ns/a/sa/b"],
            all,
        );
        let prefixes = &[
            "new.example/ns/a/sa/*",
            "old.example/ns/a/sa/*",
            "older.example/ns/a/sa/*",
        ];
        check("new.example", aliases, &["old.example/ns/a/sa/*"], prefixes);
    }

    #[test]
    fn a_pattern_of_trust_domains_keeps_those_that_it_means() {
        let aliases = &["new-corp", "old"];
        check(
            "corp",
            aliases,
            &["*-corp/ns/a/sa/b"],
            &["corp/ns/a/sa/b", "*-corp/ns/a/sa/b", "old/ns/a/sa/b"],
        );
        let other = "*-org/ns/a/sa/b";
        check("corp", aliases, &[other], &[other]);
    }

    #[test]
    fn a_trust_domain_is_meant_under_each_name_but_not_by_cluster_local() {
        let condition = |values: &[&str]| {
            let values = || values.iter().map(|text| StringMatch::parse(text)).collect();
            let condition = Condition {
                key: ConditionKey::TrustDomain,
                values: values(),
                not_values: values(),
            };
            let request = RequestMatch {
                conditions: vec![condition],
                ..RequestMatch::default()
            };
            let one = Match {
                request: Some(Arc::new(request)),
                ..Match::default()
            };
            vec![Rule {
                clauses: vec![Clause { matches: vec![one] }],
            }]
        };
        let context = Context {
            trust_domain: "corp".into(),
            trust_domain_aliases: vec!["old".into()],
            ..Context::default()
        };
        for (written, meant) in [
            (&["old"][..], &["corp", "old"][..]),
            (&["corp", "old"], &["corp", "old"]),
            (
                &["cluster.local", "ol*", "other"],
                &["cluster.local", "ol*", "other"],
            ),
        ] {
            assert_eq!(
                under_each_name(condition(written), &context),
                condition(meant)
            );
        }
    }

    #[test]
    fn who_is_of_another_trust_domain_or_of_any_stays_so() {
        let aliases = &["old.example"];
        for other in [
            "other.example/ns/a/sa/b",
            "*",
            "*/sa/b",
            "*/ns/a/sa/b",
            "old.exam*",
            "old.example",
            // Istio replaces only what is written out to the account.
            "old.example/*",
            "old.example/ns/a/*",
        ] {
            check("new.example", aliases, &[other], &[other]);
        }
        let own = "cluster.local/ns/a/sa/b";
        check("cluster.local", &[], &[own], &[own]);
    }
}
