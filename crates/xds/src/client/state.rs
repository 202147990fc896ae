//! What a client holds, and what it says next: delta xDS as values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh::authorization::PolicyKey;
use mesh::snapshot::Change;
use prost::Message;
use proto::authorization::Decoded;
use proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource, Status};
use proto::workload::Address;

use crate::resource_type::ResourceType;

const WILDCARD: &str = "*";
/// Reasons spelled out in one NACK; a wholly foreign control plane would fill its own log.
const REASONS: usize = 20;

/// Which resources of a type a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    Wildcard,
    /// Only what it names.
    OnDemand,
}

/// What a client holds of every type, over reconnects.
#[derive(Debug)]
pub struct State {
    addresses: TypeState,
    authorizations: TypeState,
    synced: bool,
}

/// What one response brought.
#[derive(Clone, Debug)]
pub struct Update {
    pub resource_type: ResourceType,
    pub changes: Vec<Change>,
    pub rejections: Vec<Rejection>,
}

/// A resource that was not understood. A policy among the changes under the same name is
/// its fail-closed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub name: String,
    pub reason: String,
}

/// A response, taken in.
#[derive(Clone, Debug)]
pub struct Received {
    /// None for a type nobody here knows.
    pub update: Option<Update>,
    /// True once: this response completed the first sync.
    pub synced: bool,
    /// To be sent when the update is applied.
    pub acknowledgement: DeltaDiscoveryRequest,
}

#[derive(Debug)]
struct TypeState {
    resource_type: ResourceType,
    subscription: Subscription,
    /// Versions by name. An empty version stands for a resource whose latest form was
    /// rejected: it must be sent again, and its removal must be told.
    held: BTreeMap<String, String>,
    demanded: BTreeSet<String>,
    received: bool,
}

// === impl State ===

impl State {
    /// Policies are always subscribed as a whole: one not asked for would not be enforced.
    pub fn new(addresses: Subscription) -> Self {
        Self {
            addresses: TypeState::new(ResourceType::Address, addresses),
            authorizations: TypeState::new(ResourceType::Authorization, Subscription::Wildcard),
            synced: false,
        }
    }

    /// What to say first on a new stream; the caller adds the node.
    pub fn initial_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        [&self.addresses, &self.authorizations]
            .map(TypeState::initial_request)
            .into()
    }

    /// Subscribes to one more address. None where it is subscribed already.
    pub fn demand(&mut self, name: String) -> Option<DeltaDiscoveryRequest> {
        match self.addresses.subscription {
            Subscription::Wildcard => None,
            Subscription::OnDemand => {
                let new = self.addresses.demanded.insert(name.clone());
                new.then(|| DeltaDiscoveryRequest {
                    type_url: ResourceType::Address.url().to_owned(),
                    resource_names_subscribe: vec![name],
                    ..Default::default()
                })
            }
        }
    }

    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Received {
        let mut acknowledgement = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        let state = match ResourceType::from_url(&response.type_url) {
            Some(ResourceType::Address) => &mut self.addresses,
            Some(ResourceType::Authorization) => &mut self.authorizations,
            None => {
                return Received {
                    update: None,
                    synced: false,
                    acknowledgement,
                };
            }
        };
        let update = state.receive(response);
        if !update.rejections.is_empty() {
            acknowledgement.error_detail = Some(Status {
                message: describe(&update.rejections),
                ..Default::default()
            });
        }
        let all = self.addresses.received && self.authorizations.received;
        let synced = all && !self.synced;
        self.synced = all;
        Received {
            update: Some(update),
            synced,
            acknowledgement,
        }
    }
}

fn describe(rejections: &[Rejection]) -> String {
    let mut entries: Vec<String> = rejections
        .iter()
        .take(REASONS)
        .map(|rejection| format!("{}: {}", rejection.name, rejection.reason))
        .collect();
    if let Some(more @ 1..) = rejections.len().checked_sub(REASONS) {
        entries.push(format!("and {more} more"));
    }
    entries.join("; ")
}

// === impl TypeState ===

impl TypeState {
    fn new(resource_type: ResourceType, subscription: Subscription) -> Self {
        Self {
            resource_type,
            subscription,
            held: BTreeMap::new(),
            demanded: BTreeSet::new(),
            received: false,
        }
    }

