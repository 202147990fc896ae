//! Policies of one kind, found by what they can hold for.
//!
//! A policy that names its clients, their addresses, its ports or its paths one by one holds for
//! nothing else: of a thousand of these, only the ones that name what a connection or a request
//! has are evaluated.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::evaluation::Facts;
use super::{
    Action, Authorization, Clause, Connection, Match, PathPattern, Rule, Scope, StringMatch,
    template,
};
use crate::identity::Identity;
use crate::prefix_index::PrefixIndex;

/// Up to so many are faster evaluated than looked up.
const FEW: usize = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct PolicyList {
    policies: Vec<Arc<Authorization>>,
    /// Where they are in memory.
    known: HashSet<usize>,
    by_client: Index<Client>,
    /// By how the client's principal begins.
    by_prefix: PrefixIndex,
    by_range: Index<IpNet>,
    range_lengths: BTreeSet<u8>,
    by_port: Index<u16>,
    by_path: Index<Arc<str>>,
    by_path_prefix: PrefixIndex,
    /// Positions, ascending, of those in an index of paths.
    for_paths: Vec<usize>,
    /// Positions, ascending, of those that may hold for anything.
    for_anything: Vec<usize>,
}

/// Positions, ascending.
type Index<K> = HashMap<K, Vec<usize>>;

/// Something a connection or a request must have for a policy to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Client(Client),
    Prefix(Arc<str>),
    Range(IpNet),
    Port(u16),
    Path(Arc<str>),
    PathPrefix(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Client {
    Identity(Identity),
    ServiceAccount(Arc<str>, Arc<str>),
    Namespace(Arc<str>),
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
        match policy_keys(policy) {
            Some(keys) => keys.into_iter().for_each(|key| self.index(key, position)),
            None => self.for_anything.push(position),
        }
    }

    fn index(&mut self, key: Key, position: usize) {
        let positions = match key {
            Key::Client(client) => self.by_client.entry(client).or_default(),
            Key::Prefix(prefix) => return self.by_prefix.insert(&prefix, position),
            Key::Range(range) => {
                self.range_lengths.insert(range.prefix_len());
                self.by_range.entry(range).or_default()
            }
            Key::Port(port) => self.by_port.entry(port).or_default(),
            Key::Path(path) => {
                push_once(&mut self.for_paths, position);
                self.by_path.entry(path).or_default()
            }
            Key::PathPrefix(prefix) => {
                push_once(&mut self.for_paths, position);
                return self.by_path_prefix.insert(&prefix, position);
            }
        };
        positions.push(position);
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
        let mut lists = match few {
            true => Vec::new(),
            false => self.positions(facts),
        };
        std::iter::from_fn(move || {
            if let Some(policy) = all.next() {
                return Some(&**policy);
            }
            let first = lists.iter().filter_map(|list| list.first()).min();
            let next = *first?;
            for list in &mut lists {
                if let [first, rest @ ..] = list
                    && *first == next
                {
                    *list = rest;
                }
            }
            Some(&*self.policies[next])
        })
    }

    fn positions(&self, facts: Facts<'_>) -> Vec<&[usize]> {
        let mut lists = vec![&self.for_anything[..]];
        self.add_positions_of_path(facts, &mut lists);
        self.add_positions_of_connection(facts.connection, &mut lists);
        lists
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

    fn add_positions_of_connection<'a>(
        &'a self,
        connection: &Connection,
        lists: &mut Vec<&'a [usize]>,
    ) {
        lists.extend(find(&self.by_port, &connection.destination.port()));
        let source_ip = connection.source_ip.to_canonical();
        let ranges = self.range_lengths.iter();
        let ranges = ranges.filter_map(|length| range(source_ip, *length));
        lists.extend(ranges.filter_map(|range| find(&self.by_range, &range)));
        if let Some(client) = &connection.source_identity {
            self.add_positions_of_client(client, lists);
        }
    }

    fn add_positions_of_client<'a>(&'a self, client: &Identity, lists: &mut Vec<&'a [usize]>) {
        if !self.by_client.is_empty() {
            let (namespace, account) = (client.namespace.clone(), client.service_account.clone());
            let keys = [
                Client::Identity(client.clone()),
                Client::ServiceAccount(namespace.clone(), account),
                Client::Namespace(namespace),
            ];
            lists.extend(keys.iter().filter_map(|key| find(&self.by_client, key)));
        }
        if !self.by_prefix.is_empty() {
            let principal = client.principal();
            lists.extend(self.by_prefix.of(&principal, |_| true));
        }
    }
}

fn find<'a, K: Eq + Hash>(index: &'a Index<K>, key: &K) -> Option<&'a [usize]> {
    index.get(key).map(Vec::as_slice)
}

/// Keeps ascending positions apart.
fn push_once(positions: &mut Vec<usize>, position: usize) {
    if positions.last() != Some(&position) {
        positions.push(position);
    }
}

/// The range of that length around an address.
fn range(address: IpAddr, length: u8) -> Option<IpNet> {
    let range = IpNet::new(address, length).ok()?;
    Some(range.trunc())
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
    if !one.service_accounts.is_empty() {
        let accounts = one.service_accounts.iter();
        let key = |one: &super::ServiceAccountMatch| {
            let (namespace, account) = (one.namespace.clone(), one.service_account.clone());
            Key::Client(Client::ServiceAccount(namespace, account))
        };
        return Some(accounts.map(key).collect());
    }
    let keys = keys_of(&one.principals, principal_key);
    keys.or_else(|| keys_of(&one.namespaces, namespace_key))
        .or_else(|| keys_of(&one.source_ips, |range| Some(Key::Range(range.trunc()))))
        .or_else(|| match policy.scope {
            // Of these it is what the client dialled that counts.
            Scope::Target => None,
            Scope::Global | Scope::Namespace | Scope::WorkloadSelector => {
                keys_of(&one.destination_ports, |port| Some(Key::Port(*port)))
            }
        })
        .or_else(|| keys_of(&one.request.as_ref()?.paths, path_key))
}

/// The keys of values of which one must match, if each has a key and there are some.
fn keys_of<T>(values: &[T], key: impl Fn(&T) -> Option<Key>) -> Option<Vec<Key>> {
    match values.is_empty() {
        true => None,
        false => values.iter().map(key).collect(),
    }
}

fn principal_key(text: &StringMatch) -> Option<Key> {
    match text {
        StringMatch::Exact(exact) => {
            let identity = format!("spiffe://{exact}").parse().ok()?;
            Some(Key::Client(Client::Identity(identity)))
        }
        StringMatch::Prefix(prefix) => Some(Key::Prefix(prefix.clone())),
        StringMatch::Suffix(_) | StringMatch::Presence => None,
    }
}

fn namespace_key(text: &StringMatch) -> Option<Key> {
    match text {
        StringMatch::Exact(exact) => Some(Key::Client(Client::Namespace(exact.clone()))),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
    }
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
