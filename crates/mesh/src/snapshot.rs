//! One immutable, indexed view of every workload, service and policy.
//!
//! A snapshot is cheap to clone (persistent maps), changed by [`Snapshot::apply`] and then
//! published whole, so that a reader never sees half a change.

mod attachments;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use imbl::HashMap;

use self::attachments::Attachments;
use crate::address::{NamespacedHostname, NetworkAddress, NetworkCidr};
use crate::authorization::{Authorization, PolicyKey, Scope};
use crate::identity::Identity;
use crate::request_authentication::RequestAuthentication;
use crate::route::{Route, RouteKey};
use crate::service::{HealthPolicy, Port, Service, Visibility};
use crate::workload::{NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadUid};

/// One change of one resource.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "changes are made, sent and dropped one by one; a box each would cost more"
)]
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
    pub endpoints: Arc<[Endpoint]>,
    /// How many workloads back the service, healthy or not.
    pub members: usize,
    /// Whether all endpoints weigh the same, so that any one may be drawn without a scan.
    pub equal_capacity: bool,
}

/// One workload as a member of one service.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub workload: Arc<Workload>,
    /// The workload's own ports for this service.
    pub ports: Arc<[Port]>,
    /// Who may answer for it: itself, and whom the service vouches for.
    pub expected: Arc<[Identity]>,
}

/// Every resource by every key it is looked up by.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    workloads: HashMap<WorkloadUid, Arc<Workload>>,
    addresses: HashMap<NetworkAddress, Arc<[WorkloadUid]>>,
    services: HashMap<NamespacedHostname, Arc<ServiceEntry>>,
    members: HashMap<NamespacedHostname, Arc<BTreeSet<WorkloadUid>>>,
    vips: HashMap<NetworkAddress, Arc<[NamespacedHostname]>>,
    cidr_vips: HashMap<NetworkCidr, Arc<[NamespacedHostname]>>,
    hostnames: HashMap<Arc<str>, Arc<[NamespacedHostname]>>,
    policies: HashMap<PolicyKey, Arc<Authorization>>,
    global_policies: Arc<[Arc<Authorization>]>,
    namespace_policies: HashMap<Arc<str>, Arc<[Arc<Authorization>]>>,
    routes: HashMap<RouteKey, Arc<Route>>,
    /// In the order of their keys.
    routes_by_service: HashMap<NamespacedHostname, Arc<[Arc<Route>]>>,
    authorization_policies: Attachments<Authorization>,
    request_authentications: Attachments<RequestAuthentication>,
    preferred_namespace: Option<Arc<str>>,
}

// === impl ServiceEntry ===

impl ServiceEntry {
    /// The endpoint's target port for a service port: the endpoint's own mapping, else
    /// the service's; none where neither says.
    pub fn target_port(&self, endpoint: &Endpoint, service_port: u16) -> Option<u16> {
        endpoint
            .ports
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
        self.workloads.get(uid)
    }

    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The workload at an address. Where several claim it, a pod wins, then one that
    /// speaks HBONE, then the lowest uid. Host-network workloads are never found.
    pub fn workload_at(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.addresses
            .get(address)?
            .first()
            .and_then(|uid| self.workloads.get(uid))
    }

