//! One immutable, indexed view of every workload, service and policy.
//!
//! A snapshot is cheap to clone (persistent maps), changed by [`Snapshot::apply`] and then
//! published whole, so that a reader never sees half a change.

mod attachments;
mod by_uid;
mod changed;
mod claimants;
mod endpoints;
mod membership;
mod policy_scopes;
mod touched;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use self::attachments::Attachments;
use self::by_uid::ByUid;
pub use self::changed::Changed;
use self::claimants::Claimants;
pub use self::endpoints::Endpoints;
use self::membership::Membership;
pub use self::policy_scopes::{PoliciesVersion, ScopedPolicies};
use self::touched::{Touch, Touched};
use crate::address::{NamespacedHostname, NetworkAddress, NetworkCidr};
use crate::authorization::{Authorization, PolicyKey};
use crate::identity::Identity;
use crate::request_authentication::RequestAuthentication;
use crate::route::{Route, RouteKey};
use crate::service::{Service, Visibility};
use crate::workload::{NetworkMode, Workload, WorkloadUid};

/// One change of one resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Workload(Workload),
    Service(Service),
    Authorization(Authorization),
    /// A workload's uid or a service's `namespace/hostname`.
    RemoveAddress(Arc<str>),
    RemoveAuthorization(PolicyKey),
    Route(Route),
    RemoveRoute(RouteKey),
    /// A whole AuthorizationPolicy, as waypoints evaluate it; [`Change::Authorization`] is what of
    /// it a node can.
    AuthorizationPolicy(Authorization),
    RemoveAuthorizationPolicy(PolicyKey),
    RequestAuthentication(RequestAuthentication),
    RemoveRequestAuthentication(PolicyKey),
}

/// A service with its endpoints, in the order of their uids.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    pub service: Arc<Service>,
    /// Those that the service's health policy admits.
    pub endpoints: Endpoints,
    /// How many workloads back the service, healthy or not.
    pub members: usize,
}

/// One workload as a member of one service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub workload: Arc<Workload>,
    /// Who may answer for it: itself, and whom the service vouches for.
    pub expected: Arc<[Identity]>,
}

/// Every resource by every key it is looked up by. The maps are trees: hash maps that are
/// persistent, too, take three to five times the memory.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    workloads: OrdSet<ByUid>,
    /// By network: most meshes have one.
    addresses: OrdMap<Arc<str>, OrdMap<IpAddr, Claimants>>,
    services: OrdMap<NamespacedHostname, Arc<ServiceEntry>>,
    members: OrdMap<NamespacedHostname, OrdSet<ByUid>>,
    vips: OrdMap<NetworkAddress, Arc<[NamespacedHostname]>>,
    cidr_vips: OrdMap<NetworkCidr, Arc<[NamespacedHostname]>>,
    hostnames: OrdMap<Arc<str>, Arc<[NamespacedHostname]>>,
    policies: OrdMap<PolicyKey, Arc<Authorization>>,
    policies_version: PoliciesVersion,
    global_policies: ScopedPolicies,
    namespace_policies: OrdMap<Arc<str>, ScopedPolicies>,
    routes: OrdMap<RouteKey, Arc<Route>>,
    /// In the order of their keys.
    routes_by_service: OrdMap<NamespacedHostname, Arc<[Arc<Route>]>>,
    authorization_policies: Attachments<Authorization>,
    request_authentications: Attachments<RequestAuthentication>,
    preferred_namespace: Option<Arc<str>>,
}

/// Which of several services a client means, as Istio's tunnel has it. One of the client's own namespace
/// is meant before a narrower one of another.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_own: bool,
    /// Of the range that the address is in.
    prefix_length: u8,
    is_canonical: bool,
    is_preferred: bool,
    /// By key.
    first: Reverse<NamespacedHostname>,
}

/// Members of a service that change before its endpoints are listed anew.
const FEW_MEMBERS: usize = 16;

// === impl ServiceEntry ===

