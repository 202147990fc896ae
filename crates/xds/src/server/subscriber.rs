//! What one client has, and what to tell it next: the server's half of delta xDS as values.
//!
//! ```text
//!             request            next(): something to say
//!  (unknown) ────────▶ watching ──────────────────────────▶ awaiting the nonce
//!                         ▲                                        │
//!                         └────────── ACK or NACK of it ───────────┘
//! ```
//!
//! While an answer is outstanding nothing more of the type is sent, so that a slow client is
//! told the latest state once instead of every state in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use imbl::ordmap::DiffItem;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::peers::{Nack, TypeStatus};
use super::resources::{Group, Resource, ResourceSet, Resources};
use crate::resource_type::ResourceType;

const WILDCARD: &str = "*";

/// One client's subscriptions.
#[derive(Debug)]
pub struct Subscriber {
    /// The node whose pods an on-demand client needs without asking.
    node: String,
    watches: BTreeMap<ResourceType, Watch>,
    /// Types we don't serve, to be answered with nothing: a client may wait for an answer.
    unknown: Vec<String>,
    nonce: u64,
}

#[derive(Debug)]
struct Watch {
    interest: Interest,
    /// The response that was not answered yet.
    outstanding: Option<Outstanding>,
    /// Answered even when there is nothing to say.
    answer_due: bool,
    status: TypeStatus,
}

#[derive(Debug)]
struct Outstanding {
    nonce: String,
    generation: u64,
}

#[derive(Debug)]
enum Interest {
    /// Everything. Until the first response the client has what it says, then what was sent.
    Wildcard(Has),
    OnDemand {
        names: BTreeSet<String>,
        /// Names asked for and not yet answered.
        asked: BTreeSet<String>,
        /// Versions by name.
        has: BTreeMap<Arc<str>, Arc<str>>,
    },
}

#[derive(Debug)]
enum Has {
    Told(BTreeMap<String, String>),
    Sent(Resources),
}

/// What a response carries.
#[derive(Default)]
struct Difference {
    resources: Vec<proto::discovery::Resource>,
    removed: Vec<String>,
}

// === impl Subscriber ===

impl Subscriber {
    pub fn new(node: String) -> Self {
        Self {
            node,
            watches: BTreeMap::new(),
            unknown: Vec::new(),
            nonce: 0,
        }
    }

    /// Takes a request in: a subscription, an acknowledgement, or both.
    pub fn receive(&mut self, request: DeltaDiscoveryRequest, now: SystemTime) {
        let Some(resource_type) = ResourceType::from_url(&request.type_url) else {
            if request.response_nonce.is_empty() {
                self.unknown.push(request.type_url);
            }
            return;
        };
        match self.watches.get_mut(&resource_type) {
            None => {
                self.watches.insert(resource_type, Watch::new(request));
            }
            Some(watch) => {
                watch.acknowledge(&request, now);
                watch.interest.change(request);
            }
        }
    }

    /// The next response, if there is anything to say. Call again until there is not.
    pub fn next(&mut self, resources: &ResourceSet) -> Option<DeltaDiscoveryResponse> {
        if let Some(type_url) = self.unknown.pop() {
            self.nonce += 1;
            return Some(DeltaDiscoveryResponse {
                type_url,
                nonce: self.nonce.to_string(),
                ..Default::default()
            });
        }
        // Addresses come first by order: a policy is of no use before its workloads.
        for (resource_type, watch) in &mut self.watches {
            if watch.outstanding.is_some() {
                continue;
            }
            let difference = watch
                .interest
                .difference(*resource_type, resources, &self.node);
            if difference.is_empty() && !watch.answer_due {
                continue;
            }
            self.nonce += 1;
            return Some(watch.respond(
                *resource_type,
                difference,
                self.nonce.to_string(),
                resources.generation(),
            ));
        }
        None
    }

    pub fn status(&self) -> BTreeMap<ResourceType, TypeStatus> {
        self.watches
            .iter()
            .map(|(resource_type, watch)| (*resource_type, watch.status.clone()))
            .collect()
    }
}

// === impl Watch ===

impl Watch {
    fn new(request: DeltaDiscoveryRequest) -> Self {
        Self {
            interest: Interest::new(request),
            outstanding: None,
            answer_due: true,
            status: TypeStatus::default(),
        }
    }

    fn acknowledge(&mut self, request: &DeltaDiscoveryRequest, now: SystemTime) {
        // Answers to anything but the latest response are of no interest any more.
        let Some(outstanding) = self
            .outstanding
            .take_if(|outstanding| outstanding.nonce == request.response_nonce)
        else {
            return;
        };
        self.status.acked = outstanding.generation;
        match &request.error_detail {
            None => {}
            Some(error) => self.status.reject(Nack {
                time: now,
                message: error.message.clone(),
                generation: outstanding.generation,
            }),
        }
    }

    fn respond(
        &mut self,
        resource_type: ResourceType,
        difference: Difference,
        nonce: String,
        generation: u64,
    ) -> DeltaDiscoveryResponse {
        self.answer_due = false;
        self.status.sent = generation;
        self.status.resources = self.interest.count();
        self.outstanding = Some(Outstanding {
            nonce: nonce.clone(),
            generation,
        });
        DeltaDiscoveryResponse {
            system_version_info: generation.to_string(),
            type_url: resource_type.url().to_owned(),
            nonce,
            resources: difference.resources,
            removed_resources: difference.removed,
        }
    }
}

// === impl Interest ===

