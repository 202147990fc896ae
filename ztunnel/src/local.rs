//! Finding a pod of this node among the mesh's workloads.

use std::sync::Arc;

use mesh::snapshot::Snapshot;
use mesh::workload::{Workload, WorkloadUid};

use crate::proxy::WorkloadInfo;

/// Where this node's own pods are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    pub name: Arc<str>,
    pub cluster_id: Arc<str>,
}

// === impl LocalNode ===

impl LocalNode {
    /// The workload that a pod of this node is, by what the CNI agent says of it. All of
    /// name, namespace, service account and node must agree: the identity depends on it.
    pub fn workload<'a>(
        &self,
        snapshot: &'a Snapshot,
        pod: &WorkloadInfo,
    ) -> Option<&'a Arc<Workload>> {
        self.pod(snapshot, pod)
            .or_else(|| snapshot.workloads().find(|workload| self.is(workload, pod)))
    }

    /// The same, where the workload is a Kubernetes pod, whose name in the mesh is known: nothing is
    /// searched, however large the mesh is.
    pub fn pod<'a>(&self, snapshot: &'a Snapshot, pod: &WorkloadInfo) -> Option<&'a Arc<Workload>> {
        let uid = format!("{}//Pod/{}/{}", self.cluster_id, pod.namespace, pod.name);
        snapshot
            .workload(&WorkloadUid::new(uid))
            .filter(|workload| self.is(workload, pod))
    }

    fn is(&self, workload: &Workload, pod: &WorkloadInfo) -> bool {
        workload.name() == &*pod.name
            && workload.namespace == pod.namespace
            && workload.service_account == pod.service_account
            && (workload.node == self.name || self.name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use mesh::snapshot::Change;

    use super::*;

    fn workload(uid: &str, node: &str, account: &str) -> Change {
        let mut workload = Workload::new(uid, "web", "shop");
        workload.node = node.into();
        workload.service_account = account.into();
        Change::Workload(workload)
    }

    #[test]
    fn a_pod_is_the_workload_with_its_name_account_and_node() {
        let node = LocalNode {
            name: "node-1".into(),
            cluster_id: "Kubernetes".into(),
        };
        let pod = WorkloadInfo {
            name: "web".into(),
            namespace: "shop".into(),
            service_account: "web".into(),
        };
        let usual = "Kubernetes//Pod/shop/web";
        let check = |changes: Vec<Change>, expected: Option<&str>| {
            let mut snapshot = Snapshot::default();
            snapshot.apply(changes);
            let found = node.workload(&snapshot, &pod).map(|w| w.uid.to_string());
            assert_eq!(found.as_deref(), expected);
            let found = node.pod(&snapshot, &pod).map(|w| w.uid.to_string());
            assert_eq!(found.as_deref(), expected.filter(|uid| *uid == usual));
        };
        check(vec![], None);
        check(vec![workload(usual, "node-1", "web")], Some(usual));
        check(vec![workload(usual, "node-2", "web")], None);
        check(vec![workload(usual, "node-1", "other")], None);
        check(
            vec![
                workload(usual, "node-1", "other"),
                workload("other", "node-1", "web"),
            ],
            Some("other"),
        );
    }
}
