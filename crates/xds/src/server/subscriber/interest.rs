//! What a client wants of one type, what it has of it, and the difference to a set.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use proto::discovery::DeltaDiscoveryRequest;

use crate::resource_type::ResourceType;
use crate::server::resources::{Group, Resource, ResourceSet, Resources};

const WILDCARD: &str = "*";

#[derive(Debug)]
pub(super) enum Interest {
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
pub(super) enum Has {
    Told(BTreeMap<String, String>),
    Sent(Resources),
}

/// How much of a difference is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// What there is. What there is no more is told another time.
    Present,
    All,
}

/// What a response carries.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) resources: Vec<proto::discovery::Resource>,
    pub(super) removed: Vec<String>,
}

// === impl Interest ===

impl Interest {
    pub(super) fn new(request: DeltaDiscoveryRequest) -> Self {
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
    pub(super) fn change(&mut self, request: DeltaDiscoveryRequest) {
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

    pub(super) fn count(&self) -> usize {
        match self {
            Self::Wildcard(Has::Told(_)) => 0,
            Self::Wildcard(Has::Sent(sent)) => sent.len(),
            Self::OnDemand { has, .. } => has.len(),
        }
    }

    /// Whether anything may have changed since the last response. Who asks by name waits for
    /// nobody else.
    pub(super) fn lags(&self, resource_type: ResourceType, resources: &ResourceSet) -> bool {
        match self {
            Self::Wildcard(Has::Sent(sent)) => !sent.ptr_eq(resources.of(resource_type)),
            Self::Wildcard(Has::Told(_)) | Self::OnDemand { .. } => false,
        }
    }

    /// A part of what the client lacks; afterwards it counts as sent.
    pub(super) fn difference(
        &mut self,
        resource_type: ResourceType,
        resources: &ResourceSet,
        node: &str,
        part: Part,
    ) -> Difference {
        match self {
            Self::Wildcard(has) => {
                let current = resources.of(resource_type);
                let mut difference = has.difference(resource_type, current);
                let mut told = current.clone();
                if let (Part::Present, Has::Sent(sent)) = (part, &*has) {
                    for name in difference.removed.drain(..) {
                        if let Some((name, resource)) = sent.get_key_value(name.as_str()) {
                            told.insert(name.clone(), resource.clone());
                        }
                    }
                }
                *has = Has::Sent(told);
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
    pub(super) fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }
}
