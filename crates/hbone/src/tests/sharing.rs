//! Whose connections share a tunnel, and whose never do.

use std::sync::Arc;

use mesh::identity::Identity;
use mesh::workload::WorkloadUid;

use super::{HALF_CLOSED, Pooling, expect, identity_of, run};
use crate::pool::Key;

#[test]
fn identities_pods_and_workloads_never_share() {
    run(async {
        let pooling = Pooling::new(100, HALF_CLOSED).await;
        let key = pooling.key();
        let other_pod = Key {
            pod: "pod-2".into(),
            ..key.clone()
        };
        let both: Arc<[Identity]> = Arc::new([identity_of("server"), identity_of("other")]);
        let other_expected = Key {
            expected: both,
            ..key.clone()
        };
        // Its successor at the address, under the same account.
        let next = WorkloadUid::new("Kubernetes//Pod/shop/server-next");
        let other_workload = Key {
            workload: Some(next.clone()),
            ..key.clone()
        };
        let mut opened = Vec::new();
        for key in [&key, &other_pod, &other_expected, &other_workload] {
            opened.push(pooling.open_as(key).await);
        }
        assert_eq!(pooling.dials.get(), 4);
        pooling
            .pool
            .retain(|key| key.workload.as_ref() != Some(&next));
        assert_eq!(pooling.pool.tunnels(), 3);
        let elsewhere = WorkloadUid::new("Kubernetes//Pod/shop/other");
        pooling.pool.retain_into(&[elsewhere, next], |_| false);
        assert_eq!(pooling.pool.tunnels(), 3);
        pooling.pool.purge("pod-1");
        assert_eq!(pooling.pool.tunnels(), 1);
        let reached = key.workload.expect("given");
        pooling.pool.retain_into(&[reached], |_| false);
        assert_eq!(pooling.pool.tunnels(), 0);
    });
}

#[test]
fn a_crowd_of_other_identities_costs_nobody_a_tunnel() {
    run(async {
        let pooling = Pooling::new(100, HALF_CLOSED).await;
        pooling.open().await;
        for number in 0..2000 {
            let other = expect(&format!("server-{number}"));
            pooling.mesh.client.client_config(&other);
        }
        pooling.open().await;
        assert_eq!((pooling.dials.get(), pooling.pool.tunnels()), (1, 1));
    });
}
