//! What a client holds, and what it says next: delta xDS as values.

mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh::authorization::{Authorization, PolicyKey};
use mesh::request_authentication::RequestAuthentication;
use mesh::route::{Route, RouteKey};
use mesh::snapshot::Change;
use prost::{DecodeError, Message};
use proto::discovery::{DeltaDiscoveryRequest, EncodedResponse, Resource, Status};
use proto::l7::Decoded;
use proto::workload::Address;

use self::version::Version;
use crate::client::Demand;
use crate::resource_type::{Layer, ResourceType};

const WILDCARD: &str = "*";
/// Reasons spelled out in one NACK; a wholly foreign control plane would fill its own log.
const REASONS: usize = 20;
/// Resources in one response after which it pays to make what is held anew.
const MANY: usize = 10_000;

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
    types: Vec<TypeState>,
    synced: bool,
}

/// What one response brought.
#[derive(Clone, Debug)]
pub struct Update {
    pub resource_type: ResourceType,
    pub changes: Vec<Change>,
    pub rejections: Vec<Rejection>,
}

/// A resource that was not understood. A policy or a route among the changes under the same name
/// is its fail-closed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub name: String,
    pub reason: String,
}

/// A response, taken in.
#[derive(Clone, Debug)]
pub struct Received {
    /// None for a type that was not asked for.
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
    held: BTreeMap<Arc<str>, Version>,
    demanded: BTreeSet<String>,
    received: bool,
}

// === impl State ===

impl State {
    /// All but addresses is always subscribed as a whole: a policy or a route that was not asked
    /// for would not be enforced.
    pub fn new(layer: Layer, addresses: Subscription) -> Self {
        let types = layer.types().iter().map(|resource_type| {
            let subscription = match resource_type {
                ResourceType::Address => addresses,
                ResourceType::Authorization
                | ResourceType::AuthorizationPolicy
                | ResourceType::RequestAuthentication
                | ResourceType::Route => Subscription::Wildcard,
            };
            TypeState::new(*resource_type, subscription)
        });
        Self {
            types: types.collect(),
            synced: false,
        }
    }

    /// What to say first on a new stream; the caller adds the node.
    pub fn initial_requests(&self) -> Vec<DeltaDiscoveryRequest> {
        self.types.iter().map(TypeState::initial_request).collect()
    }

    fn state(&mut self, wanted: ResourceType) -> Option<&mut TypeState> {
        let mut types = self.types.iter_mut();
        types.find(|state| state.resource_type == wanted)
    }

    /// Subscribes to one more address, or to one less. None where nothing is to be said.
    pub fn demand(&mut self, demand: Demand) -> Option<DeltaDiscoveryRequest> {
        let addresses = self.state(ResourceType::Address)?;
        if addresses.subscription == Subscription::Wildcard {
            return None;
        }
        let mut request = DeltaDiscoveryRequest {
            type_url: ResourceType::Address.url().to_owned(),
            ..Default::default()
        };
        let is_new = match demand {
            Demand::Subscribe(name) => {
                request.resource_names_subscribe.push(name.clone());
                addresses.demanded.insert(name)
            }
            Demand::Unsubscribe(name) => {
                let was_there = addresses.demanded.remove(&name);
                request.resource_names_unsubscribe.push(name);
                was_there
            }
        };
        is_new.then_some(request)
    }

    /// Takes a response in, or nothing of one that can't be read.
    pub fn receive(&mut self, response: EncodedResponse) -> Result<Received, DecodeError> {
        response.check()?;
        let mut acknowledgement = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..Default::default()
        };
        let resource_type = ResourceType::from_url(&response.type_url);
        let Some(state) = resource_type.and_then(|wanted| self.state(wanted)) else {
            return Ok(Received {
                update: None,
                synced: false,
                acknowledgement,
            });
        };
        let update = state.receive(response)?;
        if !update.rejections.is_empty() {
            acknowledgement.error_detail = Some(Status {
                message: describe(&update.rejections),
                ..Default::default()
            });
        }
        let all = self.types.iter().all(|state| state.received);
        let synced = all && !self.synced;
        self.synced = all;
        Ok(Received {
            update: Some(update),
            synced,
            acknowledgement,
        })
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
        let held = self.held.iter();
        let mut initial_resource_versions: BTreeMap<String, String> = held
            .map(|(name, version)| (name.to_string(), version.to_string()))
            .collect();
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

