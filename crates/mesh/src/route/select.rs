//! Which rule of which route decides about a request or a connection to a port of a service.
//!
//! A [`RouteTable`] is made once per snapshot, service, port and namespace of the clients, and
//! asked per request.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::matching::Precedence;
use super::{HttpMatch, HttpRule, PathMatch, Route, RouteKey, RouteKind, RouteRules, TcpRule};
use crate::address::NamespacedHostname;
use crate::prefix_index::PrefixIndex;
use crate::request::Request;
use crate::snapshot::Snapshot;

/// What routes say about one port of one service, to clients of one namespace.
#[derive(Clone, Debug)]
pub enum RouteTable {
    /// No route is attached: the service's own endpoints serve.
    Unrouted,
    Http(HttpTable),
    /// Connections are routed, whatever they carry.
    Tcp(TcpSelected),
}

/// Every match of every rule, most specific first, found by path.
#[derive(Clone, Debug)]
pub struct HttpTable {
    entries: Vec<Entry>,
    exact: HashMap<Arc<str>, Vec<usize>>,
    /// Without slashes at their ends.
    segment_prefixes: PrefixIndex,
    string_prefixes: PrefixIndex,
    /// What may hold for any path.
    others: Vec<usize>,
}

/// One match of one rule.
#[derive(Clone, Debug)]
struct Entry {
    route: Arc<Route>,
    rule: usize,
    /// None: a rule without matches, which takes everything.
    at: Option<usize>,
    name: Arc<str>,
}

/// What decides about a request.
#[derive(Clone, Copy, Debug)]
pub enum Selection<'a> {
    Rule(Selected<'a>),
    /// Routes are attached and none is about the request: 404.
    NoMatch,
}

/// A rule, and what of it matched.
#[derive(Clone, Copy, Debug)]
pub struct Selected<'a> {
    pub route: &'a Arc<Route>,
    /// Of the rule, in its route.
    pub index: usize,
    pub rule: &'a HttpRule,
    /// The rule's own name after its route's, or where it is in its route; for logs.
    pub name: &'a Arc<str>,
    /// What rewrites and redirects of prefixes go by.
    pub path: Option<&'a PathMatch>,
}

/// The one rule that decides about connections.
#[derive(Clone, Debug)]
pub struct TcpSelected {
    /// The oldest one attached.
    pub route: Arc<Route>,
    /// Of the rule, in its route.
    pub index: usize,
    pub rule: TcpRule,
}

// === impl RouteTable ===

impl RouteTable {
    /// Routes of the clients' namespace win over the service's own; of what is left, the kind
    /// that is first in [`RouteKind`] decides alone (GEP-1294).
    pub fn new(
        snapshot: &Snapshot,
        service: &NamespacedHostname,
        port: u16,
        client_namespace: &str,
    ) -> Self {
        let attached = |clients: Option<&str>| -> Vec<&Arc<Route>> {
            let routes = snapshot.routes_of(service).iter();
            routes
                .filter(|route| {
                    route.parents.iter().any(|parent| {
                        parent.service == *service
                            && parent.port.is_none_or(|only| only == port)
                            && parent.clients.as_deref() == clients
                    })
                })
                .collect()
        };
        let consumer = attached(Some(client_namespace));
        let routes = if consumer.is_empty() {
            attached(None)
        } else {
            consumer
        };
        let Some(kind) = routes.iter().map(|route| route.key.kind).min() else {
            return Self::Unrouted;
        };
        let routes = routes.into_iter().filter(|route| route.key.kind == kind);
        match kind {
            RouteKind::Grpc | RouteKind::Http | RouteKind::VirtualService => {
                Self::Http(HttpTable::new(routes))
            }
            RouteKind::Tls | RouteKind::Tcp => routes
                .min_by_key(|route| (route.created, &route.key))
                .map_or(Self::Unrouted, |route| Self::Tcp(TcpSelected::first(route))),
        }
    }
}

// === impl HttpTable ===

