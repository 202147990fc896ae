//! Every object, indexed so that a change names what must be translated again.
//!
//! ```text
//! object ──▶ View::apply ──▶ keys of the objects it touches ──▶ View::translate each
//! ```

mod dependents;
pub(crate) mod routes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use mesh::identity::DEFAULT_TRUST_DOMAIN;

use crate::allocate::Allocator;
use crate::kind::Kind;
use crate::kinds::authorization_policy::AuthorizationPolicy;
use crate::kinds::gateway::Gateway;
use crate::kinds::gateway_class::GatewayClass;
use crate::kinds::grpc_route::GrpcRoute;
use crate::kinds::http_route::HttpRoute;
use crate::kinds::namespace::Namespace;
use crate::kinds::node::Node;
use crate::kinds::peer_authentication::PeerAuthentication;
use crate::kinds::pod::Pod;
use crate::kinds::reference_grant::ReferenceGrant;
use crate::kinds::request_authentication::RequestAuthentication;
use crate::kinds::selector::Labels;
use crate::kinds::service::Service;
use crate::kinds::service_entry::ServiceEntry;
use crate::kinds::tcp_route::TcpRoute;
use crate::kinds::workload_entry::WorkloadEntry;
use crate::object::{Body, Object, ObjectKey};
use crate::view::routes::Routes;
use crate::waypoint;
use crate::waypoint::parameters::Parameters;

/// What is the same for the whole mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    pub trust_domain: Arc<str>,
    /// Former names of the trust domain, which policies may still use.
    pub trust_domain_aliases: Vec<Arc<str>>,
    /// Policies here are for every namespace.
    pub root_namespace: Arc<str>,
    pub cluster_domain: Arc<str>,
    pub cluster_id: Arc<str>,
    /// Empty is the default network.
    pub network: Arc<str>,
    /// Whether policies that only log are sent; proxies of old enforce them.
    pub dry_run_policies: bool,
}

/// The objects of the mesh and what they resolve to together.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub(crate) context: Context,
    pub(crate) namespaces: BTreeMap<Arc<str>, Contents>,
    pub(crate) nodes: BTreeMap<Arc<str>, Arc<Node>>,
    pub(crate) gateway_classes: BTreeMap<Arc<str>, Arc<GatewayClass>>,
    pub(crate) routes: Routes,
    /// Services and ServiceEntries by the hostnames they claim.
    claims: HashMap<String, BTreeSet<ObjectKey>>,
    allocator: Allocator,
}

/// The objects of one namespace, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    pub(crate) namespace: Option<Arc<Namespace>>,
    pub(crate) pods: BTreeMap<Arc<str>, Arc<Pod>>,
    /// Those of them that run waypoints.
    pub(crate) waypoint_pods: BTreeSet<Arc<str>>,
    /// The others by the accounts they run under.
    pub(crate) accounts: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    pub(crate) services: BTreeMap<Arc<str>, Arc<Service>>,
    pub(crate) service_entries: BTreeMap<Arc<str>, Arc<ServiceEntry>>,
    pub(crate) workload_entries: BTreeMap<Arc<str>, Arc<WorkloadEntry>>,
    pub(crate) authorization_policies: BTreeMap<Arc<str>, Arc<AuthorizationPolicy>>,
    pub(crate) peer_authentications: BTreeMap<Arc<str>, Arc<PeerAuthentication>>,
    pub(crate) request_authentications: BTreeMap<Arc<str>, Arc<RequestAuthentication>>,
    pub(crate) gateways: BTreeMap<Arc<str>, Arc<Gateway>>,
    pub(crate) parameters: BTreeMap<Arc<str>, Arc<Parameters>>,
    pub(crate) http_routes: BTreeMap<Arc<str>, Arc<HttpRoute>>,
    pub(crate) grpc_routes: BTreeMap<Arc<str>, Arc<GrpcRoute>>,
    pub(crate) tcp_routes: BTreeMap<Arc<str>, Arc<TcpRoute>>,
    pub(crate) reference_grants: BTreeMap<Arc<str>, Arc<ReferenceGrant>>,
}

// === impl Context ===

impl Default for Context {
    fn default() -> Self {
        Self {
            trust_domain: DEFAULT_TRUST_DOMAIN.into(),
            trust_domain_aliases: Vec::new(),
            root_namespace: "istio-system".into(),
            cluster_domain: "cluster.local".into(),
            cluster_id: "Kubernetes".into(),
            network: "".into(),
            dry_run_policies: true,
        }
    }
}

impl Context {
    /// The hostname of a Kubernetes Service.
    pub fn service_hostname(&self, name: &str, namespace: &str) -> String {
        format!("{name}.{namespace}.svc.{}", self.cluster_domain)
    }
}