    fn initial_request(&self) -> DeltaDiscoveryRequest {
        let mut initial_resource_versions = self.held.clone();
        let (subscribe, unsubscribe) = match self.subscription {
            // Nothing named on the first request: the old way to say wildcard, understood by all.
            Subscription::Wildcard => (Vec::new(), Vec::new()),
            // Wildcard, taken back at once: nothing but what is named, yet the type is watched.
            Subscription::OnDemand => {
                for name in &self.demanded {
                    initial_resource_versions.entry(name.clone()).or_default();
                }
                let names = self.demanded.iter().cloned();
                let subscribe = std::iter::once(WILDCARD.to_owned()).chain(names).collect();
                (subscribe, vec![WILDCARD.to_owned()])
            }
        };
        DeltaDiscoveryRequest {
            type_url: self.resource_type.url().to_owned(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions,
            ..Default::default()
        }
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) -> Update {
        self.received = true;
        let mut changes = Vec::new();
        let mut rejections = Vec::new();
        // Removals first: a name that is both removed and sent has come back.
        for name in response.removed_resources {
            self.held.remove(&name);
            changes.extend(removal(self.resource_type, &name));
        }
        for resource in response.resources {
            let Resource {
                name,
                version,
                resource,
                ..
            } = resource;
            let read = match resource {
                Some(any) if any.type_url == self.resource_type.url() => match self.resource_type {
                    ResourceType::Address => read_address(&name, &any.value),
                    ResourceType::Authorization => read_authorization(&name, &any.value),
                },
                Some(any) => Read::rejected(format!("is of type {:?}", any.type_url)),
                None => Read::rejected("has no content".to_owned()),
            };
            match read.problem {
                None => {
                    self.held.insert(name, version);
                }
                Some(reason) => {
                    let applied = read.change.is_some();
                    if applied || self.held.contains_key(&name) {
                        self.held.insert(name.clone(), String::new());
                    }
                    rejections.push(Rejection { name, reason });
                }
            }
            changes.extend(read.change);
        }
        Update {
            resource_type: self.resource_type,
            changes,
            rejections,
        }
    }
}

fn removal(resource_type: ResourceType, name: &str) -> Option<Change> {
    match resource_type {
        ResourceType::Address => Some(Change::RemoveAddress(name.into())),
        // A policy under any other name was never let in.
        ResourceType::Authorization => PolicyKey::parse(name).map(Change::RemoveAuthorization),
    }
}

/// A resource as far as it could be understood.
struct Read {
    change: Option<Change>,
    problem: Option<String>,
}

impl Read {
    fn rejected(problem: String) -> Self {
        Self {
            change: None,
            problem: Some(problem),
        }
    }
}

fn read_address(name: &str, bytes: &[u8]) -> Read {
    let change = Address::decode(bytes)
        .map_err(|error| error.to_string())
        .and_then(|wire| Change::try_from(wire).map_err(|error| error.to_string()));
    match change {
        Err(problem) => Read::rejected(problem),
        // It would be removed under another name than it was added.
        Ok(change) if key(&change).is_none_or(|key| *key != *name) => {
            Read::rejected("is called otherwise than its content".to_owned())
        }
        Ok(change) => Read {
            change: Some(change),
            problem: None,
        },
    }
}

fn key(change: &Change) -> Option<Arc<str>> {
    match change {
        Change::Workload(workload) => Some(workload.uid.0.clone()),
        Change::Service(service) => Some(service.key().to_string().into()),
        Change::Authorization(_)
        | Change::RemoveAddress(_)
        | Change::RemoveAuthorization(_)
        | Change::Route(_)
        | Change::RemoveRoute(_)
        | Change::AuthorizationPolicy(_)
        | Change::RemoveAuthorizationPolicy(_)
        | Change::RequestAuthentication(_)
        | Change::RemoveRequestAuthentication(_) => None,
    }
}

fn read_authorization(name: &str, bytes: &[u8]) -> Read {
    let Some(key) = PolicyKey::parse(name) else {
        return Read::rejected("is not of the form NAMESPACE/NAME".to_owned());
    };
    let decoded = Decoded::read(&key, bytes);
    Read {
        change: Some(Change::Authorization(decoded.policy)),
        problem: (!decoded.problems.is_empty()).then(|| decoded.problems.join(", ")),
    }
}

#[cfg(test)]
mod tests;