impl HttpTable {
    fn new<'a>(routes: impl Iterator<Item = &'a Arc<Route>>) -> Self {
        let mut entries: Vec<Entry> = routes.flat_map(entries).collect();
        entries.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut table = Self {
            entries: Vec::new(),
            exact: HashMap::new(),
            segment_prefixes: PrefixIndex::default(),
            string_prefixes: PrefixIndex::default(),
            others: Vec::new(),
        };
        for (at, entry) in entries.iter().enumerate() {
            match entry.path() {
                Some(PathMatch::Exact(path)) => {
                    table.exact.entry(path.clone()).or_default().push(at);
                }
                Some(PathMatch::PathPrefix(prefix)) => {
                    let segments = prefix.strip_suffix('/').unwrap_or(prefix);
                    table.segment_prefixes.insert(segments, at);
                }
                Some(PathMatch::StringPrefix(prefix)) => table.string_prefixes.insert(prefix, at),
                Some(PathMatch::RegularExpression(_)) | None => table.others.push(at),
            }
        }
        table.entries = entries;
        table
    }

    /// The rule of the most specific match that holds.
    pub fn select(&self, request: &Request<'_>) -> Selection<'_> {
        let path = request.path;
        let ends_segment = |length: usize| {
            let next = path.as_bytes().get(length);
            next == Some(&b'/') || (next.is_none() && length > 0)
        };
        let exact = self.exact.get(path).map(Vec::as_slice).into_iter();
        let segments = self.segment_prefixes.of(path, ends_segment);
        let strings = self.string_prefixes.of(path, |_| true);
        let by_path = exact
            .chain(segments)
            .chain(strings)
            .fold(None, |best, list| {
                self.better(best, list, |of| of.matches_besides_path(request))
            });
        self.better(by_path, &self.others, |of| of.matches(request))
            .map_or(Selection::NoMatch, |at| {
                Selection::Rule(self.entries[at].selected())
            })
    }

    /// The first of an ascending list that holds, where it goes before the best so far.
    fn better(
        &self,
        best: Option<usize>,
        list: &[usize],
        holds: impl Fn(&HttpMatch) -> bool,
    ) -> Option<usize> {
        list.iter()
            .copied()
            .take_while(|at| best.is_none_or(|best| *at < best))
            .find(|at| self.entries[*at].http_match().is_none_or(&holds))
            .or(best)
    }
}

/// Every match of a route's rules.
fn entries(route: &Arc<Route>) -> Vec<Entry> {
    let RouteRules::Http(rules) = &route.rules else {
        return Vec::new();
    };
    let matches = |rule: &HttpRule| match rule.matches.len() {
        0 => vec![None],
        amount => (0..amount).map(Some).collect(),
    };
    let numbered = rules.iter().enumerate();
    numbered
        .flat_map(|(rule, of)| matches(of).into_iter().map(move |at| (rule, at)))
        .map(|(rule, at)| Entry {
            route: route.clone(),
            rule,
            at,
            name: name(route, rule, rules.len()),
        })
        .collect()
}

fn name(route: &Route, rule: usize, rules: usize) -> Arc<str> {
    let RouteKey {
        namespace, name, ..
    } = &route.key;
    let own = match &route.rules {
        RouteRules::Http(rules) => rules.get(rule).and_then(|rule| rule.name.as_ref()),
        RouteRules::Tcp(_) => None,
    };
    match own {
        Some(own) => format!("{namespace}.{name}.{own}").into(),
        None if rules == 1 => format!("{namespace}.{name}").into(),
        None => format!("{namespace}.{name}.{rule}").into(),
    }
}

// === impl Entry ===

impl Entry {
    fn rule(&self) -> &HttpRule {
        match &self.route.rules {
            RouteRules::Http(rules) => &rules[self.rule],
            RouteRules::Tcp(_) => unreachable!("entries are made of HTTP rules"),
        }
    }

    fn http_match(&self) -> Option<&HttpMatch> {
        self.at.map(|at| &self.rule().matches[at])
    }

    fn path(&self) -> Option<&PathMatch> {
        self.http_match().and_then(|of| of.path.as_ref())
    }

    fn selected(&self) -> Selected<'_> {
        Selected {
            route: &self.route,
            index: self.rule,
            rule: self.rule(),
            name: &self.name,
            path: self.path(),
        }
    }

    /// Least first: the most specific match, of the oldest route, the first by name, its first
    /// rule.
    fn rank(&self) -> (Reverse<Precedence>, i64, &RouteKey, usize, Option<usize>) {
        let everything = HttpMatch::default();
        let of = self.http_match().unwrap_or(&everything);
        let key = &self.route.key;
        let precedence = Reverse(of.precedence(key.kind));
        (precedence, self.route.created, key, self.rule, self.at)
    }
}

// === impl TcpSelected ===

impl TcpSelected {
    /// A rule of TCPRoute takes every connection, so that the first one decides. Where there is
    /// none, there is no backend either.
    fn first(route: &Arc<Route>) -> Self {
        let rule = match &route.rules {
            RouteRules::Tcp(rules) => rules.first().cloned(),
            RouteRules::Http(_) => None,
        };
        Self {
            route: route.clone(),
            index: 0,
            rule: rule.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
