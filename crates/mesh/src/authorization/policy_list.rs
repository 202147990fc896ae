//! Policies of one kind, found by whom they can hold for.
//!
//! A policy that names its sources one by one holds for nobody else: of a thousand of these, only
//! the ones that name the client are evaluated.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Action, Authorization, Clause, Match, Rule, StringMatch};
use crate::identity::Identity;

/// Up to so many are faster evaluated than looked up.
const FEW: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct PolicyList {
    policies: Vec<Arc<Authorization>>,
    /// Positions, ascending.
    by_source: HashMap<Source, Vec<usize>>,
    /// Positions, ascending, of those that may hold for anyone.
    for_anyone: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Identity(Identity),
    ServiceAccount(Arc<str>, Arc<str>),
    Namespace(Arc<str>),
}

// === impl PolicyList ===

impl PolicyList {
    /// Adds a policy that is not there yet.
    pub(super) fn add(&mut self, policy: &Arc<Authorization>) {
        if self.iter().any(|known| Arc::ptr_eq(known, policy)) {
            return;
        }
        let position = self.policies.len();
        self.policies.push(policy.clone());
        match policy_sources(policy) {
            Some(sources) => {
                for source in sources {
                    self.by_source.entry(source).or_default().push(position);
                }
            }
            None => self.for_anyone.push(position),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.policies.iter()
    }

    /// Those that may hold for a client, in the order in which they were added.
    pub(super) fn candidates(
        &self,
        client: Option<&Identity>,
    ) -> impl Iterator<Item = &Authorization> {
        let few = self.policies.len() <= FEW;
        let mut all = self.policies.iter().take(if few { FEW } else { 0 });
        let mut positions = match few {
            true => [&[][..]; 4],
            false => self.positions(client),
        };
        std::iter::from_fn(move || {
            if let Some(policy) = all.next() {
                return Some(&**policy);
            }
            let first = positions.iter().filter_map(|list| list.first()).min();
            let next = *first?;
            for list in &mut positions {
                if let [first, rest @ ..] = list
                    && *first == next
                {
                    *list = rest;
                }
            }
            Some(&*self.policies[next])
        })
    }

    fn positions(&self, client: Option<&Identity>) -> [&[usize]; 4] {
        let Some(client) = client.filter(|_| !self.by_source.is_empty()) else {
            return [&self.for_anyone, &[], &[], &[]];
        };
        let of = |source| self.by_source.get(&source).map_or(&[][..], Vec::as_slice);
        let (namespace, account) = (client.namespace.clone(), client.service_account.clone());
        [
            &self.for_anyone,
            of(Source::Identity(client.clone())),
            of(Source::ServiceAccount(namespace.clone(), account)),
            of(Source::Namespace(namespace)),
        ]
    }
}

/// Everyone a policy can hold for; none where that can be anyone.
fn policy_sources(policy: &Authorization) -> Option<HashSet<Source>> {
    let sources = policy
        .rules
        .iter()
        .map(|rule| rule_sources(rule, policy.action));
    let sources: Option<Vec<Vec<Source>>> = sources.collect();
    Some(sources?.into_iter().flatten().collect())
}

fn rule_sources(rule: &Rule, action: Action) -> Option<Vec<Source>> {
    let mut clauses = rule.clauses.iter();
    clauses.find_map(|clause| clause_sources(clause, action))
}

fn clause_sources(clause: &Clause, action: Action) -> Option<Vec<Source>> {
    if clause.matches.is_empty() {
        return None;
    }
    let sources = clause.matches.iter().map(|one| match_sources(one, action));
    let sources: Option<Vec<Vec<Source>>> = sources.collect();
    Some(sources?.into_iter().flatten().collect())
}

fn match_sources(one: &Match, action: Action) -> Option<Vec<Source>> {
    if one.unparsable.is_some() {
        return match action {
            Action::Allow => Some(Vec::new()),
            Action::Deny | Action::Audit => None,
        };
    }
    if !one.service_accounts.is_empty() {
        let accounts = one.service_accounts.iter();
        let source = |one: &super::ServiceAccountMatch| {
            Source::ServiceAccount(one.namespace.clone(), one.service_account.clone())
        };
        return Some(accounts.map(source).collect());
    }
    let identity = |text: &Arc<str>| {
        let identity = format!("spiffe://{text}").parse().ok()?;
        Some(Source::Identity(identity))
    };
    exact(&one.principals, identity).or_else(|| {
        exact(&one.namespaces, |text| {
            Some(Source::Namespace(text.clone()))
        })
    })
}

/// The sources that exact texts name, if they all are and there are some.
fn exact(
    texts: &[StringMatch],
    source: impl Fn(&Arc<str>) -> Option<Source>,
) -> Option<Vec<Source>> {
    if texts.is_empty() {
        return None;
    }
    let sources = texts.iter().map(|text| match text {
        StringMatch::Exact(exact) => source(exact),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
    });
    sources.collect()
}
