//! Policies of one kind, found by what they can hold for.
//!
//! A policy that names its clients, their addresses, its ports or its paths one by one holds for
//! nothing else: of a thousand of these, only the ones that name what a connection or a request
//! has are evaluated. And one that holds for all but some is not evaluated for these.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::vec;

use super::connection_index::{self, Attributes, ConnectionIndex};
use super::evaluation::Facts;
use super::{
    Action, Authorization, Clause, Connection, Match, PathPattern, Rule, StringMatch, template,
};
use crate::prefix_index::PrefixIndex;

/// Up to so many are faster evaluated than looked up.
const FEW: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct PolicyList {
    policies: Vec<Arc<Authorization>>,
    /// Where they are in memory.
    known: HashSet<usize>,
    by_connection: ConnectionIndex,
    by_path: HashMap<Arc<str>, Vec<usize>>,
    by_path_prefix: PrefixIndex,
    /// Positions, ascending, of those in an index of paths.
    for_paths: Vec<usize>,
    /// Positions, ascending, of those that may hold for anything.
    for_anything: Vec<usize>,
    /// Positions, ascending, of those that may hold for anything but what is in `but_for`.
    for_others: Vec<usize>,
    but_for: ConnectionIndex,
}

/// Something a connection or a request must have for a policy to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Connection(connection_index::Key),
    Path(Arc<str>),
    PathPrefix(Arc<str>),
}

// === impl PolicyList ===

impl PolicyList {
    /// Adds a policy that is not there yet.
    pub(super) fn add(&mut self, policy: &Arc<Authorization>) {
        if !self.known.insert(Arc::as_ptr(policy).addr()) {
            return;
        }
        let position = self.policies.len();
        self.policies.push(policy.clone());
        if let Some(keys) = policy_keys(policy) {
            keys.into_iter().for_each(|key| self.index(key, position));
            return;
        }
        let exceptions = policy_exceptions(policy);
        match exceptions.is_empty() {
            true => self.for_anything.push(position),
            false => self.for_others.push(position),
        }
        for key in exceptions {
            self.but_for.insert(key, position);
        }
    }

    fn index(&mut self, key: Key, position: usize) {
        match key {
            Key::Connection(key) => self.by_connection.insert(key, position),
            Key::Path(path) => {
                push_once(&mut self.for_paths, position);
                self.by_path.entry(path).or_default().push(position);
            }
            Key::PathPrefix(prefix) => {
                push_once(&mut self.for_paths, position);
                self.by_path_prefix.insert(&prefix, position);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.policies.iter()
    }

    /// Those that may hold, in the order in which they were added.
    pub(super) fn candidates<'a>(
        &'a self,
        facts: Facts<'_>,
    ) -> impl Iterator<Item = &'a Authorization> + use<'a> {
        let few = self.policies.len() <= FEW;
        let mut all = self.policies.iter().take(if few { FEW } else { 0 });
        let (mut lists, others) = match few {
            true => Default::default(),
            false => (self.positions(facts), self.others(facts.connection)),
        };
        let mut others = others.into_iter().peekable();
        std::iter::from_fn(move || {
            if let Some(policy) = all.next() {
                return Some(&**policy);
            }
            let first = lists.iter().filter_map(|list| list.first()).min();
            let next = *first.into_iter().chain(others.peek()).min()?;
            for list in &mut lists {
                if let [first, rest @ ..] = list
                    && *first == next
                {
                    *list = rest;
                }
            }
            others.next_if_eq(&next);
            Some(&*self.policies[next])
        })
    }

    fn positions(&self, facts: Facts<'_>) -> Vec<&[usize]> {
        let mut lists = vec![&self.for_anything[..]];
        self.add_positions_of_path(facts, &mut lists);
        self.by_connection.find(facts.connection, &mut lists);
        lists
    }

    /// Those for all others, of which the connection is one.
    fn others(&self, connection: &Connection) -> Vec<usize> {
        let mut others = self.for_others.clone();
        if !others.is_empty() {
            let mut lists = Vec::new();
            self.but_for.find(connection, &mut lists);
            lists.into_iter().for_each(|list| remove(&mut others, list));
        }
        others
    }

    /// Without a request, or where its path can be read in several ways, any path is in doubt.
    fn add_positions_of_path<'a>(&'a self, facts: Facts<'_>, lists: &mut Vec<&'a [usize]>) {
        if self.for_paths.is_empty() {
            return;
        }
        let path = facts.request.map(|request| request.path);
        let Some(path) = path.filter(|path| !facts.others.exist_for(path)) else {
            return lists.push(&self.for_paths);
        };
        lists.extend(self.by_path.get(path).map(Vec::as_slice));
        lists.extend(self.by_path_prefix.of(path, |_| true));
    }
}

