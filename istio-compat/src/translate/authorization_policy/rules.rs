//! The rules of an AuthorizationPolicy, as far as the node can know a connection:
//! identities, addresses and ports.
//!
//! What needs HTTP never widens access silently: an ALLOW rule with such an attribute is
//! left out, a DENY rule loses the attribute and denies more, and the status says so.

use std::collections::BTreeSet;

use mesh::authorization::{
    Action as MeshAction, Clause, Match, Rule as MeshRule, ServiceAccountMatch, StringMatch,
};

use crate::kinds::authorization_policy::{Condition, Operation, Rule, Source};

/// What the node can't enforce and how that was met.
#[derive(Default)]
pub(super) struct Losses {
    pub(super) attributes: BTreeSet<String>,
    /// A DENY match of which nothing was left.
    pub(super) emptied: bool,
    /// A DENY match that now denies everyone.
    pub(super) widened: bool,
}

/// None where an ALLOW rule must be left out.
pub(super) fn translate(
    action: MeshAction,
    namespace: &str,
    rule: &Rule,
    losses: &mut Losses,
) -> Option<MeshRule> {
    let mut lost = Losses::default();
    let mut clauses = Vec::new();
    if !rule.from.is_empty() {
        let matches = rule.from.iter().map(|from| {
            let (mut one, beyond, trust) = source(namespace, &from.source);
            lost.finish(&mut one, beyond, trust);
            one
        });
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    if !rule.to.is_empty() {
        let matches = rule.to.iter().map(|to| {
            let (mut one, beyond) = operation(&to.operation);
            lost.finish(&mut one, beyond, Vec::new());
            one
        });
        clauses.push(Clause {
            matches: matches.collect(),
        });
    }
    for when in &rule.when {
        let (mut one, beyond, trust) = condition(when);
        lost.finish(&mut one, beyond, trust);
        clauses.push(Clause { matches: vec![one] });
    }
    let any = !lost.attributes.is_empty();
    losses.attributes.extend(lost.attributes);
    match action {
        MeshAction::Allow if any => None,
        MeshAction::Allow => Some(MeshRule { clauses }),
        MeshAction::Deny | MeshAction::Audit => {
            losses.emptied |= lost.emptied;
            losses.widened |= lost.widened;
            Some(MeshRule { clauses })
        }
    }
}

impl Losses {
    /// Notes what a match lost. One that was about trust domains alone matches everyone,
    /// so that a DENY rule still denies; of HTTP attributes alone an empty match is left,
    /// which never holds, as Istio has it.
    fn finish(&mut self, one: &mut Match, beyond: Vec<String>, trust: Vec<String>) {
        let nothing_left = *one == Match::default();
        if nothing_left && !trust.is_empty() {
            one.source_ips = everywhere();
            self.widened = true;
        } else if nothing_left && !beyond.is_empty() {
            self.emptied = true;
        }
        self.attributes.extend(beyond);
        self.attributes.extend(trust);
    }
}

fn everywhere() -> Vec<ipnet::IpNet> {
    vec![
        ipnet::Ipv4Net::default().into(),
        ipnet::Ipv6Net::default().into(),
    ]
}

type Beyond = Vec<String>;

/// The match, and the attributes it can't hold: those of HTTP, and of trust domains.
pub(super) fn source(namespace: &str, source: &Source) -> (Match, Beyond, Beyond) {
    let mut one = Match {
        namespaces: strings(&source.namespaces),
        not_namespaces: strings(&source.not_namespaces),
        principals: strings(&source.principals),
        not_principals: strings(&source.not_principals),
        service_accounts: accounts(namespace, &source.service_accounts),
        not_service_accounts: accounts(namespace, &source.not_service_accounts),
        ..Match::default()
    };
    one.source_ips = networks(&mut one, &source.ip_blocks);
    one.not_source_ips = networks(&mut one, &source.not_ip_blocks);
    let beyond = set([
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ]);
    let trust = set([
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ]);
    (one, beyond, trust)
}

pub(super) fn operation(operation: &Operation) -> (Match, Beyond) {
    let mut one = Match::default();
    one.destination_ports = ports(&mut one, &operation.ports);
    one.not_destination_ports = ports(&mut one, &operation.not_ports);
    let beyond = set([
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ]);
    (one, beyond)
}

pub(super) fn condition(condition: &Condition) -> (Match, Beyond, Beyond) {
    let (values, not_values) = (&condition.values, &condition.not_values);
    let mut one = Match::default();
    let (mut beyond, mut trust) = (Vec::new(), Vec::new());
    match condition.key.as_str() {
        "source.ip" => {
            one.source_ips = networks(&mut one, values);
            one.not_source_ips = networks(&mut one, not_values);
        }
        "destination.ip" => {
            one.destination_ips = networks(&mut one, values);
            one.not_destination_ips = networks(&mut one, not_values);
        }
        "destination.port" => {
            one.destination_ports = ports(&mut one, values);
            one.not_destination_ports = ports(&mut one, not_values);
        }
        "source.namespace" => {
            one.namespaces = strings(values);
            one.not_namespaces = strings(not_values);
        }
        "source.principal" => {
            one.principals = strings(values);
            one.not_principals = strings(not_values);
        }
        "source.trustDomain" => trust.push(condition.key.clone()),
        key => beyond.push(key.to_owned()),
    }
    (one, beyond, trust)
}

/// The names of the attributes that are set.
fn set<const N: usize>(attributes: [(&str, &Vec<String>); N]) -> Vec<String> {
    attributes
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, _)| name.to_owned())
        .collect()
}

pub(super) fn strings(values: &[String]) -> Vec<StringMatch> {
    values
        .iter()
        .map(|value| StringMatch::parse(value))
        .collect()
}

/// `namespace/name`, or `name` in the policy's own namespace.
pub(super) fn accounts(namespace: &str, values: &[String]) -> Vec<ServiceAccountMatch> {
    values
        .iter()
        .map(|value| {
            let (namespace, account) = value.split_once('/').unwrap_or((namespace, value));
            ServiceAccountMatch {
                namespace: namespace.into(),
                service_account: account.into(),
            }
        })
        .collect()
}

/// Validation refuses what is no range; an object that was never validated is marked.
pub(super) fn networks(one: &mut Match, values: &[String]) -> Vec<ipnet::IpNet> {
    let parse = |text: &String| {
        let address = || text.parse::<std::net::IpAddr>().map(Into::into);
        text.parse().or_else(|_| address()).ok()
    };
    entries(one, values, |text| {
        parse(text).map(|net: ipnet::IpNet| net.trunc())
    })
}

fn ports(one: &mut Match, values: &[String]) -> Vec<u16> {
    entries(one, values, |text| text.parse().ok())
}

fn entries<T>(one: &mut Match, values: &[String], parse: impl Fn(&String) -> Option<T>) -> Vec<T> {
    values
        .iter()
        .filter_map(|text| {
            let entry = parse(text);
            if entry.is_none() {
                one.unparsable = Some(text.as_str().into());
            }
            entry
        })
        .collect()
}
