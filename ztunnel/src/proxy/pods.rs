//! The pods this process serves, known by uid and by name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwap;
use mesh::identity::Identity;
use mesh::snapshot::Snapshot;
use mesh::workload::{Workload, WorkloadUid};
use serde::Serialize;

use super::config::Config;
use super::sockets;

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// The orchestrator's uid of the pod.
    pub uid: Arc<str>,
    pub info: WorkloadInfo,
    /// The pod's network namespace; none for this process's own.
    pub netns: Option<Arc<OwnedFd>>,
    pub served: Served,
}

/// What of a pod is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// Whatever it opens, and whatever comes to it.
    Everything,
    /// Tunnels to these ports: the pod is this process, which nothing is captured of.
    Ports(Arc<[u16]>),
}

/// Whose connections they are, from whoever handed over the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadInfo {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

/// A pod served here.
#[derive(Debug)]
pub struct Pod {
    pub uid: Arc<str>,
    pub info: WorkloadInfo,
    pub netns: Option<Arc<OwnedFd>>,
    pub(crate) served: Served,
    /// Who it is where this process is its alone, and asks the CA as itself.
    own: Option<Identity>,
    workload_uid: WorkloadUid,
    addresses: Mutex<Addresses>,
    /// Sockets on their way to all workers, where each can't have one of its own.
    listening: Mutex<HashMap<u16, TcpListener>>,
}

/// Addresses seen to be a namespace's own while the mesh is as it is: one that leaves a pod is
/// somebody else's next, and by then the mesh is another.
#[derive(Debug, Default)]
struct Addresses {
    snapshot: Weak<Snapshot>,
    known: Vec<IpAddr>,
}

/// Every pod served here.
#[derive(Debug, Default)]
pub struct Pods {
    by_uid: ArcSwap<HashMap<Arc<str>, Arc<Pod>>>,
    /// Those that can't be served for now.
    pending: ArcSwap<Vec<(Arc<str>, WorkloadInfo)>>,
}

// === impl Pod ===

impl Pod {
    pub(crate) fn new(spec: PodSpec, config: &Config) -> Self {
        let info = spec.info;
        let own = || Identity {
            trust_domain: config.trust_domain.clone(),
            namespace: info.namespace.clone(),
            service_account: info.service_account.clone(),
        };
        let is_alone = spec.netns.is_none() && spec.served == Served::Everything;
        let own = is_alone.then(own);
        let workload_uid = WorkloadUid::new(format!(
            "{}//Pod/{}/{}",
            config.cluster_id, info.namespace, info.name
        ));
        Self {
            uid: spec.uid,
            info,
            own,
            netns: spec.netns,
            served: spec.served,
            workload_uid,
            addresses: Mutex::default(),
            listening: Mutex::default(),
        }
    }

    /// Whether tunnels may lead to a port of it.
    pub(crate) fn serves(&self, port: u16) -> bool {
        match &self.served {
            Served::Everything => true,
            Served::Ports(ports) => ports.contains(&port),
        }
    }

    /// The one socket of a port, for each worker to accept from.
    pub(crate) fn listening_once(
        &self,
        port: u16,
        listen: impl FnOnce() -> io::Result<TcpListener>,
    ) -> io::Result<TcpListener> {
        let listening = self.listening.lock();
        let mut listening = listening.unwrap_or_else(PoisonError::into_inner);
        match listening.entry(port) {
            Entry::Occupied(known) => known.get().try_clone(),
            Entry::Vacant(vacant) => vacant.insert(listen()?).try_clone(),
        }
    }