impl ServiceEntry {
    /// The endpoint's target port for a service port: the endpoint's own mapping, else
    /// the service's; none where neither says.
    pub fn target_port(&self, endpoint: &Endpoint, service_port: u16) -> Option<u16> {
        let own = endpoint.workload.services.of(&self.service);
        own.unwrap_or_default()
            .iter()
            .find(|port| port.service_port == service_port && port.target_port != 0)
            .or_else(|| {
                self.service
                    .port(service_port)
                    .filter(|port| port.target_port != 0)
            })
            .map(|port| port.target_port)
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Among services of one hostname, has this namespace's win over others that are not the
    /// client's own nor canonical.
    pub fn prefer_namespace(&mut self, namespace: Option<Arc<str>>) {
        self.preferred_namespace = namespace;
    }

    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid).map(|ByUid(workload)| workload)
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|ByUid(workload)| workload)
    }

    /// The workload at an address. Where several claim it, a pod wins, then one that
    /// speaks HBONE, then the lowest uid. Host-network workloads are never found.
    pub fn workload_at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        let addresses = self.addresses.get(&address.network)?;
        addresses.get(&address.address)?.first()
    }

    pub fn service(&self, key: &NamespacedHostname) -> Option<&Arc<ServiceEntry>> {
        self.services.get(key)
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.values()
    }

    /// The service a client of `client_namespace` means by a virtual address: exact addresses before
    /// ranges, and of several the one with the highest [`Rank`]. Services not visible to the client
    /// don't count.
    pub fn service_at(
        &self,
        address: &NetworkAddress,
        client_namespace: &str,
    ) -> Option<&Arc<ServiceEntry>> {
        if let Some(keys) = self.vips.get(address)
            && let Some(entry) = self.preferred(keys, client_namespace)
        {
            return Some(entry);
        }
        let ranges = self.cidr_vips.iter().filter(|(range, _)| {
            range.network == address.network && range.cidr.contains(&address.address)
        });
        let keys = ranges.flat_map(|(range, keys)| {
            let length = range.cidr.prefix_len();
            keys.iter().map(move |key| (key, length))
        });
        self.highest(keys, client_namespace)
    }

    /// The service a client of `client_namespace` means by a hostname (any letter case).
    pub fn service_named(
        &self,
        hostname: &str,
        client_namespace: &str,
    ) -> Option<&Arc<ServiceEntry>> {
        let keys = match self.hostnames.get(hostname) {
            Some(keys) => keys,
            None => self.hostnames.get(hostname.to_ascii_lowercase().as_str())?,
        };
        self.preferred(keys, client_namespace)
    }

    fn preferred(
        &self,
        keys: &[NamespacedHostname],
        client_namespace: &str,
    ) -> Option<&Arc<ServiceEntry>> {
        self.highest(keys.iter().map(|key| (key, 0)), client_namespace)
    }

    /// Of services with the prefix length of the range that they were found by.
    fn highest<'a>(
        &self,
        keys: impl Iterator<Item = (&'a NamespacedHostname, u8)>,
        client_namespace: &str,
    ) -> Option<&Arc<ServiceEntry>> {
        keys.filter_map(|(key, length)| Some((self.services.get(key)?, length)))
            .filter(|(entry, _)| match entry.service.visibility {
                Visibility::Public => true,
                Visibility::Namespace => &*entry.service.namespace == client_namespace,
            })
            .max_by_key(|(entry, length)| Rank {
                is_own: &*entry.service.namespace == client_namespace,
                prefix_length: *length,
                is_canonical: entry.service.canonical,
                is_preferred: Some(&entry.service.namespace) == self.preferred_namespace.as_ref(),
                first: Reverse(entry.service.key()),
            })
            .map(|(entry, _)| entry)
    }

    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Authorization>> {
        self.policies.get(key)
    }

    pub fn policies(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.policies.values()
    }

    /// Equal where no policy that nodes evaluate has come, gone or changed.
    pub fn policies_version(&self) -> &PoliciesVersion {
        &self.policies_version
    }

    pub fn global_policies(&self) -> &ScopedPolicies {
        &self.global_policies
    }

    pub fn namespace_policies(&self, namespace: &str) -> Option<&ScopedPolicies> {
        self.namespace_policies.get(namespace)
    }

    pub fn route(&self, key: &RouteKey) -> Option<&Arc<Route>> {
        self.routes.get(key)
    }

    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// The routes attached to a service, in the order of their keys.
    pub fn routes_of(&self, service: &NamespacedHostname) -> &[Arc<Route>] {
        self.routes_by_service
            .get(service)
            .map_or(&[], |routes| routes)
    }

    pub fn authorization_policy(&self, key: &PolicyKey) -> Option<&Arc<Authorization>> {
        self.authorization_policies.get(key)
    }

    pub fn authorization_policies(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.authorization_policies.values()
    }

    pub(crate) fn attached_authorization_policies(&self) -> &Attachments<Authorization> {
        &self.authorization_policies
    }

    pub fn request_authentication(&self, key: &PolicyKey) -> Option<&Arc<RequestAuthentication>> {
        self.request_authentications.get(key)
    }

    pub fn request_authentications(&self) -> impl Iterator<Item = &Arc<RequestAuthentication>> {
        self.request_authentications.values()
    }

    pub(crate) fn attached_request_authentications(&self) -> &Attachments<RequestAuthentication> {
        &self.request_authentications
    }

    /// Applies changes in order, and tells what they were about; readers of clones made before see
    /// none of them.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Changed {
        let mut touched_services = Touched::default();
        let mut changed = Changed::default();
        for change in changes {
            match change {
                Change::Workload(workload) => {
                    changed.workloads.push(workload.uid.clone());
                    self.remove_workload(&workload.uid, &mut touched_services);
                    self.insert_workload(workload, &mut touched_services);
                }
                Change::Service(service) => {
                    let key = service.key();
                    self.remove_service(&key);
                    self.insert_service(service);
                    touched_services.insert(key, Touch::Service);
                }
                Change::RemoveAddress(name) => {
                    let uid = WorkloadUid(name);
                    if self.remove_workload(&uid, &mut touched_services) {
                        changed.workloads.push(uid);
                    } else if let Some(key) = NamespacedHostname::parse(&uid.0) {
                        self.remove_service(&key);
                    }
                }
                Change::Authorization(policy) => {
                    self.policies.insert(policy.key(), Arc::new(policy));
                    changed.policies = true;
                }
                Change::RemoveAuthorization(key) => {
                    self.policies.remove(&key);
                    changed.policies = true;
                }
                Change::Route(route) => {
                    self.remove_route(&route.key);
                    self.insert_route(route);
                }
                Change::RemoveRoute(key) => self.remove_route(&key),
                Change::AuthorizationPolicy(policy) => {
                    self.authorization_policies.insert(policy);
                }
                Change::RemoveAuthorizationPolicy(key) => {
                    self.authorization_policies.remove(&key);
                }
                Change::RequestAuthentication(policy) => {
                    self.request_authentications.insert(policy);
                }
                Change::RemoveRequestAuthentication(key) => {
                    self.request_authentications.remove(&key);
                }
            }
        }
        for (key, touch) in touched_services {
            match touch {
                Touch::Members(uids) if uids.len() <= FEW_MEMBERS => {
                    self.update_endpoints(&key, &uids);
                }
                Touch::Members(_) | Touch::Service => self.rebuild_endpoints(&key),
            }
        }
        if changed.policies {
            self.rebuild_policy_scopes();
        }
        changed
    }

    fn insert_workload(&mut self, workload: Workload, touched: &mut Touched) {
        let workload = Arc::new(workload);
        self.workloads.insert(ByUid(workload.clone()));
        if workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                let addresses = self.addresses.entry(workload.network.clone()).or_default();
                let claimants = match addresses.get(address) {
                    Some(others) => others.with(workload.clone()),
                    None => Claimants::One(workload.clone()),
                };
                addresses.insert(*address, claimants);
            }
        }
        for service in workload.services.keys() {
            let members = self.members.entry(service.clone()).or_default();
            members.insert(ByUid(workload.clone()));
            let touch = Touch::Members(vec![workload.uid.clone()]);
            touched.insert(service.clone(), touch);
        }
    }

    fn remove_workload(&mut self, uid: &WorkloadUid, touched: &mut Touched) -> bool {
        let Some(ByUid(workload)) = self.workloads.remove(uid) else {
            return false;
        };
        for address in &workload.addresses {
            self.release_address(&workload.network, address, uid);
        }
        for service in workload.services.keys() {
            let emptied = self.members.get_mut(service).is_some_and(|members| {
                members.remove(uid);
                members.is_empty()
            });
            if emptied {
                self.members.remove(service);
            }
            touched.insert(service.clone(), Touch::Members(vec![uid.clone()]));
        }
        true
    }

    fn release_address(&mut self, network: &Arc<str>, address: &IpAddr, uid: &WorkloadUid) {
        let Some(addresses) = self.addresses.get_mut(network) else {
            return;
        };
        match addresses.get(address).map(|known| known.without(uid)) {
            Some(Some(others)) => _ = addresses.insert(*address, others),
            Some(None) => _ = addresses.remove(address),
            None => {}
        }
        if addresses.is_empty() {
            self.addresses.remove(network);
        }
    }

    fn insert_service(&mut self, service: Service) {
        let key = service.key();
        for address in &service.addresses {
            push_key(&mut self.vips, address.clone(), &key);
        }
        for range in &service.cidr_vips {
            push_key(&mut self.cidr_vips, range.clone(), &key);
        }
        let hostname = lowercase(&service.hostname);
        push_key(&mut self.hostnames, hostname, &key);
        let entry = ServiceEntry {
            service: Arc::new(service),
            endpoints: Endpoints::default(),
            members: 0,
        };
        self.services.insert(key, Arc::new(entry));
    }

    fn remove_service(&mut self, key: &NamespacedHostname) {
        let Some(entry) = self.services.remove(key) else {
            return;
        };
        let service = &entry.service;
        for address in &service.addresses {
            retain_keys(&mut self.vips, address, |known| known != key);
        }
        for range in &service.cidr_vips {
            retain_keys(&mut self.cidr_vips, range, |known| known != key);
        }
        let hostname = lowercase(&service.hostname);
        retain_keys(&mut self.hostnames, &hostname, |known| known != key);
    }

    /// Takes in what has become of some members of a service, however many others it has.
    fn update_endpoints(&mut self, key: &NamespacedHostname, uids: &[WorkloadUid]) {
        let Some(entry) = self.services.get(key) else {
            return;
        };
        let membership = Membership::of(&entry.service);
        let mut endpoints = entry.endpoints.clone();
        for uid in uids {
            let workload = self.workload(uid);
            let member = workload.filter(|workload| membership.admits(workload));
            match member {
                Some(workload) => {
                    let sibling = endpoints.find(uid).or_else(|| endpoints.get(0));
                    let endpoint = membership.endpoint(workload, sibling);
                    endpoints.insert(endpoint);
                }
                None => endpoints.remove(uid),
            }
        }
        self.set_endpoints(key, endpoints);
    }

    fn rebuild_endpoints(&mut self, key: &NamespacedHostname) {
        let Some(entry) = self.services.get(key) else {
            return;
        };
        let membership = Membership::of(&entry.service);
        let none = OrdSet::new();
        let members = self.members.get(key).unwrap_or(&none).iter();
        let workloads = members.map(|ByUid(workload)| workload);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for workload in workloads.filter(|workload| membership.admits(workload)) {
            endpoints.push(membership.endpoint(workload, endpoints.last()));
        }
        self.set_endpoints(key, endpoints.into_iter().collect());
    }

    fn set_endpoints(&mut self, key: &NamespacedHostname, endpoints: Endpoints) {
        let members = self.members.get(key).map_or(0, OrdSet::len);
        if let Some(entry) = self.services.get_mut(key) {
            *entry = Arc::new(ServiceEntry {
                service: entry.service.clone(),
                endpoints,
                members,
            });
        }
    }

    fn insert_route(&mut self, route: Route) {
        let route = Arc::new(route);
        self.routes.insert(route.key.clone(), route.clone());
        for service in parents(&route) {
            let routes = self.routes_by_service.get(service);
            let mut routes = routes.map_or(Vec::new(), |routes| routes.to_vec());
            let at = routes.partition_point(|known| known.key < route.key);
            routes.insert(at, route.clone());
            let routes = routes.into();
            self.routes_by_service.insert(service.clone(), routes);
        }
    }

    fn remove_route(&mut self, key: &RouteKey) {
        let Some(route) = self.routes.remove(key) else {
            return;
        };
        for service in parents(&route) {
            retain_keys(&mut self.routes_by_service, service, |known| {
                known.key != *key
            });
        }
    }

    fn rebuild_policy_scopes(&mut self) {
        self.policies_version = PoliciesVersion::default();
        let (global, namespaces) = policy_scopes::of(self.policies.values());
        self.global_policies = ScopedPolicies::of(global, Some(&self.global_policies));
        let namespaces = namespaces.into_iter().map(|(namespace, policies)| {
            let before = self.namespace_policies.get(&namespace);
            let policies = ScopedPolicies::of(policies, before);
            (namespace, policies)
        });
        self.namespace_policies = namespaces.collect();
    }
}

fn lowercase(hostname: &Arc<str>) -> Arc<str> {
    match hostname.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => hostname.to_ascii_lowercase().into(),
        false => hostname.clone(),
    }
}

/// The services a route is attached to, each once.
fn parents(route: &Route) -> BTreeSet<&NamespacedHostname> {
    route.parents.iter().map(|parent| &parent.service).collect()
}

fn push_key<K, V>(map: &mut OrdMap<K, Arc<[V]>>, key: K, value: &V)
where
    K: Clone + Ord,
    V: Clone,
{
    let mut values = map.get(&key).map_or(Vec::new(), |values| values.to_vec());
    values.push(value.clone());
    map.insert(key, values.into());
}

fn retain_keys<K, V>(map: &mut OrdMap<K, Arc<[V]>>, key: &K, keep: impl Fn(&V) -> bool)
where
    K: Clone + Ord,
    V: Clone,
{
    let Some(values) = map.get(key) else {
        return;
    };
    let kept: Vec<V> = values.iter().filter(|value| keep(value)).cloned().collect();
    if kept.is_empty() {
        map.remove(key);
    } else {
        map.insert(key.clone(), kept.into());
    }
}

#[cfg(test)]
mod tests;
