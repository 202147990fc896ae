//! What the mesh as it is now says of each destination, made once and asked per request.
//!
//! Everything here is made of one snapshot and goes with it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use mesh::address::NamespacedHostname;
use mesh::policy_target::Gateway;
use mesh::snapshot::Snapshot;
use mesh::waypoint::{Destination, Policies};
use mesh::workload::{Workload, WorkloadUid};
use rand::Rng;

use super::cluster::{Cluster, ClusterKey, Loads, Surroundings};
use crate::config::Proxy;
use crate::names::Names;

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
    endpoints: HashMap<(Option<NamespacedHostname>, WorkloadUid, u16), Arc<Policies>>,
}

/// What was dialled, by whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DestinationKey {
    pub(crate) service: Option<NamespacedHostname>,
    pub(crate) workload: Option<WorkloadUid>,
    pub(crate) port: u16,
    pub(crate) client_namespace: Arc<str>,
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
        let (snapshot, clients) = (&self.snapshot, &key.client_namespace);
        match &key.service {
            Some(service) => Destination::of_service(snapshot, gateway, service, key.port, clients),
            None => {
                let workload = snapshot.workload(key.workload.as_ref()?)?;
                Some(Destination::of_workload(
                    snapshot, gateway, workload, key.port,
                ))
            }
        }
    }

    /// The endpoints of a service's port; none where the service is not there.
    pub(crate) fn cluster(
        &mut self,
        key: &ClusterKey,
        loads: &Loads,
        names: &Names,
        random: &mut impl Rng,
    ) -> Option<Rc<Cluster>> {
        let current = |known: &&Option<Rc<Cluster>>| {
            known.as_ref().is_none_or(|cluster| cluster.is_current())
        };
        if let Some(known) = self.clusters.get(key).filter(current) {
            return known.clone();
        }
        let around = Surroundings {
            snapshot: &self.snapshot,
            own: &self.own,
            names,
        };
        let entry = self.snapshot.service(&key.service);
        let cluster = entry.map(|entry| {
            let cluster = Cluster::new(key, entry, &around, loads, random);
            Rc::new(cluster)
        });
        self.clusters.insert(key.clone(), cluster.clone());
        cluster
    }

    /// What is required of requests to `service` that go to this port of this workload.
    pub(crate) fn endpoint_policies(
        &mut self,
        gateway: &Gateway,
        service: Option<&NamespacedHostname>,
        (workload, port): (&Workload, u16),
    ) -> Arc<Policies> {
        let snapshot = &self.snapshot;
        // What is open knows its endpoint as it was; policies are asked of it as it is.
        let workload = snapshot.workload(&workload.uid).map_or(workload, |now| now);
        let at = (workload, port);
        let make = || Arc::new(Policies::for_endpoint(snapshot, gateway, service, at));
        let key = (service.cloned(), workload.uid.clone(), port);
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
    workload.addresses = [proxy.address].into_iter().collect();
    Arc::new(workload)
}
