//! What the mesh as it is now says of each destination, made once and asked per request.
//!
//! Everything here is made of one snapshot and goes with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use mesh::address::NamespacedHostname;
use mesh::authorization::{PolicySet, uniform_endpoint};
use mesh::policy_target::Gateway;
use mesh::request_authentication::AuthenticationSet;
use mesh::route::select::RouteTable;
use mesh::service::Service;
use mesh::snapshot::Snapshot;
use mesh::workload::{Workload, WorkloadUid};
use rand::Rng;

use super::cluster::{Cluster, ClusterKey, Loads};
use crate::config::Proxy;

/// Destinations kept at most; a client that dials more makes them anew.
const DESTINATIONS: usize = 16_384;

/// Everything made of one snapshot.
pub(crate) struct Plans {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Ends with all of this.
    pub(crate) life: Rc<()>,
    /// The waypoint itself, as the mesh knows it.
    own: Arc<Workload>,
    destinations: HashMap<DestinationKey, Rc<Destination>>,
    clusters: HashMap<ClusterKey, Option<Rc<Cluster>>>,
    endpoints: HashMap<(Option<NamespacedHostname>, WorkloadUid), Rc<Policies>>,
}

/// What was dialled, by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DestinationKey {
    pub(crate) service: Option<NamespacedHostname>,
    pub(crate) workload: Option<WorkloadUid>,
    pub(crate) port: u16,
    pub(crate) client_namespace: Arc<str>,
}

/// What is decided of requests to one port of one service, or of one workload.
pub(crate) struct Destination {
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) workload: Option<Arc<Workload>>,
    pub(crate) port: u16,
    pub(crate) routes: RouteTable,
    /// Evaluated before routing.
    pub(crate) policies: Rc<Policies>,
    /// What policies take for the destination: any endpoint where all are alike.
    pub(crate) policy_address: Option<SocketAddr>,
    /// Whether they are the endpoints' too, whichever is chosen.
    pub(crate) is_uniform: bool,
}

/// What is required of requests to one destination.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) authentication: AuthenticationSet,
    pub(crate) authorization: PolicySet,
}

// === impl Plans ===

impl Plans {
    pub(crate) fn new(snapshot: Arc<Snapshot>, proxy: &Proxy) -> Self {
        Self {
            own: own_workload(&snapshot, proxy),
            snapshot,
            life: Rc::new(()),
            destinations: HashMap::new(),
            clusters: HashMap::new(),
            endpoints: HashMap::new(),
        }
    }

    /// None where the service or the workload is gone.
    pub(crate) fn destination(
        &mut self,
        key: DestinationKey,
        gateway: &Gateway,
    ) -> Option<Rc<Destination>> {
        if let Some(known) = self.destinations.get(&key) {
            return Some(known.clone());
        }
        let destination = Rc::new(self.make_destination(&key, gateway)?);
        if self.destinations.len() >= DESTINATIONS {
            self.destinations.clear();
        }
        self.destinations.insert(key, destination.clone());
        Some(destination)
    }

    fn make_destination(&self, key: &DestinationKey, gateway: &Gateway) -> Option<Destination> {
        let snapshot = &self.snapshot;
        let Some(service) = &key.service else {
            let workload = snapshot.workload(key.workload.as_ref()?)?;
            return Some(Destination {
                service: None,
                workload: Some(workload.clone()),
                port: key.port,
                routes: RouteTable::Unrouted,
                policies: Rc::new(Policies::for_endpoint(snapshot, gateway, None, workload)),
                policy_address: None,
                is_uniform: true,
            });
        };
        let entry = snapshot.service(service)?;
        let uniform = uniform_endpoint(snapshot, gateway, entry, key.port);
        let policies = match uniform {
            Some(endpoint) => {
                let workload = &endpoint.workload;
                Policies::for_endpoint(snapshot, gateway, Some(service), workload)
            }
            None => Policies {
                authentication: AuthenticationSet::for_service(snapshot, gateway, service),
                authorization: PolicySet::for_service(snapshot, gateway, service),
            },
        };
        Some(Destination {
            service: Some(entry.service.clone()),
            workload: None,
            port: key.port,
            routes: RouteTable::new(snapshot, service, key.port, &key.client_namespace),
            policies: Rc::new(policies),
            policy_address: uniform.and_then(|endpoint| {
                let address = endpoint.workload.addresses.first()?;
                let port = entry.target_port(endpoint, key.port)?;
                Some(SocketAddr::new(*address, port))
            }),
            is_uniform: uniform.is_some(),
        })
    }

    /// The endpoints of a service's port; none where the service is not there.
    pub(crate) fn cluster(
        &mut self,
        key: &ClusterKey,
        loads: &Loads,
        random: &mut impl Rng,
    ) -> Option<Rc<Cluster>> {
        if let Some(known) = self.clusters.get(key) {
            return known.clone();
        }
        let entry = self.snapshot.service(&key.service);
        let cluster = entry.map(|entry| {
            let cluster = Cluster::new(key, entry, &self.own, loads, random);
            Rc::new(cluster)
        });
        self.clusters.insert(key.clone(), cluster.clone());
        cluster
    }

    /// What is required of requests to `service` that go to this workload.
    pub(crate) fn endpoint_policies(
        &mut self,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        workload: &Workload,
    ) -> Rc<Policies> {
        let snapshot = &self.snapshot;
        // What is open knows its endpoint as it was; policies are asked of it as it is.
        let workload = snapshot.workload(&workload.uid).map_or(workload, |now| now);
        let make = || Rc::new(Policies::for_endpoint(snapshot, gateway, service, workload));
        let key = (service.cloned(), workload.uid.clone());
        self.endpoints.entry(key).or_insert_with(make).clone()
    }

    pub(crate) fn own_workload(&self) -> &Arc<Workload> {
        &self.own
    }
}

/// The waypoint's pod; made up as long as the mesh does not know it.
fn own_workload(snapshot: &Snapshot, proxy: &Proxy) -> Arc<Workload> {
    let address = mesh::address::NetworkAddress::new(proxy.network.clone(), proxy.address);
    if let Some(workload) = snapshot.workload_at(&address) {
        return workload.clone();
    }
    let uid = format!(
        "{}//Pod/{}/{}",
        proxy.cluster_id, proxy.namespace, proxy.pod
    );
    let mut workload = Workload::new(&uid, &proxy.pod, &proxy.namespace);
    workload.network = proxy.network.clone();
    workload.node = proxy.node.clone();
    workload.cluster_id = proxy.cluster_id.clone();
    workload.addresses = vec![proxy.address];
    Arc::new(workload)
}

// === impl Policies ===

impl Policies {
    fn for_endpoint(
        snapshot: &Snapshot,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        workload: &Workload,
    ) -> Self {
        Self {
            authentication: AuthenticationSet::for_endpoint(snapshot, gateway, service, workload),
            authorization: PolicySet::for_endpoint(snapshot, gateway, service, workload),
        }
    }
}