    fn receive(&mut self, mut response: EncodedResponse) -> Result<Update, DecodeError> {
        self.received = true;
        let mut changes = Vec::new();
        let mut rejections = Vec::new();
        let many = response.count() >= MANY;
        // Removals first: a name that is both removed and sent has come back.
        for name in std::mem::take(&mut response.removed_resources) {
            self.held.remove(name.as_str());
            changes.extend(removal(self.resource_type, &name));
        }
        for resource in response.resources() {
            let Resource {
                name,
                version,
                resource,
                ..
            } = resource?;
            let read = match resource {
                Some(any) if any.type_url == self.resource_type.url() => match self.resource_type {
                    ResourceType::Address => read_address(&name, &any.value),
                    ResourceType::Authorization => {
                        read_policy(&name, &any.value, read_authorization)
                    }
                    ResourceType::AuthorizationPolicy => {
                        read_policy(&name, &any.value, read_authorization_policy)
                    }
                    ResourceType::RequestAuthentication => {
                        read_policy(&name, &any.value, read_request_authentication)
                    }
                    ResourceType::Route => read_route(&name, &any.value),
                },
                Some(any) => Read::rejected(format!("is of type {:?}", any.type_url)),
                None => Read::rejected("has no content".to_owned()),
            };
            match read.problem {
                None => {
                    let name = shared_name(&read.change, &name);
                    self.held.insert(name, version.into());
                }
                Some(reason) => {
                    let applied = read.change.is_some();
                    if applied || self.held.contains_key(name.as_str()) {
                        self.held.insert(name.as_str().into(), Version::none());
                    }
                    rejections.push(Rejection { name, reason });
                }
            }
            changes.extend(read.change);
        }
        if many {
            // A tree that has grown in the order of its keys is half empty; one made at once is not.
            self.held = std::mem::take(&mut self.held).into_iter().collect();
        }
        Ok(Update {
            resource_type: self.resource_type,
            changes,
            rejections,
        })
    }
}

/// The name as the resource itself has it, where it is a workload: there are many of those.
fn shared_name(change: &Option<Change>, name: &str) -> Arc<str> {
    match change {
        Some(Change::Workload(workload)) => workload.uid.0.clone(),
        _ => name.into(),
    }
}

fn removal(resource_type: ResourceType, name: &str) -> Option<Change> {
    match resource_type {
        ResourceType::Address => Some(Change::RemoveAddress(name.into())),
        // A policy under any other name was never let in.
        ResourceType::Authorization => PolicyKey::parse(name).map(Change::RemoveAuthorization),
        ResourceType::AuthorizationPolicy => {
            PolicyKey::parse(name).map(Change::RemoveAuthorizationPolicy)
        }
        ResourceType::RequestAuthentication => {
            PolicyKey::parse(name).map(Change::RemoveRequestAuthentication)
        }
        ResourceType::Route => RouteKey::parse(name).map(Change::RemoveRoute),
    }
}

/// A resource as far as it could be understood.
struct Read {
    change: Option<Change>,
    problem: Option<String>,
}

impl Read {
    fn applied((change, problems): (Change, Vec<String>)) -> Self {
        Self {
            change: Some(change),
            problem: (!problems.is_empty()).then(|| problems.join(", ")),
        }
    }

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

/// A policy that is safe to apply, and what of it was not understood.
type ReadPolicy = (Change, Vec<String>);

fn read_policy(name: &str, bytes: &[u8], read: fn(&PolicyKey, &[u8]) -> ReadPolicy) -> Read {
    match PolicyKey::parse(name) {
        Some(key) => Read::applied(read(&key, bytes)),
        None => Read::rejected("is not of the form NAMESPACE/NAME".to_owned()),
    }
}

fn read_authorization(key: &PolicyKey, bytes: &[u8]) -> ReadPolicy {
    let decoded = proto::authorization::Decoded::read(key, bytes);
    (Change::Authorization(decoded.policy), decoded.problems)
}

fn read_authorization_policy(key: &PolicyKey, bytes: &[u8]) -> ReadPolicy {
    let decoded = Decoded::<Authorization>::read(key, bytes);
    let change = Change::AuthorizationPolicy(decoded.resource);
    (change, decoded.problems)
}

fn read_request_authentication(key: &PolicyKey, bytes: &[u8]) -> ReadPolicy {
    let decoded = Decoded::<RequestAuthentication>::read(key, bytes);
    let change = Change::RequestAuthentication(decoded.resource);
    (change, decoded.problems)
}

fn read_route(name: &str, bytes: &[u8]) -> Read {
    let Some(key) = RouteKey::parse(name) else {
        return Read::rejected("is not of the form KIND/NAMESPACE/NAME".to_owned());
    };
    match Decoded::<Route>::read(&key, bytes) {
        Ok(decoded) => Read::applied((Change::Route(decoded.resource), decoded.problems)),
        Err(problem) => Read::rejected(problem),
    }
}

#[cfg(test)]
mod tests;
