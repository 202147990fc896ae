//! What connections need that only the configuration decides: made once, kept while it holds.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use hbone::headers::Baggage;
use http::HeaderValue;
use mesh::balancing::Selections;
use mesh::destination::Plan;
use mesh::snapshot::Snapshot;
use mesh::workload::{Workload, WorkloadUid};

/// Entries of each kind. Whoever dials more addresses than this (a scan, say) has all of them
/// planned anew.
const MAXIMUM: usize = 4096;

/// One worker's outbound plans and `baggage` values.
#[derive(Default)]
pub struct Plans {
    kept: RefCell<Kept>,
    /// Apart: what a service's endpoints are outlives changes of other things.
    selections: RefCell<Selections>,
}

#[derive(Default)]
struct Kept {
    outbound: HashMap<(WorkloadUid, SocketAddr), Planned>,
    baggage: HashMap<WorkloadUid, (Arc<Workload>, Option<HeaderValue>)>,
    /// Snapshots since it was looked for what is out of date.
    snapshots: usize,
}

struct Planned {
    plan: Arc<Plan>,
    /// The configuration that it follows from, which it does not keep.
    snapshot: Weak<Snapshot>,
}

// === impl Plans ===

impl Plans {
    /// The plan for `client`'s connections to `destination`.
    pub fn outbound(
        &self,
        snapshot: &Arc<Snapshot>,
        client: &Arc<Workload>,
        destination: SocketAddr,
    ) -> Arc<Plan> {
        let mut kept = self.kept.borrow_mut();
        let key = (client.uid.clone(), destination);
        // A connection may still be of the client as it was before the last change.
        if let Some(known) = kept.outbound.get(&key)
            && known.is_of(snapshot)
            && Arc::ptr_eq(known.plan.client(), client)
        {
            return known.plan.clone();
        }
        let selections = &mut self.selections.borrow_mut();
        let plan = Arc::new(Plan::new(snapshot, client, destination, selections));
        make_room(&mut kept.outbound);
        let planned = Planned {
            plan: plan.clone(),
            snapshot: Arc::downgrade(snapshot),
        };
        kept.outbound.insert(key, planned);
        plan
    }

    /// The `baggage` of a workload; none where a name can't be in a header.
    pub(crate) fn baggage(&self, workload: &Arc<Workload>) -> Option<HeaderValue> {
        let kept = &mut self.kept.borrow_mut().baggage;
        if let Some((known, value)) = kept.get(&workload.uid)
            && Arc::ptr_eq(known, workload)
        {
            return value.clone();
        }
        let value = Baggage::header(workload);
        make_room(kept);
        kept.insert(workload.uid.clone(), (workload.clone(), value.clone()));
        value
    }

    /// Lets go of what follows from no snapshot that is in force, sooner or later: none of it is
    /// used again.
    pub fn follow(&self, snapshot: &Arc<Snapshot>) {
        self.kept.borrow_mut().follow(snapshot);
        self.selections.borrow_mut().follow(snapshot);
    }
}

// === impl Kept ===

impl Kept {
    /// It looks once in as many snapshots as there are entries, so that what one costs does not
    /// grow with their number.
    fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        self.snapshots += 1;
        if self.snapshots <= self.outbound.len() + self.baggage.len() {
            return;
        }
        self.snapshots = 0;
        self.outbound.retain(|_, planned| planned.is_of(snapshot));
        self.baggage.retain(|uid, (workload, _)| {
            let current = snapshot.workload(uid);
            current.is_some_and(|current| Arc::ptr_eq(current, workload))
        });
    }
}

// === impl Planned ===

impl Planned {
    fn is_of(&self, snapshot: &Arc<Snapshot>) -> bool {
        // What a weak pointer points to is not another's while that is there.
        std::ptr::eq(self.snapshot.as_ptr(), Arc::as_ptr(snapshot))
    }
}

fn make_room<K, V>(map: &mut HashMap<K, V>) {
    if map.len() >= MAXIMUM {
        map.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mesh::balancing::Observed;
    use mesh::destination::Route;
    use mesh::snapshot::Change;
    use mesh::workload::TunnelProtocol;

    use super::*;

    fn pod(name: &str, address: &str) -> Workload {
        let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
        workload.workload_name = name.into();
        workload.tunnel_protocol = TunnelProtocol::Hbone;
        workload.addresses = [address.parse().expect("address")].into_iter().collect();
        workload
    }

    fn target(port: u16) -> SocketAddr {
        SocketAddr::new("10.244.2.1".parse().expect("address"), port)
    }

    fn snapshot(pods: &[Workload]) -> Arc<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.apply(pods.iter().cloned().map(Change::Workload));
        Arc::new(snapshot)
    }

    fn is_unknown(plan: &Arc<Plan>) -> bool {
        let observed = Observed::nothing(Instant::now());
        matches!(plan.draw(observed, &mut rand::rng()).route, Route::Unknown)
    }

    #[test]
    fn a_plan_is_kept_until_the_snapshot_or_the_client_changes() {
        let plans = Plans::default();
        let client = Arc::new(pod("client", "10.244.1.1"));
        let (before, after) = (snapshot(&[]), snapshot(&[pod("web", "10.244.2.1")]));
        let plan = plans.outbound(&before, &client, target(80));
        assert!(is_unknown(&plan));
        assert!(Arc::ptr_eq(
            &plan,
            &plans.outbound(&before, &client, target(80))
        ));
        assert!(!is_unknown(&plans.outbound(&after, &client, target(80))));

        let plan = plans.outbound(&after, &client, target(80));
        let mut elsewhere = Workload::clone(&client);
        elsewhere.network = "other".into();
        let elsewhere = Arc::new(elsewhere);
        assert!(is_unknown(&plans.outbound(&after, &elsewhere, target(80))));
        assert!(!is_unknown(&plan));
    }

    #[test]
    fn an_old_snapshot_is_let_go_at_once_and_what_followed_from_it_later() {
        let plans = Plans::default();
        let client = Arc::new(pod("client", "10.244.1.1"));
        let before = snapshot(&[]);
        plans.outbound(&before, &client, target(80));
        plans.baggage(&client);
        assert_eq!(Arc::strong_count(&before), 1);
        let after = snapshot(&[]);
        for _ in 0..3 {
            plans.follow(&after);
        }
        assert_eq!(Arc::strong_count(&client), 1);
    }

    #[test]
    fn a_scan_is_not_remembered_for_ever() {
        let plans = Plans::default();
        let client = Arc::new(pod("client", "10.244.1.1"));
        let snapshot = snapshot(&[]);
        for port in 1..=u16::try_from(2 * MAXIMUM + 1).expect("a port") {
            plans.outbound(&snapshot, &client, target(port));
            assert!(plans.kept.borrow().outbound.len() <= MAXIMUM);
        }
    }

    #[test]
    fn baggage_is_of_the_workload_as_it_is_now() {
        let plans = Plans::default();
        let web = Arc::new(pod("web", "10.244.2.1"));
        let first = plans.baggage(&web).expect("ascii");
        assert_eq!(plans.baggage(&web), Some(first.clone()));
        let mut changed = Workload::clone(&web);
        changed.canonical_revision = "v2".into();
        let changed = Arc::new(changed);
        assert_ne!(plans.baggage(&changed), Some(first));
    }
}
