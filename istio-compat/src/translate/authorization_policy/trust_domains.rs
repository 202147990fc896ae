//! The names of the mesh's trust domain: who is named under one of them is meant under all.
//!
//! `cluster.local` is such a name whatever the trust domain is, as in Istio, so that policies can be
//! written without knowing it.

use mesh::authorization::{Rule, StringMatch};
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
            let mut meant = Vec::with_capacity(principals.len());
            for principal in principals.iter().flat_map(|one| meant_by(one, &names)) {
                if !meant.contains(&principal) {
                    meant.push(principal);
                }
            }
            *principals = meant;
        }
    }
    rules
}

fn meant_by(principal: &StringMatch, names: &[&str]) -> Vec<StringMatch> {
    let (text, make): (_, fn(String) -> StringMatch) = match principal {
        StringMatch::Exact(text) => (text, |text| StringMatch::Exact(text.into())),
        StringMatch::Prefix(text) => (text, |text| StringMatch::Prefix(text.into())),
        StringMatch::Suffix(_) | StringMatch::Presence => return vec![principal.clone()],
    };
    match text.split_once('/') {
        Some((domain, rest)) if domain == DEFAULT_TRUST_DOMAIN || names.contains(&domain) => names
            .iter()
            .map(|name| make(format!("{name}/{rest}")))
            .collect(),
        Some(_) | None => vec![principal.clone()],
    }
}

#[cfg(test)]
mod tests {
    use mesh::authorization::{Clause, Match};

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
            "new.example/ns/a/*",
            "old.example/ns/a/*",
            "older.example/ns/a/*",
        ];
        check("new.example", aliases, &["old.example/ns/a/*"], prefixes);
    }

    #[test]
    fn who_is_of_another_trust_domain_or_of_any_stays_so() {
        let aliases = &["old.example"];
        for other in [
            "other.example/ns/a/sa/b",
            "*",
            "*/sa/b",
            "old.exam*",
            "old.example",
        ] {
            check("new.example", aliases, &[other], &[other]);
        }
        let own = "cluster.local/ns/a/sa/b";
        check("cluster.local", &[], &[own], &[own]);
    }
}
