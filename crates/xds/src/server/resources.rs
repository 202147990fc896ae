//! The set of resources that clients are kept in sync with, versioned by content.
//!
//! A set is cheap to clone and two sets are cheap to compare where they share most (persistent
//! maps): what a client lacks is the difference between the set it was sent and the newest one.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use mesh::address::NetworkAddress;
use mesh::service::Service;
use mesh::snapshot::Change;
use mesh::workload::{NetworkMode, Workload};
use prost::Message;
use proto::authorization::Authorization;
use proto::l7::{AuthorizationPolicy, RequestAuthentication, Route};
use proto::workload::Address;
use twox_hash::XxHash64;

use crate::resource_type::ResourceType;

pub(super) type Resources = OrdMap<Arc<str>, Arc<Resource>>;

/// One resource as it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    pub name: Arc<str>,
    /// Hash of the content.
    pub version: Arc<str>,
    /// Other names an on-demand client may ask for it by: `network/ip`.
    pub aliases: Vec<Arc<str>>,
    /// An on-demand client that has one of these, or runs on this node, needs this too.
    groups: Vec<Group>,
    body: Vec<u8>,
}

/// What brings resources along that were not asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    Alias(Arc<str>),
    Service(Arc<str>),
    Node(Arc<str>),
}

/// Every resource, by type and name.
#[derive(Clone, Debug, Default)]
pub struct ResourceSet {
    generation: u64,
    addresses: Resources,
    authorizations: Resources,
    authorization_policies: Resources,
    request_authentications: Resources,
    routes: Resources,
    groups: OrdSet<(Group, Arc<str>)>,
}

// === impl Resource ===

impl Resource {
    fn workload(workload: &Workload) -> Self {
        let aliases = match workload.network_mode {
            NetworkMode::Standard => workload.addresses.as_slice(),
            // Several workloads share the host's address: it stands for none of them.
            NetworkMode::HostNetwork => &[],
        };
        let aliases: Vec<Arc<str>> = aliases
            .iter()
            .map(|ip| alias(&NetworkAddress::new(workload.network.clone(), *ip)))
            .collect();
        let services = workload.services.keys();
        let mut groups: Vec<Group> = services
            .map(|key| Group::Service(key.to_string().into()))
            .collect();
        groups.push(Group::Node(workload.node.clone()));
        let body = Address::from(workload).encode_to_vec();
        Self::new(workload.uid.0.clone(), aliases, groups, body)
    }

    fn service(service: &Service) -> Self {
        let ranges = service.cidr_vips.iter();
        let ranges = ranges.map(|range| format!("{}/{}", range.network, range.cidr).into());
        let aliases = service.addresses.iter().map(alias).chain(ranges).collect();
        let body = Address::from(service).encode_to_vec();
        Self::new(service.key().to_string().into(), aliases, Vec::new(), body)
    }

    fn authorization(policy: &mesh::authorization::Authorization) -> Self {
        let body = Authorization::from(policy).encode_to_vec();
        Self::unaliased(&policy.key(), body)
    }

    fn authorization_policy(policy: &mesh::authorization::Authorization) -> Self {
        let body = AuthorizationPolicy::from(policy).encode_to_vec();
        Self::unaliased(&policy.key(), body)
    }

    fn request_authentication(
        policy: &mesh::request_authentication::RequestAuthentication,
    ) -> Self {
        let body = RequestAuthentication::from(policy).encode_to_vec();
        Self::unaliased(&policy.key(), body)
    }

    fn route(route: &mesh::route::Route) -> Self {
        let body = Route::from(route).encode_to_vec();
        Self::unaliased(&route.key, body)
    }

    fn unaliased(key: &impl ToString, body: Vec<u8>) -> Self {
        Self::new(key.to_string().into(), Vec::new(), Vec::new(), body)
    }

    fn new(name: Arc<str>, aliases: Vec<Arc<str>>, mut groups: Vec<Group>, body: Vec<u8>) -> Self {
        groups.extend(aliases.iter().cloned().map(Group::Alias));
        let version = format!("{:016x}", XxHash64::oneshot(0, &body)).into();
        Self {
            name,
            version,
            aliases,
            groups,
            body,
        }
    }

    pub(super) fn to_wire(
        &self,
        resource_type: ResourceType,
        aliases: &[Arc<str>],
    ) -> proto::discovery::Resource {
        proto::discovery::Resource {
            name: self.name.as_ref().to_owned(),
            version: self.version.as_ref().to_owned(),
            aliases: aliases
                .iter()
                .map(|alias| alias.as_ref().to_owned())
                .collect(),
            resource: Some(prost_types::Any {
                type_url: resource_type.url().to_owned(),
                value: self.body.clone(),
            }),
            ..Default::default()
        }
    }
}

fn alias(address: &NetworkAddress) -> Arc<str> {
    address.to_string().into()
}

// === impl ResourceSet ===