// === impl View ===

impl View {
    pub fn new(context: Context) -> Self {
        Self {
            context,
            ..Self::default()
        }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Puts an object in, or takes it out where there is none, and returns the keys of
    /// all objects whose translation may now be another, its own included.
    pub fn apply(&mut self, key: &ObjectKey, object: Option<&Object>) -> BTreeSet<ObjectKey> {
        let mut touched = self.dependents(key);
        self.release(key);
        self.routes.apply(key, object.map(|object| &object.body));
        match object {
            Some(object) => self.insert(key, &object.body),
            None => self.remove(key),
        }
        touched.extend(self.claim(key));
        touched.extend(self.dependents(key));
        touched
    }

    fn insert(&mut self, key: &ObjectKey, body: &Body) {
        let name = key.name.clone();
        if let Body::Node(node) = body {
            self.nodes.insert(name, node.clone());
            return;
        }
        if let Body::GatewayClass(class) = body {
            self.gateway_classes.insert(name, class.clone());
            return;
        }
        let contents = self.namespaces.entry(namespace_of(key)).or_default();
        match body {
            Body::Namespace(namespace) => contents.namespace = Some(namespace.clone()),
            Body::Pod(pod) => {
                contents.remove_pod(&name);
                contents.insert_pod(name, pod);
            }
            Body::Service(service) => {
                contents.services.insert(name, service.clone());
            }
            Body::ServiceEntry(entry) => {
                contents.service_entries.insert(name, entry.clone());
            }
            Body::WorkloadEntry(entry) => {
                contents.workload_entries.insert(name, entry.clone());
            }
            Body::AuthorizationPolicy(policy) => {
                contents.authorization_policies.insert(name, policy.clone());
            }
            Body::PeerAuthentication(policy) => {
                contents.peer_authentications.insert(name, policy.clone());
            }
            Body::RequestAuthentication(policy) => {
                contents
                    .request_authentications
                    .insert(name, policy.clone());
            }
            Body::Gateway(gateway) => {
                contents.gateways.insert(name, gateway.clone());
            }
            Body::ConfigMap(config_map) => {
                let parameters = Parameters::read(config_map);
                contents.parameters.insert(name, Arc::new(parameters));
            }
            Body::HttpRoute(route) => {
                contents.http_routes.insert(name, route.clone());
            }
            Body::GrpcRoute(route) => {
                contents.grpc_routes.insert(name, route.clone());
            }
            Body::TcpRoute(route) => {
                contents.tcp_routes.insert(name, route.clone());
            }
            Body::ReferenceGrant(grant) => {
                contents.reference_grants.insert(name, grant.clone());
            }
            Body::Node(_)
            | Body::GatewayClass(_)
            | Body::ServiceAccount(_)
            | Body::Deployment(_) => {}
        }
    }

    fn remove(&mut self, key: &ObjectKey) {
        if key.kind == Kind::Node {
            self.nodes.remove(&key.name);
            return;
        }
        if key.kind == Kind::GatewayClass {
            self.gateway_classes.remove(&key.name);
            return;
        }
        let Some(contents) = self.namespaces.get_mut(&namespace_of(key)) else {
            return;
        };
        match key.kind {
            Kind::Namespace => contents.namespace = None,
            Kind::Pod => {
                contents.remove_pod(&key.name);
            }
            Kind::Service => {
                contents.services.remove(&key.name);
            }
            Kind::ServiceEntry => {
                contents.service_entries.remove(&key.name);
            }
            Kind::WorkloadEntry => {
                contents.workload_entries.remove(&key.name);
            }
            Kind::AuthorizationPolicy => {
                contents.authorization_policies.remove(&key.name);
            }
            Kind::PeerAuthentication => {
                contents.peer_authentications.remove(&key.name);
            }
            Kind::RequestAuthentication => {
                contents.request_authentications.remove(&key.name);
            }
            Kind::Gateway => {
                contents.gateways.remove(&key.name);
            }
            Kind::ConfigMap => {
                contents.parameters.remove(&key.name);
            }
            Kind::HttpRoute => {
                contents.http_routes.remove(&key.name);
            }
            Kind::GrpcRoute => {
                contents.grpc_routes.remove(&key.name);
            }
            Kind::TcpRoute => {
                contents.tcp_routes.remove(&key.name);
            }
            Kind::ReferenceGrant => {
                contents.reference_grants.remove(&key.name);
            }
            Kind::Node | Kind::GatewayClass | Kind::ServiceAccount | Kind::Deployment => {}
        }
    }

    /// Gives up the hostnames an object claimed so far.
    fn release(&mut self, key: &ObjectKey) {
        for hostname in self.hostnames(key) {
            if let Some(claims) = self.claims.get_mut(&hostname) {
                claims.remove(key);
                if claims.is_empty() {
                    self.claims.remove(&hostname);
                }
            }
        }
    }

    /// Claims the hostnames of an object, and addresses for those that have none; returns
    /// the entries whose allocated addresses had to give way.
    fn claim(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        for hostname in self.hostnames(key) {
            self.claims.entry(hostname).or_default().insert(key.clone());
        }
        if key.kind != Kind::ServiceEntry {
            return BTreeSet::new();
        }
        let entry = self
            .contents(&key.namespace)
            .and_then(|contents| contents.service_entries.get(&key.name))
            .cloned();
        match entry {
            Some(entry) => self.allocator.assign(key, &entry),
            None => {
                self.allocator.release(key);
                BTreeSet::new()
            }
        }
    }

    fn hostnames(&self, key: &ObjectKey) -> Vec<String> {
        let Some(contents) = self.contents(&key.namespace) else {
            return Vec::new();
        };
        match key.kind {
            Kind::Service if contents.services.contains_key(&key.name) => {
                vec![self.context.service_hostname(&key.name, &key.namespace)]
            }
            Kind::ServiceEntry => {
                contents
                    .service_entries
                    .get(&key.name)
                    .map_or(Vec::new(), |entry| {
                        entry
                            .spec
                            .hosts
                            .iter()
                            .map(|host| host.to_ascii_lowercase())
                            .collect()
                    })
            }
            _ => Vec::new(),
        }
    }

    /// The address allocated to a ServiceEntry's host, IPv4 then IPv6.
    pub fn allocated(&self, key: &ObjectKey, host: &str) -> Option<[IpAddr; 2]> {
        self.allocator.allocated(key, host)
    }

    pub(crate) fn contents(&self, namespace: &str) -> Option<&Contents> {
        self.namespaces.get(namespace)
    }

    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.contents(name)?.namespace.as_ref()
    }

    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// Who owns a hostname, in one namespace or in the whole mesh: a Service before any
    /// ServiceEntry, then the oldest.
    pub(crate) fn owner(&self, hostname: &str, namespace: Option<&str>) -> Option<&ObjectKey> {
        self.claims
            .get(&hostname.to_ascii_lowercase())?
            .iter()
            .filter(|key| namespace.is_none_or(|namespace| *key.namespace == *namespace))
            .min_by_key(|key| {
                let age = self
                    .contents(&key.namespace)
                    .and_then(|contents| contents.service_entries.get(&key.name))
                    .filter(|_| key.kind == Kind::ServiceEntry)
                    .map(|entry| entry.metadata.age());
                (key.kind != Kind::Service, age)
            })
    }