impl Interest {
    fn new(request: DeltaDiscoveryRequest) -> Self {
        let names = request.resource_names_subscribe;
        let named = |list: &[String]| list.iter().any(|name| name == WILDCARD);
        let wildcard =
            (names.is_empty() || named(&names)) && !named(&request.resource_names_unsubscribe);
        if wildcard {
            return Self::Wildcard(Has::Told(request.initial_resource_versions));
        }
        // A client that comes back still wants what it has.
        let had = request.initial_resource_versions;
        let names: BTreeSet<String> = names
            .into_iter()
            .chain(had.keys().cloned())
            .filter(|name| name != WILDCARD)
            .collect();
        let has = had
            .into_iter()
            .map(|(name, version)| (name.into(), version.into()));
        Self::OnDemand {
            asked: names.clone(),
            names,
            has: has.collect(),
        }
    }

    /// Later subscriptions: only an on-demand client has any to make.
    fn change(&mut self, request: DeltaDiscoveryRequest) {
        let Self::OnDemand { names, asked, has } = self else {
            return;
        };
        for name in request.resource_names_unsubscribe {
            names.remove(&name);
            asked.remove(&name);
            // The client forgets it without being told.
            has.remove(name.as_str());
        }
        for name in request.resource_names_subscribe {
            if name != WILDCARD {
                asked.insert(name.clone());
                names.insert(name);
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Wildcard(Has::Told(_)) => 0,
            Self::Wildcard(Has::Sent(sent)) => sent.len(),
            Self::OnDemand { has, .. } => has.len(),
        }
    }

    /// What the client lacks; afterwards it counts as sent.
    fn difference(
        &mut self,
        resource_type: ResourceType,
        resources: &ResourceSet,
        node: &str,
    ) -> Difference {
        match self {
            Self::Wildcard(has) => {
                let current = resources.of(resource_type);
                let difference = has.difference(resource_type, current);
                *has = Has::Sent(current.clone());
                difference
            }
            Self::OnDemand { names, asked, has } => {
                let wanted = wanted(names, resource_type, resources, node);
                let asked = std::mem::take(asked);
                let mut difference = Difference::default();
                for name in asked
                    .iter()
                    .filter(|name| wanted.unanswered.contains(*name))
                {
                    difference.removed.push(name.clone());
                    has.remove(name.as_str());
                }
                for name in has.keys() {
                    if !wanted.resources.contains_key(name) {
                        difference.removed.push(name.as_ref().to_owned());
                    }
                }
                has.retain(|name, _| wanted.resources.contains_key(name));
                for (name, resource) in wanted.resources {
                    // One that is asked for by another name than it was sent by is sent again:
                    // the client waits for an answer.
                    let named = resource
                        .aliases
                        .iter()
                        .any(|alias| asked.contains(&**alias));
                    if named || has.get(&name) != Some(&resource.version) {
                        difference
                            .resources
                            .push(resource.to_wire(resource_type, &resource.aliases));
                        has.insert(name, resource.version.clone());
                    }
                }
                difference
            }
        }
    }
}

/// What the names stand for.
#[derive(Default)]
struct Wanted {
    resources: BTreeMap<Arc<str>, Arc<Resource>>,
    unanswered: BTreeSet<String>,
}

/// Resolves the names of an on-demand client: a name, else an alias; a service brings its
/// workloads along, and the node's own pods always come.
fn wanted(
    names: &BTreeSet<String>,
    resource_type: ResourceType,
    resources: &ResourceSet,
    node: &str,
) -> Wanted {
    let mut wanted = Wanted::default();
    let all = resources.of(resource_type);
    for name in names {
        let mut found: Vec<_> = all.get(name.as_str()).into_iter().collect();
        if found.is_empty() && resource_type == ResourceType::Address {
            found.extend(resources.group(Group::Alias(name.as_str().into())));
        }
        if found.is_empty() {
            wanted.unanswered.insert(name.clone());
        }
        for resource in found {
            let members = resources.group(Group::Service(resource.name.clone()));
            for resource in members.chain([resource]) {
                wanted
                    .resources
                    .insert(resource.name.clone(), resource.clone());
            }
        }
    }
    if resource_type == ResourceType::Address && !node.is_empty() {
        for resource in resources.group(Group::Node(node.into())) {
            wanted
                .resources
                .insert(resource.name.clone(), resource.clone());
        }
    }
    wanted
}

// === impl Has ===

impl Has {
    fn difference(&self, resource_type: ResourceType, current: &Resources) -> Difference {
        let mut difference = Difference::default();
        match self {
            Self::Told(told) => {
                for (name, resource) in current {
                    if told.get(&**name).map(String::as_str) != Some(&*resource.version) {
                        difference
                            .resources
                            .push(resource.to_wire(resource_type, &[]));
                    }
                }
                let gone = told
                    .keys()
                    .filter(|name| !current.contains_key(name.as_str()));
                difference.removed.extend(gone.cloned());
            }
            Self::Sent(sent) => {
                for item in sent.diff(current) {
                    match item {
                        DiffItem::Add(_, resource)
                        | DiffItem::Update {
                            new: (_, resource), ..
                        } => difference
                            .resources
                            .push(resource.to_wire(resource_type, &[])),
                        DiffItem::Remove(name, _) => {
                            difference.removed.push(name.as_ref().to_owned());
                        }
                    }
                }
            }
        }
        difference
    }
}

// === impl Difference ===

impl Difference {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests;
