//! Addresses that a ServiceEntry or a WorkloadEntry gives its endpoints and that are the mesh's, a
//! captured workload's or a service's. The entry says nothing of a tunnel: it would have plaintext
//! sent there.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Hop, Transport};
use crate::destination::NotOutside;
use crate::destination::outside::of_the_mesh;
use crate::snapshot::{Endpoints, ServiceEntry, Snapshot};
use crate::workload::{TunnelProtocol, Workload, WorkloadUid};

/// Addresses of a service's endpoints that get no plaintext, looked up when the plan is made.
#[derive(Debug, Default)]
pub(super) struct Withheld(Vec<(IpAddr, NotOutside)>);

// === impl Withheld ===

impl Withheld {
    /// Of the endpoints in a network.
    pub(super) fn of(snapshot: &Snapshot, network: &Arc<str>, entry: &ServiceEntry) -> Self {
        // A pod's address is its own, and of ten thousand not every one is looked at for each plan.
        if are_pods(&entry.endpoints) {
            return Self::default();
        }
        let workloads = entry.endpoints.iter().map(|endpoint| &endpoint.workload);
        let is_given = |workload: &&Arc<Workload>| {
            workload.tunnel_protocol == TunnelProtocol::None
                && workload.network == *network
                && !workload.uid.is_pod()
        };
        let withheld = workloads.filter(is_given).flat_map(|workload| {
            let WorkloadUid(name) = &workload.uid;
            let addresses = workload.addresses.iter();
            addresses.filter_map(move |address| {
                let owner = of_the_mesh(snapshot, network, name, *address)?;
                Some((*address, owner))
            })
        });
        Self(withheld.collect())
    }

    pub(super) fn admits(&self, hop: &Hop) -> bool {
        let is_withheld = |ip: IpAddr| self.0.iter().any(|(address, _)| *address == ip);
        match hop.transport {
            Transport::Tcp => !is_withheld(hop.target.ip()),
            Transport::Hbone { .. } | Transport::DoubleHbone(_) | Transport::Resolve { .. } => true,
        }
    }

    /// Whose one of the addresses is.
    pub(super) fn reason(&self) -> Option<&NotOutside> {
        self.0.first().map(|(_, reason)| reason)
    }
}

/// Whether all are pods of one cluster. They are in the order of their uids: what the first and the
/// last begin with, all do.
fn are_pods(endpoints: &Endpoints) -> bool {
    let cluster = |index: usize| {
        let endpoint = endpoints.get(index)?;
        let (cluster, _) = endpoint.workload.uid.0.split_once("//Pod/")?;
        Some(cluster)
    };
    let Some(last) = endpoints.len().checked_sub(1) else {
        return true;
    };
    cluster(0).is_some_and(|first| cluster(last) == Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Endpoint;

    #[test]
    fn only_pods_of_one_cluster_need_no_look() {
        const ENTRY: &str = "east/networking.istio.io/ServiceEntry/shop/db/192.0.2.1";
        const POD: &str = "east//Pod/shop/a";
        for (uids, expected) in [
            (&[][..], true),
            (&[POD], true),
            (&[POD, "east//Pod/shop/b"], true),
            (&[POD, "west//Pod/shop/a"], false),
            (&[POD, ENTRY], false),
            (&[ENTRY, "west//Pod/shop/a"], false),
            (&[ENTRY], false),
        ] {
            let endpoint = |uid: &&str| Endpoint {
                workload: Arc::new(Workload::new(uid, uid, "shop")),
                expected: Arc::new([]),
            };
            let endpoints: Endpoints = uids.iter().map(endpoint).collect();
            assert_eq!(are_pods(&endpoints), expected, "{uids:?}");
        }
    }
}
