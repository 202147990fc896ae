//! From objects to the mesh's resources, one change at a time.
//!
//! A change names the objects whose translation may be another now; each is translated
//! anew, and only what came out different is published. Translating reads nothing but the
//! objects, so that any order of changes ends in the same resources.
//!
//! - `published`: the resources in force, and what changed in them
//! - `address_book`: addresses of ServiceEntries over restarts
//! - `conditions`: since when conditions hold, and for which generation of their object

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use istio_compat::kind::Kind;
use istio_compat::kinds::gateway::GatewayStatus;
use istio_compat::kinds::metadata::Condition;
use istio_compat::kinds::route::RouteParentStatus;
use istio_compat::object::{Body, Object, ObjectKey};
use istio_compat::translate::Translation;
use istio_compat::view::{Context, View};
use istio_compat::waypoint::binding::{Binding, Cause};
use istio_compat::waypoint::deployment::{self, Wanted};
use mesh::snapshot::Change;
use serde::Serialize;

mod address_book;
mod conditions;
mod published;

use address_book::AddressBook;
use conditions::{Generations, Mark};
use published::Published;
pub use published::{Resource, ResourceKey};

use crate::source::Event;

/// All objects, and all resources made of them.
pub struct Index {
    view: View,
    objects: BTreeMap<ObjectKey, Object>,
    pods_by_node: HashMap<String, BTreeSet<ObjectKey>>,
    published: Published,
    conditions: HashMap<ObjectKey, Vec<Condition>>,
    bindings: BTreeMap<ObjectKey, Binding>,
    parents: HashMap<ObjectKey, Vec<RouteParentStatus>>,
    gateways: HashMap<ObjectKey, GatewayStatus>,
    generations: Generations,
    address_book: AddressBook,
}

/// Of the resources in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    pub workloads: usize,
    pub services: usize,
    pub policies: usize,
    pub routes: usize,
    pub request_policies: usize,
}

// === impl Index ===

impl Index {
    /// An index that forgets the addresses it allocates.
    pub fn new(context: Context) -> Self {
        Self {
            view: View::new(context),
            objects: BTreeMap::new(),
            pods_by_node: HashMap::new(),
            published: Published::default(),
            conditions: HashMap::new(),
            bindings: BTreeMap::new(),
            parents: HashMap::new(),
            gateways: HashMap::new(),
            generations: Generations::default(),
            address_book: AddressBook::default(),
        }
    }

    /// Keeps the addresses it allocates in a file.
    pub fn with_address_book(mut self, file: &Path) -> io::Result<Self> {
        self.address_book = AddressBook::open(file)?;
        Ok(self)
    }

    /// Applies events and returns what changed in the resources.
    pub fn apply(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: SystemTime,
    ) -> Vec<Change> {
        let mut dirty = BTreeSet::new();
        for event in events {
            let (key, object) = match event {
                Event::Applied(object) => (object.key(), Some(object)),
                Event::Deleted(key) => (key, None),
            };
            dirty.extend(self.replace(&key, object));
        }
        for key in dirty {
            self.derive(key, now);
        }
        self.published.take_changes()
    }