/// Keeps ascending positions apart.
fn push_once(positions: &mut Vec<usize>, position: usize) {
    if positions.last() != Some(&position) {
        positions.push(position);
    }
}

/// Takes ascending positions from ascending ones.
fn remove(positions: &mut Vec<usize>, mut removed: &[usize]) {
    positions.retain(|position| {
        while let [first, rest @ ..] = removed
            && first < position
        {
            removed = rest;
        }
        removed.first() != Some(position)
    });
}

/// What a connection or a request must have for the policy to hold; none where it may hold for anything.
fn policy_keys(policy: &Authorization) -> Option<HashSet<Key>> {
    let rules = policy.rules.iter();
    let keys = rules.map(|rule| rule_keys(rule, policy));
    let keys: Option<Vec<Vec<Key>>> = keys.collect();
    Some(keys?.into_iter().flatten().collect())
}

fn rule_keys(rule: &Rule, policy: &Authorization) -> Option<Vec<Key>> {
    let mut clauses = rule.clauses.iter();
    clauses.find_map(|clause| clause_keys(clause, policy))
}

fn clause_keys(clause: &Clause, policy: &Authorization) -> Option<Vec<Key>> {
    if clause.matches.is_empty() {
        return None;
    }
    let keys = clause.matches.iter().map(|one| match_keys(one, policy));
    let keys: Option<Vec<Vec<Key>>> = keys.collect();
    Some(keys?.into_iter().flatten().collect())
}

fn match_keys(one: &Match, policy: &Authorization) -> Option<Vec<Key>> {
    if one.unparsable.is_some() {
        return match policy.action {
            Action::Allow => Some(Vec::new()),
            Action::Deny | Action::Audit => None,
        };
    }
    let mut required = Attributes::required(one, policy.scope).keys();
    let keys = required.find_map(|keys| keys.into_iter().collect::<Option<Vec<_>>>());
    let keys = keys.map(|keys| keys.into_iter().map(Key::Connection).collect());
    keys.or_else(|| {
        let paths = &one.request.as_ref()?.paths;
        let keys = || paths.iter().map(path_key).collect();
        if paths.is_empty() { None } else { keys() }
    })
}

fn path_key(pattern: &PathPattern) -> Option<Key> {
    match pattern {
        PathPattern::Text(StringMatch::Exact(exact)) => Some(Key::Path(exact.clone())),
        PathPattern::Text(StringMatch::Prefix(prefix)) => Some(Key::PathPrefix(prefix.clone())),
        PathPattern::Text(StringMatch::Suffix(_) | StringMatch::Presence) => None,
        PathPattern::Template(template) => {
            let start = template::literal_start(template)?;
            Some(Key::PathPrefix(start.into()))
        }
    }
}

/// What connections have for which the policy certainly does not hold.
fn policy_exceptions(policy: &Authorization) -> HashSet<connection_index::Key> {
    let rules = policy.rules.iter();
    in_each(rules.map(|rule| {
        let clauses = rule.clauses.iter();
        let exceptions = clauses.map(|clause| {
            let matches = clause.matches.iter();
            in_each(matches.map(|one| match_exceptions(one, policy)))
        });
        exceptions.flatten().collect()
    }))
}

fn match_exceptions(one: &Match, policy: &Authorization) -> HashSet<connection_index::Key> {
    // What can't be understood may hold for anything.
    if one.unparsable.is_some() {
        return HashSet::new();
    }
    let excluded = Attributes::excluded(one, policy.scope);
    excluded.keys().flatten().flatten().collect()
}

fn in_each<T: Eq + std::hash::Hash>(mut sets: impl Iterator<Item = HashSet<T>>) -> HashSet<T> {
    let first = sets.next().unwrap_or_default();
    sets.fold(first, |mut all, set| {
        all.retain(|one| set.contains(one));
        all
    })
}