    /// Every worker has what it needs: a port is free again when they are done with it.
    pub(crate) fn all_listen(&self) {
        let listening = self.listening.lock();
        listening.unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the address is the pod's own. What the mesh says of it may be about a pod that
    /// had the name before, and the address be another's by now.
    fn holds(&self, address: IpAddr, snapshot: &Arc<Snapshot>) -> bool {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(addresses.snapshot.as_ptr(), Arc::as_ptr(snapshot)) {
            *addresses = Addresses {
                snapshot: Arc::downgrade(snapshot),
                known: Vec::new(),
            };
        }
        if addresses.known.contains(&address) {
            return true;
        }
        let holds = sockets::holds_address(self.netns.as_deref(), address);
        if holds {
            addresses.known.push(address);
        }
        holds
    }

    /// Whether a workload of the mesh is this pod. The service account is compared too:
    /// a pod's name may come back under another identity.
    pub(crate) fn is(&self, workload: &Workload, config: &Config) -> bool {
        workload.name() == &*self.info.name
            && workload.namespace == self.info.namespace
            && workload.service_account == self.info.service_account
            && workload.cluster_id == config.cluster_id
            && (workload.node == config.node || config.node.is_empty())
    }

    /// This pod as the mesh knows it.
    pub(crate) fn workload(&self, snapshot: &Snapshot, config: &Config) -> Option<Arc<Workload>> {
        snapshot
            .workload(&self.workload_uid)
            .filter(|workload| self.is(workload, config))
            // A dedicated proxy's workload need not be a pod.
            .or_else(|| {
                self.own.as_ref()?;
                snapshot
                    .workloads()
                    .find(|workload| self.is(workload, config))
            })
            .cloned()
    }

    /// Who the pod is, which is this workload. The agent tells its account; of which trust domain
    /// that is, only the mesh knows.
    pub(crate) fn identity(&self, workload: &Workload) -> Identity {
        let own = self.own.clone();
        own.unwrap_or_else(|| workload.identity())
    }

    /// The same, as far as it is known.
    pub(crate) fn known_identity(&self, snapshot: &Snapshot, config: &Config) -> Option<Identity> {
        self.own
            .clone()
            .or_else(|| Some(self.workload(snapshot, config)?.identity()))
    }
}

// === impl Pods ===

impl Pods {
    pub fn get(&self, uid: &str) -> Option<Arc<Pod>> {
        self.by_uid.load().get(uid).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Pod>> {
        self.by_uid.load().values().cloned().collect()
    }

    pub fn pending(&self) -> Arc<Vec<(Arc<str>, WorkloadInfo)>> {
        self.pending.load_full()
    }

    /// These, and no others, can't be served for now.
    pub fn set_pending(&self, pods: Vec<(Arc<str>, WorkloadInfo)>) {
        self.pending.store(Arc::new(pods));
    }

    /// The pod served here that a workload of the mesh is, and that has this address.
    pub(crate) fn serving(
        &self,
        workload: &Workload,
        address: IpAddr,
        snapshot: &Arc<Snapshot>,
        config: &Config,
    ) -> Option<Arc<Pod>> {
        if !config.node.is_empty() && workload.node != config.node {
            return None;
        }
        let pods = self.by_uid.load();
        let mut found = pods.values().filter(|pod| pod.is(workload, config));
        // Two pods of one name overlap while one replaces the other; which of them has
        // the address is then not for us to guess.
        match (found.next(), found.next()) {
            (Some(pod), None) if pod.holds(address, snapshot) => Some(pod.clone()),
            _ => None,
        }
    }

    pub(crate) fn insert(&self, pod: Arc<Pod>) {
        self.by_uid.rcu(|pods| {
            let mut pods = HashMap::clone(pods);
            pods.insert(pod.uid.clone(), pod.clone());
            pods
        });
    }

    pub(crate) fn remove(&self, uid: &str) -> Option<Arc<Pod>> {
        let removed = self.get(uid);
        self.by_uid.rcu(|pods| {
            let mut pods = HashMap::clone(pods);
            pods.remove(uid);
            pods
        });
        removed
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::netns;
    use super::*;

    fn serving(netns: Option<Arc<OwnedFd>>) -> Pods {
        let info = WorkloadInfo {
            name: "web".into(),
            namespace: "shop".into(),
            service_account: "default".into(),
        };
        let spec = PodSpec {
            uid: "uid".into(),
            info,
            netns,
            served: Served::Everything,
        };
        let pods = Pods::default();
        pods.insert(Arc::new(Pod::new(spec, &Config::default())));
        pods
    }

    fn reaches(pods: &Pods, address: &str, snapshot: &Arc<Snapshot>) -> bool {
        let workload = Workload::new("Kubernetes//Pod/shop/web", "web", "shop");
        let address = address.parse().expect("address");
        let served = pods.serving(&workload, address, snapshot, &Config::default());
        served.is_some()
    }

    #[test]
    fn a_pod_is_not_reached_at_an_address_it_does_not_have() {
        let pods = serving(None);
        let snapshot = Arc::default();
        assert!(reaches(&pods, "127.0.0.1", &snapshot));
        assert!(!reaches(&pods, "192.0.2.1", &snapshot));
    }

    #[test]
    fn a_pod_is_not_reached_at_an_address_that_has_left_it() {
        let netns = netns::new();
        let ip = |arguments: &str| {
            let run = || Command::new("ip").args(arguments.split(' ')).status();
            let status = netns::within(Some(&netns), run).expect("ip is installed");
            assert!(status.success(), "{arguments}");
        };
        let pods = serving(Some(netns.clone()));
        let (before, after) = (Arc::default(), Arc::default());
        ip("address add 192.0.2.1/32 dev lo");
        assert!(reaches(&pods, "192.0.2.1", &before));
        ip("address del 192.0.2.1/32 dev lo");
        assert!(!reaches(&pods, "192.0.2.1", &after));
    }
}