impl ResourceSet {
    /// Grows with every change of content.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.of(resource_type).len()
    }

    pub fn is_empty(&self) -> bool {
        ResourceType::ALL.iter().all(|kind| self.len(*kind) == 0)
    }

    pub fn get(&self, resource_type: ResourceType, name: &str) -> Option<&Resource> {
        self.of(resource_type).get(name).map(Arc::as_ref)
    }

    /// Applies changes in order and says whether any changed the content.
    pub fn apply<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) -> bool {
        let mut changed = false;
        for change in changes {
            changed |= match change {
                Change::Workload(workload) => {
                    self.insert(ResourceType::Address, Resource::workload(workload))
                }
                Change::Service(service) => {
                    self.insert(ResourceType::Address, Resource::service(service))
                }
                Change::Authorization(policy) => {
                    self.insert(ResourceType::Authorization, Resource::authorization(policy))
                }
                Change::RemoveAddress(name) => self.remove(ResourceType::Address, name),
                Change::RemoveAuthorization(key) => {
                    self.remove(ResourceType::Authorization, &key.to_string())
                }
                Change::AuthorizationPolicy(policy) => self.insert(
                    ResourceType::AuthorizationPolicy,
                    Resource::authorization_policy(policy),
                ),
                Change::RemoveAuthorizationPolicy(key) => {
                    self.remove(ResourceType::AuthorizationPolicy, &key.to_string())
                }
                Change::RequestAuthentication(policy) => self.insert(
                    ResourceType::RequestAuthentication,
                    Resource::request_authentication(policy),
                ),
                Change::RemoveRequestAuthentication(key) => {
                    self.remove(ResourceType::RequestAuthentication, &key.to_string())
                }
                Change::Route(route) => self.insert(ResourceType::Route, Resource::route(route)),
                Change::RemoveRoute(key) => self.remove(ResourceType::Route, &key.to_string()),
            };
        }
        self.generation += u64::from(changed);
        changed
    }

    fn insert(&mut self, resource_type: ResourceType, resource: Resource) -> bool {
        let known = self.of(resource_type).get(&resource.name);
        if known.is_some_and(|known| **known == resource) {
            return false;
        }
        let name = resource.name.clone();
        self.remove(resource_type, &name);
        for group in &resource.groups {
            self.groups.insert((group.clone(), name.clone()));
        }
        self.of_mut(resource_type).insert(name, Arc::new(resource));
        true
    }

    fn remove(&mut self, resource_type: ResourceType, name: &str) -> bool {
        let Some(removed) = self.of_mut(resource_type).remove(name) else {
            return false;
        };
        for group in &removed.groups {
            self.groups.remove(&(group.clone(), removed.name.clone()));
        }
        true
    }

    pub(super) fn of(&self, resource_type: ResourceType) -> &Resources {
        match resource_type {
            ResourceType::Address => &self.addresses,
            ResourceType::Authorization => &self.authorizations,
            ResourceType::AuthorizationPolicy => &self.authorization_policies,
            ResourceType::RequestAuthentication => &self.request_authentications,
            ResourceType::Route => &self.routes,
        }
    }

    fn of_mut(&mut self, resource_type: ResourceType) -> &mut Resources {
        match resource_type {
            ResourceType::Address => &mut self.addresses,
            ResourceType::Authorization => &mut self.authorizations,
            ResourceType::AuthorizationPolicy => &mut self.authorization_policies,
            ResourceType::RequestAuthentication => &mut self.request_authentications,
            ResourceType::Route => &mut self.routes,
        }
    }

    /// The addresses of a group.
    pub(super) fn group(&self, group: Group) -> impl Iterator<Item = &Arc<Resource>> {
        let first = (group, Arc::from(""));
        self.groups
            .range(first.clone()..)
            .take_while(move |(other, _)| *other == first.0)
            .filter_map(|(_, name)| self.addresses.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, address: [u8; 4]) -> Change {
        let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
        workload.addresses = [address.into()].into_iter().collect();
        Change::Workload(workload)
    }

    #[test]
    fn only_new_content_makes_a_new_generation() {
        let mut set = ResourceSet::default();
        assert!(set.apply(&[pod("web", [10, 0, 0, 1])]));
        assert_eq!(set.generation(), 1);
        assert!(!set.apply(&[pod("web", [10, 0, 0, 1])]));
        assert_eq!(set.generation(), 1);
        assert!(set.apply(&[pod("web", [10, 0, 0, 2])]));
        assert_eq!(set.generation(), 2);
        assert!(!set.apply(&[Change::RemoveAddress("unknown".into())]));
    }

    #[test]
    fn a_version_is_its_content() {
        let version = |change| {
            let mut set = ResourceSet::default();
            set.apply(&[change]);
            let name = "Kubernetes//Pod/shop/web";
            let resource = set.get(ResourceType::Address, name).expect("applied");
            resource.version.clone()
        };
        let one = version(pod("web", [10, 0, 0, 1]));
        assert_eq!(one, version(pod("web", [10, 0, 0, 1])));
        assert_ne!(one, version(pod("web", [10, 0, 0, 2])));
        assert_eq!(one.len(), 16);
    }

    #[test]
    fn what_is_gone_is_in_no_group() {
        let mut set = ResourceSet::default();
        set.apply(&[pod("web", [10, 0, 0, 1]), pod("db", [10, 0, 0, 2])]);
        assert!(set.apply(&[Change::RemoveAddress("Kubernetes//Pod/shop/db".into())]));
        assert_eq!(set.len(ResourceType::Address), 1);
        let of_address = |ip: &str| set.group(Group::Alias(ip.into())).count();
        assert_eq!(of_address("/10.0.0.1"), 1);
        assert_eq!(of_address("/10.0.0.2"), 0);
    }
}
