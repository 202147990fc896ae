//! Positions of policies by what a connection must have to be looked up there.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::{Connection, Match, Scope, ServiceAccountMatch, StringMatch};
use crate::identity::Identity;
use crate::prefix_index::PrefixIndex;

#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionIndex {
    by_client: HashMap<Client, Vec<usize>>,
    by_principal: ByText,
    by_namespace: ByText,
    by_range: HashMap<IpNet, Vec<usize>>,
    range_lengths: BTreeSet<u8>,
    by_port: HashMap<u16, Vec<usize>>,
}

/// Something a connection has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Client(Client),
    Principal(End),
    Namespace(End),
    Range(IpNet),
    Port(u16),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    Identity(Identity),
    ServiceAccount(Arc<str>, Arc<str>),
    Namespace(Arc<str>),
}

/// Of a text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    Prefix(Arc<str>),
    Suffix(Arc<str>),
}

/// Positions by how a text begins or ends.
#[derive(Clone, Debug, Default)]
struct ByText {
    prefixes: PrefixIndex,
    /// Of the text read backwards.
    suffixes: PrefixIndex,
}

/// The attributes of a match that a connection alone decides on, or their negations.
pub(super) struct Attributes<'a> {
    pub(super) service_accounts: &'a [ServiceAccountMatch],
    pub(super) principals: &'a [StringMatch],
    pub(super) namespaces: &'a [StringMatch],
    pub(super) source_ips: &'a [IpNet],
    pub(super) destination_ports: &'a [u16],
}

// === impl ConnectionIndex ===

impl ConnectionIndex {
    pub(super) fn insert(&mut self, key: Key, position: usize) {
        let positions = match key {
            Key::Client(client) => self.by_client.entry(client).or_default(),
            Key::Principal(end) => return self.by_principal.insert(&end, position),
            Key::Namespace(end) => return self.by_namespace.insert(&end, position),
            Key::Range(range) => {
                self.range_lengths.insert(range.prefix_len());
                self.by_range.entry(range).or_default()
            }
            Key::Port(port) => self.by_port.entry(port).or_default(),
        };
        positions.push(position);
    }

    /// Adds the positions, in ascending lists, of all that the connection has.
    pub(super) fn find<'a>(&'a self, connection: &Connection, lists: &mut Vec<&'a [usize]>) {
        lists.extend(of(&self.by_port, &connection.destination.port()));
        let source_ip = connection.source_ip.to_canonical();
        let ranges = self.range_lengths.iter();
        let ranges = ranges.filter_map(|length| range(source_ip, *length));
        lists.extend(ranges.filter_map(|range| of(&self.by_range, &range)));
        if let Some(client) = &connection.source_identity {
            self.find_client(client, lists);
        }
    }

    fn find_client<'a>(&'a self, client: &Identity, lists: &mut Vec<&'a [usize]>) {
        if !self.by_client.is_empty() {
            let (namespace, account) = (client.namespace.clone(), client.service_account.clone());
            let keys = [
                Client::Identity(client.clone()),
                Client::ServiceAccount(namespace.clone(), account),
                Client::Namespace(namespace),
            ];
            lists.extend(keys.iter().filter_map(|key| of(&self.by_client, key)));
        }
        self.by_namespace
            .find(|| (&*client.namespace).into(), lists);
        self.by_principal.find(|| client.principal().into(), lists);
    }
}

fn of<'a, K: Eq + Hash>(index: &'a HashMap<K, Vec<usize>>, key: &K) -> Option<&'a [usize]> {
    index.get(key).map(Vec::as_slice)
}

/// The range of that length around an address.
fn range(address: IpAddr, length: u8) -> Option<IpNet> {
    let range = IpNet::new(address, length).ok()?;
    Some(range.trunc())
}

// === impl ByText ===

impl ByText {
    fn insert(&mut self, end: &End, position: usize) {
        match end {
            End::Prefix(prefix) => self.prefixes.insert(prefix, position),
            End::Suffix(suffix) => self.suffixes.insert(&backwards(suffix), position),
        }
    }

    fn find<'a, 't>(&'a self, text: impl FnOnce() -> Cow<'t, str>, lists: &mut Vec<&'a [usize]>) {
        if self.prefixes.is_empty() && self.suffixes.is_empty() {
            return;
        }
        let text = text();
        lists.extend(self.prefixes.of(&text, |_| true));
        if !self.suffixes.is_empty() {
            lists.extend(self.suffixes.of(&backwards(&text), |_| true));
        }
    }
}

fn backwards(text: &str) -> String {
    text.chars().rev().collect()
}

// === impl Attributes ===

impl<'a> Attributes<'a> {
    /// What must hold.
    pub(super) fn required(one: &'a Match, scope: Scope) -> Self {
        Self {
            service_accounts: &one.service_accounts,
            principals: &one.principals,
            namespaces: &one.namespaces,
            source_ips: &one.source_ips,
            destination_ports: of_connection(scope, &one.destination_ports),
        }
    }

    /// What must not.
    pub(super) fn excluded(one: &'a Match, scope: Scope) -> Self {
        Self {
            service_accounts: &one.not_service_accounts,
            principals: &one.not_principals,
            namespaces: &one.not_namespaces,
            source_ips: &one.not_source_ips,
            destination_ports: of_connection(scope, &one.not_destination_ports),
        }
    }

    /// For each attribute with values, the keys of these; none for a value that has no key.
    pub(super) fn keys(self) -> impl Iterator<Item = Vec<Option<Key>>> {
        let keys = [
            self.service_accounts.iter().map(account_key).collect(),
            self.principals.iter().map(principal_key).collect(),
            self.namespaces.iter().map(namespace_key).collect(),
            self.source_ips.iter().map(range_key).collect(),
            self.destination_ports
                .iter()
                .map(port_key)
                .collect::<Vec<_>>(),
        ];
        keys.into_iter().filter(|keys| !keys.is_empty())
    }
}

/// For policies of targets it is what the client dialled that counts.
fn of_connection(scope: Scope, ports: &[u16]) -> &[u16] {
    match scope {
        Scope::Target => &[],
        Scope::Global | Scope::Namespace | Scope::WorkloadSelector => ports,
    }
}

fn account_key(one: &ServiceAccountMatch) -> Option<Key> {
    let (namespace, account) = (one.namespace.clone(), one.service_account.clone());
    Some(Key::Client(Client::ServiceAccount(namespace, account)))
}

fn principal_key(text: &StringMatch) -> Option<Key> {
    match text {
        StringMatch::Exact(exact) => {
            let identity = format!("spiffe://{exact}").parse().ok()?;
            Some(Key::Client(Client::Identity(identity)))
        }
        other => end(other).map(Key::Principal),
    }
}

fn namespace_key(text: &StringMatch) -> Option<Key> {
    match text {
        StringMatch::Exact(exact) => Some(Key::Client(Client::Namespace(exact.clone()))),
        other => end(other).map(Key::Namespace),
    }
}

fn end(text: &StringMatch) -> Option<End> {
    match text {
        StringMatch::Prefix(prefix) => Some(End::Prefix(prefix.clone())),
        StringMatch::Suffix(suffix) => Some(End::Suffix(suffix.clone())),
        StringMatch::Exact(_) | StringMatch::Presence => None,
    }
}

fn range_key(range: &IpNet) -> Option<Key> {
    Some(Key::Range(range.trunc()))
}

fn port_key(port: &u16) -> Option<Key> {
    Some(Key::Port(*port))
}
