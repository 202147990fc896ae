//! Which DNS questions the mesh answers, and with what.

use std::net::IpAddr;
use std::sync::Arc;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::service::{IpFamilies, Service};
use crate::snapshot::{ServiceEntry, Snapshot};
use crate::workload::Workload;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    pub namespace: &'a str,
    pub network: &'a str,
    /// The pod's own search domains, in its order.
    pub search: &'a [String],
    /// The cluster's domain, `cluster.local`.
    pub cluster_domain: &'a str,
    /// Answers AAAA when true.
    pub ipv6: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordType {
    A,
    Aaaa,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records for the name, behind a CNAME where a search domain was stripped.
    Records {
        cname: Option<Arc<str>>,
        addresses: Vec<IpAddr>,
    },
    /// The name is the mesh's and has nothing of this type: NOERROR, empty.
    NoData,
    /// Not the mesh's: ask upstream.
    NotOurs,
}

/// Answers a question for `name` (with or without the final dot, any letter case).
pub fn resolve(
    snapshot: &Snapshot,
    client: &Client<'_>,
    name: &str,
    record: RecordType,
    random: &mut impl Rng,
) -> Answer {
    let asked = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let question = Question {
        snapshot,
        client,
        record,
    };
    for candidate in candidates(&asked, client) {
        let Some(found) = question.find(&candidate.name) else {
            continue;
        };
        let addresses = question.addresses(&found, random);
        if addresses.is_empty() {
            return Answer::NoData;
        }
        // A wildcard is no name that an alias could point to.
        let alias = candidate
            .stripped
            .filter(|_| !matches!(found, Found::Wildcard(_)));
        let cname = alias.map(Into::into);
        return Answer::Records { cname, addresses };
    }
    Answer::NotOurs
}

// === Candidates ===

/// A name that the question may mean.
#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    name: String,
    /// What was asked, without a search domain, where one was taken off.
    stripped: Option<String>,
}

/// The name itself and its long forms, then the name without a search domain that the pod's resolver
/// appended. Without the one of its own namespace, which a resolver with `ndots:5` tries first, it may be
/// short still; without another one it was whole: what is left of `mail.corp.test` is no service `mail`.
fn candidates(asked: &str, client: &Client<'_>) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = forms(asked, client)
        .into_iter()
        .map(|name| Candidate {
            name,
            stripped: None,
        })
        .collect();
    let own = format!("{}.svc.{}", client.namespace, client.cluster_domain);
    for search in client.search {
        let search = search.trim_matches('.').to_ascii_lowercase();
        let stripped = asked
            .strip_suffix(search.as_str())
            .and_then(|rest| rest.strip_suffix('.'))
            .filter(|rest| !rest.is_empty() && !search.is_empty());
        let Some(stripped) = stripped else {
            continue;
        };
        let names = match search == own {
            true => forms(stripped, client),
            false => vec![stripped.to_owned()],
        };
        candidates.extend(names.into_iter().map(|name| Candidate {
            name,
            stripped: Some(stripped.to_owned()),
        }));
    }
    candidates
}

/// A name, and what it is short for as Kubernetes' name of a service, by its number of labels.
fn forms(asked: &str, client: &Client<'_>) -> Vec<String> {
    let Client {
        namespace,
        cluster_domain: domain,
        ..
    } = client;
    let labels: Vec<&str> = asked.split('.').collect();
    let mut names = vec![asked.to_owned()];
    match labels[..] {
        [_] => names.push(format!("{asked}.{namespace}.svc.{domain}")),
        [_, _] => {
            names.push(format!("{asked}.svc.{domain}"));
            names.push(format!("{asked}.{namespace}.svc.{domain}"));
        }
        [_, _, last] => {
            if last == "svc" {
                names.push(format!("{asked}.{domain}"));
            }
            names.push(format!("{asked}.svc.{domain}"));
        }
        [_, _, _, "svc"] => names.push(format!("{asked}.{domain}")),
        _ => {}
    }
    names
}

// === Lookup ===

struct Question<'a> {
    snapshot: &'a Snapshot,
    client: &'a Client<'a>,
    record: RecordType,
}

/// What a name stands for.
enum Found<'a> {
    Service(&'a ServiceEntry),
    /// A service whose hostname has `*` in the place of the name's first labels.
    Wildcard(&'a ServiceEntry),
    /// One endpoint of a headless service, as Kubernetes names a StatefulSet's pods.
    Pod(&'a ServiceEntry, &'a Workload),
}

impl<'a> Question<'a> {
    fn find(&self, name: &str) -> Option<Found<'a>> {
        if let Some(entry) = self.service(name) {
            return Some(Found::Service(entry));
        }
        if let Some((pod, service)) = name.split_once('.')
            && let Some(entry) = self.service(service)
            && entry.service.addresses.is_empty()
            && let Some(endpoint) = entry
                .endpoints
                .iter()
                .find(|endpoint| endpoint.workload.name().eq_ignore_ascii_case(pod))
        {
            return Some(Found::Pod(entry, &endpoint.workload));
        }
        let mut parent = name;
        while let Some((_, rest)) = parent.split_once('.') {
            if let Some(entry) = self.service(&format!("*.{rest}")) {
                return Some(Found::Wildcard(entry));
            }
            parent = rest;
        }
        None
    }

    /// A service that the mesh answers for: one with a virtual address, or a headless one of
    /// the cluster. Any other is only known by name here and has its addresses in real DNS.
    fn service(&self, hostname: &str) -> Option<&'a ServiceEntry> {
        let entry = self
            .snapshot
            .service_named(hostname, self.client.namespace)?;
        let headless = || {
            hostname
                .strip_suffix(self.client.cluster_domain)
                .is_some_and(|rest| rest.ends_with(".svc."))
        };
        (!entry.service.addresses.is_empty() || headless()).then_some(entry)
    }

    fn addresses(&self, found: &Found<'_>, random: &mut impl Rng) -> Vec<IpAddr> {
        match found {
            Found::Service(entry) | Found::Wildcard(entry)
                if !entry.service.addresses.is_empty() =>
            {
                let vips = entry.service.addresses.iter();
                vips.filter(|vip| *vip.network == *self.client.network)
                    .map(|vip| vip.address)
                    .filter(|address| self.admits(&entry.service, address))
                    .collect()
            }
            Found::Service(entry) | Found::Wildcard(entry) => {
                let endpoints = entry.endpoints.iter();
                let mut addresses: Vec<IpAddr> = endpoints
                    .filter_map(|endpoint| self.address_of(&entry.service, &endpoint.workload))
                    .collect();
                addresses.shuffle(random);
                addresses
            }
            Found::Pod(entry, workload) => self
                .address_of(&entry.service, workload)
                .into_iter()
                .collect(),
        }
    }

    /// The first address of the record's family.
    fn address_of(&self, service: &Service, workload: &Workload) -> Option<IpAddr> {
        let mut addresses = workload.addresses.iter();
        addresses
            .find(|address| self.admits(service, address))
            .filter(|_| *workload.network == *self.client.network)
            .copied()
    }

    fn admits(&self, service: &Service, address: &IpAddr) -> bool {
        let families = service.ip_families;
        match self.record {
            RecordType::A => address.is_ipv4() && families != IpFamilies::Ipv6Only,
            RecordType::Aaaa => {
                address.is_ipv6() && families != IpFamilies::Ipv4Only && self.client.ipv6
            }
        }
    }
}

#[cfg(test)]
mod tests;