    pub fn service(&self, key: &NamespacedHostname) -> Option<&Arc<ServiceEntry>> {
        self.services.get(key)
    }

    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.services.values()
    }

    /// The service a client of `client_namespace` means by a virtual address: exact
    /// addresses before ranges, longer ranges first; then the client's namespace, the
    /// canonical owner, the first by key. Services not visible to the client don't count.
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
        let mut ranges: Vec<_> = self
            .cidr_vips
            .iter()
            .filter(|(range, _)| {
                range.network == address.network && range.cidr.contains(&address.address)
            })
            .collect();
        ranges.sort_by_key(|(range, _)| std::cmp::Reverse(range.cidr.prefix_len()));
        ranges
            .into_iter()
            .find_map(|(_, keys)| self.preferred(keys, client_namespace))
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
        keys.iter()
            .filter_map(|key| self.services.get(key))
            .filter(|entry| match entry.service.visibility {
                Visibility::Public => true,
                Visibility::Namespace => &*entry.service.namespace == client_namespace,
            })
            .min_by_key(|entry| {
                (
                    &*entry.service.namespace != client_namespace,
                    !entry.service.canonical,
                    Some(&entry.service.namespace) != self.preferred_namespace.as_ref(),
                    entry.service.key(),
                )
            })
    }

    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Authorization>> {
        self.policies.get(key)
    }

    pub fn policies(&self) -> impl Iterator<Item = &Arc<Authorization>> {
        self.policies.values()
    }

    pub fn global_policies(&self) -> &[Arc<Authorization>] {
        &self.global_policies
    }

    pub fn namespace_policies(&self, namespace: &str) -> &[Arc<Authorization>] {
        self.namespace_policies
            .get(namespace)
            .map_or(&[], |policies| policies)
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

    /// Applies changes in order; readers of clones made before see none of them.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut touched_services = HashSet::new();
        let mut policies_touched = false;
        for change in changes {
            match change {
                Change::Workload(workload) => {
                    self.remove_workload(&workload.uid, &mut touched_services);
                    self.insert_workload(workload, &mut touched_services);
                }
                Change::Service(service) => {
                    let key = service.key();
                    self.remove_service(&key);
                    self.insert_service(service);
                    touched_services.insert(key);
                }
                Change::RemoveAddress(name) => {
                    let uid = WorkloadUid(name);
                    if !self.remove_workload(&uid, &mut touched_services)
                        && let Some(key) = NamespacedHostname::parse(&uid.0)
                    {
                        self.remove_service(&key);
                    }
                }
                Change::Authorization(policy) => {
                    self.policies.insert(policy.key(), Arc::new(policy));
                    policies_touched = true;
                }
                Change::RemoveAuthorization(key) => {
                    self.policies.remove(&key);
                    policies_touched = true;
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
        for key in touched_services {
            self.rebuild_endpoints(&key);
        }
        if policies_touched {
            self.rebuild_policy_scopes();
        }
    }

    fn insert_workload(&mut self, workload: Workload, touched: &mut HashSet<NamespacedHostname>) {
        let uid = workload.uid.clone();
        let workload = Arc::new(workload);
        self.workloads.insert(uid.clone(), workload.clone());
        if workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                let key = NetworkAddress::new(workload.network.clone(), *address);
                let mut claimants: Vec<WorkloadUid> =
                    self.addresses.get(&key).map_or(Vec::new(), |c| c.to_vec());
                claimants.push(uid.clone());
                claimants.sort_by_key(|uid| {
                    let hbone = self
                        .workloads
                        .get(uid)
                        .is_some_and(|w| w.tunnel_protocol == TunnelProtocol::Hbone);
                    (!uid.is_pod(), !hbone, uid.clone())
                });
                self.addresses.insert(key, claimants.into());
            }
        }
        for service in workload.services.keys() {
            Arc::make_mut(self.members.entry(service.clone()).or_default()).insert(uid.clone());
            touched.insert(service.clone());
        }
    }

    fn remove_workload(
        &mut self,
        uid: &WorkloadUid,
        touched: &mut HashSet<NamespacedHostname>,
    ) -> bool {
        let Some(workload) = self.workloads.remove(uid) else {
            return false;
        };
        for address in &workload.addresses {
            let key = NetworkAddress::new(workload.network.clone(), *address);
            retain_keys(&mut self.addresses, &key, |claimant| claimant != uid);
        }
        for service in workload.services.keys() {
            let emptied = self.members.get_mut(service).is_some_and(|members| {
                Arc::make_mut(members).remove(uid);
                members.is_empty()
            });
            if emptied {
                self.members.remove(service);
            }
            touched.insert(service.clone());
        }
        true
    }

    fn insert_service(&mut self, service: Service) {
        let key = service.key();
        for address in &service.addresses {
            push_key(&mut self.vips, address.clone(), &key);
        }
        for range in &service.cidr_vips {
            push_key(&mut self.cidr_vips, range.clone(), &key);
        }
        let hostname: Arc<str> = service.hostname.to_ascii_lowercase().into();
        push_key(&mut self.hostnames, hostname, &key);
        let entry = ServiceEntry {
            service: Arc::new(service),
            endpoints: Arc::new([]),
            members: 0,
            equal_capacity: true,
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
        let hostname: Arc<str> = service.hostname.to_ascii_lowercase().into();
        retain_keys(&mut self.hostnames, &hostname, |known| known != key);
    }

    fn rebuild_endpoints(&mut self, key: &NamespacedHostname) {
        let Some(entry) = self.services.get(key) else {
            return;
        };
        let empty = Arc::default();
        let members = self.members.get(key).unwrap_or(&empty);
        let vouched = entry.service.subject_alt_names.iter();
        // A name of another shape is no workload's and can't be presented.
        let vouched: Vec<Identity> = vouched.filter_map(|name| name.parse().ok()).collect();
        let endpoints: Arc<[Endpoint]> = members
            .iter()
            .filter_map(|uid| self.workloads.get(uid))
            .filter(
                |workload| match entry.service.load_balancing.health_policy {
                    HealthPolicy::AllowAll => true,
                    HealthPolicy::OnlyHealthy => workload.status == WorkloadStatus::Healthy,
                },
            )
            .map(|workload| Endpoint {
                workload: workload.clone(),
                ports: workload
                    .services
                    .get(key)
                    .map_or(Arc::new([]), |ports| Arc::from(ports.as_slice())),
                expected: std::iter::once(workload.identity())
                    .chain(vouched.iter().cloned())
                    .collect(),
            })
            .collect();
        let capacity = |endpoint: &Endpoint| endpoint.workload.capacity;
        let equal_capacity = match endpoints.split_first() {
            Some((first, others)) => {
                capacity(first) != 0 && others.iter().all(|one| capacity(one) == capacity(first))
            }
            None => true,
        };
        let entry = ServiceEntry {
            service: entry.service.clone(),
            endpoints,
            members: members.len(),
            equal_capacity,
        };
        self.services.insert(key.clone(), Arc::new(entry));
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
        let mut policies: Vec<_> = self.policies.values().cloned().collect();
        policies.sort_by_key(|policy| policy.key());
        let mut global = Vec::new();
        let mut namespaces: std::collections::HashMap<Arc<str>, Vec<_>> = Default::default();
        for policy in policies {
            match policy.scope {
                Scope::Global => global.push(policy),
                Scope::Namespace => namespaces
                    .entry(policy.namespace.clone())
                    .or_default()
                    .push(policy),
                Scope::WorkloadSelector | Scope::Target => {}
            }
        }
        self.global_policies = global.into();
        self.namespace_policies = namespaces
            .into_iter()
            .map(|(namespace, policies)| (namespace, policies.into()))
            .collect();
    }
}

/// The services a route is attached to, each once.
fn parents(route: &Route) -> BTreeSet<&NamespacedHostname> {
    route.parents.iter().map(|parent| &parent.service).collect()
}

fn push_key<K, V>(map: &mut HashMap<K, Arc<[V]>>, key: K, value: &V)
where
    K: Clone + Eq + std::hash::Hash,
    V: Clone,
{
    let mut values = map.get(&key).map_or(Vec::new(), |values| values.to_vec());
    values.push(value.clone());
    map.insert(key, values.into());
}

fn retain_keys<K, V>(map: &mut HashMap<K, Arc<[V]>>, key: &K, keep: impl Fn(&V) -> bool)
where
    K: Clone + Eq + std::hash::Hash,
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