    /// Puts an object in, or takes it out, and names what depends on it.
    fn replace(&mut self, key: &ObjectKey, object: Option<Object>) -> BTreeSet<ObjectKey> {
        let object = object.map(|object| self.recall_addresses(object));
        let old = match &object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        let (before, after) = (body(old.as_ref()), body(object.as_ref()));
        // A file that was touched, or moved, says the same as before.
        if before == after {
            return BTreeSet::new();
        }
        self.generations.follow(key, before, after);
        if let Some(Body::Pod(pod)) = before
            && let Some(pods) = self.pods_by_node.get_mut(&pod.spec.node_name)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.pods_by_node.remove(&pod.spec.node_name);
            }
        }
        if let Some(Body::Pod(pod)) = after {
            let pods = self.pods_by_node.entry(pod.spec.node_name.clone());
            pods.or_default().insert(key.clone());
        }
        self.view.apply(key, object.as_ref())
    }

    fn recall_addresses(&self, object: Object) -> Object {
        match &object.body {
            Body::ServiceEntry(entry) => match self.address_book.recall(entry) {
                Some(entry) => Object {
                    body: Body::ServiceEntry(entry.into()),
                    ..object
                },
                None => object,
            },
            _ => object,
        }
    }

    /// Translates an object anew.
    fn derive(&mut self, key: ObjectKey, now: SystemTime) {
        let mut translation = self.view.translate(&key);
        self.mark(&key, &mut translation, now);
        if translation.parents.is_empty() {
            self.parents.remove(&key);
        } else {
            self.parents.insert(key.clone(), translation.parents);
        }
        match translation.gateway {
            Some(status) => self.gateways.insert(key.clone(), status),
            None => self.gateways.remove(&key),
        };
        if let Some(Body::ServiceEntry(entry)) = body(self.objects.get(&key)) {
            for host in &entry.spec.hosts {
                if let Some(addresses) = self.view.allocated(&key, host) {
                    self.address_book.note(entry, host, &addresses);
                }
            }
        }
        if translation.conditions.is_empty() {
            self.conditions.remove(&key);
        } else {
            self.conditions.insert(key.clone(), translation.conditions);
        }
        match translation.binding {
            Some(binding) => self.bindings.insert(key.clone(), binding),
            None => self.bindings.remove(&key),
        };
        let workloads = translation.workloads.into_iter().map(Arc::new);
        let services = translation.services.into_iter().map(Arc::new);
        let for_nodes = translation.authorizations.into_iter().map(Arc::new);
        let routes = translation.routes.into_iter().map(Arc::new);
        let policies = translation.authorization_policies.into_iter().map(Arc::new);
        let tokens = translation
            .request_authentications
            .into_iter()
            .map(Arc::new);
        let resources = workloads
            .map(Resource::Workload)
            .chain(services.map(Resource::Service))
            .chain(for_nodes.map(Resource::Authorization))
            .chain(routes.map(Resource::Route))
            .chain(policies.map(Resource::AuthorizationPolicy))
            .chain(tokens.map(Resource::RequestAuthentication));
        self.published.replace(key, resources);
    }

    /// Tells of conditions since when they hold.
    fn mark(&self, key: &ObjectKey, translation: &mut Translation, now: SystemTime) {
        let mark = Mark::new(now, self.generation(key));
        mark.conditions(&mut translation.conditions, self.conditions(key));
        mark.parents(&mut translation.parents, self.parents(key));
        if let Some(status) = &mut translation.gateway {
            mark.listeners(status, self.gateway(key));
        }
    }

    /// Writes down the addresses allocated since the last call.
    pub fn save_addresses(&mut self) -> io::Result<()> {
        self.address_book.save()
    }

    pub fn object(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    /// Every object in force, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.objects.iter()
    }

    /// The objects of a kind, in one namespace or in all.
    pub fn objects_of<'a>(
        &'a self,
        kind: Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Object> {
        let first = ObjectKey::new(kind, namespace.unwrap_or_default(), "");
        self.objects
            .range(first..)
            .take_while(move |(key, _)| {
                key.kind == kind && namespace.is_none_or(|namespace| *key.namespace == *namespace)
            })
            .map(|(_, object)| object)
    }

    /// How often what an object says has changed, from 1; of kinds that count it.
    pub fn generation(&self, key: &ObjectKey) -> Option<i64> {
        self.generations.of(key)
    }

    /// What was made of an object, as its status has it.
    pub fn conditions(&self, key: &ObjectKey) -> &[Condition] {
        self.conditions.get(key).map_or(&[], Vec::as_slice)
    }

    /// Services and workloads with the waypoint in front of them.
    pub fn bindings(&self) -> impl Iterator<Item = (&ObjectKey, &Binding)> {
        self.bindings.iter()
    }

    /// What there is to be of waypoints.
    pub fn wanted_waypoints(&self) -> Wanted {
        let demanded: BTreeSet<&str> = self
            .bindings
            .values()
            .filter(|binding| match binding.cause {
                Cause::Demand(_) => true,
                Cause::Label(_) => false,
            })
            .map(|binding| &*binding.waypoint.namespace)
            .collect();
        deployment::wanted(&self.view, demanded)
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    /// What each parent of a route makes of it, as its status has it.
    pub fn parents(&self, key: &ObjectKey) -> &[RouteParentStatus] {
        self.parents.get(key).map_or(&[], Vec::as_slice)
    }

    /// Where a Gateway's waypoint is, and its listeners.
    pub fn gateway(&self, key: &ObjectKey) -> Option<&GatewayStatus> {
        self.gateways.get(key)
    }

    /// How many resources are in force, by what they are.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for (_, resource) in self.resources() {
            match resource {
                Resource::Workload(_) => counts.workloads += 1,
                Resource::Service(_) => counts.services += 1,
                Resource::Authorization(_) => counts.policies += 1,
                Resource::Route(_) => counts.routes += 1,
                Resource::AuthorizationPolicy(_) | Resource::RequestAuthentication(_) => {
                    counts.request_policies += 1;
                }
            }
        }
        counts
    }

    /// Every resource in force.
    pub fn resources(&self) -> impl Iterator<Item = (&ResourceKey, &Resource)> {
        self.published.iter()
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Object> {
        let keys = self.pods_by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.objects.get(key))
    }
}

fn body(object: Option<&Object>) -> Option<&Body> {
    object.map(|object| &object.body)
}

#[cfg(test)]
mod tests;
