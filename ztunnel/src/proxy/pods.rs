//! The pods this process serves, known by uid and by name.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh::identity::Identity;
use mesh::snapshot::Snapshot;
use mesh::workload::{Workload, WorkloadUid};
use serde::Serialize;

use super::config::Config;

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// The orchestrator's uid of the pod.
    pub uid: Arc<str>,
    pub info: WorkloadInfo,
    /// The pod's network namespace; none for this process's own.
    pub netns: Option<Arc<OwnedFd>>,
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
    pub identity: Identity,
    pub netns: Option<Arc<OwnedFd>>,
    workload_uid: WorkloadUid,
}

/// Every pod served here.
#[derive(Debug, Default)]
pub struct Pods {
    by_uid: ArcSwap<HashMap<Arc<str>, Arc<Pod>>>,
}

// === impl Pod ===

impl Pod {
    pub(crate) fn new(spec: PodSpec, config: &Config) -> Self {
        let info = spec.info;
        let identity = Identity {
            trust_domain: config.trust_domain.clone(),
            namespace: info.namespace.clone(),
            service_account: info.service_account.clone(),
        };
        let workload_uid = WorkloadUid::new(format!(
            "{}//Pod/{}/{}",
            config.cluster_id, info.namespace, info.name
        ));
        Self {
            uid: spec.uid,
            info,
            identity,
            netns: spec.netns,
            workload_uid,
        }
    }

    /// Whether a workload of the mesh is this pod. The service account is compared too:
    /// a pod's name may come back under another identity.
    pub(crate) fn is(&self, workload: &Workload, config: &Config) -> bool {
        workload.name == self.info.name
            && workload.namespace == self.info.namespace
            && workload.service_account == self.info.service_account
            && workload.trust_domain == config.trust_domain
            && workload.cluster_id == config.cluster_id
            && (workload.node == config.node || config.node.is_empty())
    }

    /// This pod as the mesh knows it.
    pub(crate) fn workload(&self, snapshot: &Snapshot, config: &Config) -> Option<Arc<Workload>> {
        snapshot
            .workload(&self.workload_uid)
            .filter(|workload| self.is(workload, config))
            // A dedicated proxy's workload need not be a pod.
            .or_else(|| match self.netns {
                Some(_) => None,
                None => snapshot
                    .workloads()
                    .find(|workload| self.is(workload, config)),
            })
            .cloned()
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

    /// The pod served here that a workload of the mesh is.
    pub(crate) fn serving(&self, workload: &Workload, config: &Config) -> Option<Arc<Pod>> {
        if !config.node.is_empty() && workload.node != config.node {
            return None;
        }
        let pods = self.by_uid.load();
        let mut found = pods.values().filter(|pod| pod.is(workload, config));
        // Two pods of one name overlap while one replaces the other; which of them has
        // the address is then not for us to guess.
        match (found.next(), found.next()) {
            (Some(pod), None) => Some(pod.clone()),
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