    /// Every PeerAuthentication, by namespace and name.
    pub(crate) fn peer_authentications(&self) -> impl Iterator<Item = &Arc<PeerAuthentication>> {
        self.namespaces
            .values()
            .flat_map(|contents| contents.peer_authentications.values())
    }
}

// === impl Contents ===

impl Contents {
    /// What a Service or ServiceEntry chooses its workloads by; none where it chooses none.
    pub(crate) fn selector(&self, service: &ObjectKey) -> Option<&Labels> {
        let labels = match service.kind {
            Kind::Service => &self.services.get(&service.name)?.spec.selector,
            _ => {
                let entry = self.service_entries.get(&service.name)?;
                &entry.spec.workload_selector.as_ref()?.labels
            }
        };
        Some(labels).filter(|labels| !labels.is_empty())
    }

    fn insert_pod(&mut self, name: Arc<str>, pod: &Arc<Pod>) {
        if waypoint::is_waypoint_pod(&pod.metadata) {
            self.waypoint_pods.insert(name.clone());
        } else {
            let account: Arc<str> = pod.service_account().into();
            self.accounts
                .entry(account)
                .or_default()
                .insert(name.clone());
        }
        self.pods.insert(name, pod.clone());
    }

    fn remove_pod(&mut self, name: &str) {
        let Some(pod) = self.pods.remove(name) else {
            return;
        };
        self.waypoint_pods.remove(name);
        let account = pod.service_account();
        if let Some(pods) = self.accounts.get_mut(account) {
            pods.remove(name);
            if pods.is_empty() {
                self.accounts.remove(account);
            }
        }
    }
}

/// Namespaces are kept by their own name.
fn namespace_of(key: &ObjectKey) -> Arc<str> {
    match key.kind {
        Kind::Namespace => key.name.clone(),
        _ => key.namespace.clone(),
    }
}
