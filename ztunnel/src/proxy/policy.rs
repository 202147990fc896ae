//! The policies of each workload served here, computed when they change, and the open
//! inbound connections they are held against again then.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use mesh::authorization::{Authorization, Connection, PolicyKey, PolicySet, Verdict};
use mesh::identity::Identity;
use mesh::snapshot::{Changed, PoliciesVersion, ScopedPolicies, Snapshot};
use mesh::workload::{Workload, WorkloadUid};
use tokio::sync::oneshot;

/// One worker's policies and the connections admitted by them.
#[derive(Default)]
pub struct Policies {
    /// Whether verdicts are logged at info (`AUTHZ_POLICY_INFO_LOGGING`), not at debug.
    info_logging: bool,
    workloads: RefCell<HashMap<WorkloadUid, Applied>>,
}

/// What applies to one workload, and whom it has admitted.
struct Applied {
    /// As the mesh knew it last.
    workload: Arc<Workload>,
    /// Whether the mesh knows it no more.
    is_gone: bool,
    /// Of all policies, when those that apply were looked up. While this and the workload are the
    /// same, so are they: a connection is judged without a look at any that it does not concern.
    version: PoliciesVersion,
    basis: Rc<Basis>,
    set: Rc<PolicySet>,
    next: u64,
    /// A tree, which gives back what a crowd needed: a hash table keeps room for all of it.
    admitted: BTreeMap<u64, Admitted>,
}

/// What a policy set was made of. Equal pointers mean equal policies.
struct Basis {
    global: ScopedPolicies,
    of_namespace: Option<ScopedPolicies>,
    /// Or that there is none of this name.
    selected: Vec<Result<Arc<Authorization>, PolicyKey>>,
    admitted_waypoints: Vec<Identity>,
}

/// What has been put together from one snapshot: workloads that are alike share it.
#[derive(Default)]
struct Made(Vec<Alike>);

struct Alike {
    /// One of them.
    workload: Arc<Workload>,
    basis: Rc<Basis>,
    set: OnceCell<Rc<PolicySet>>,
}

struct Admitted {
    connection: Connection,
    cut: oneshot::Sender<Verdict>,
}

/// An admitted connection's place in the list; dropping it takes it off.
pub struct Admission {
    policies: Rc<Policies>,
    workload: WorkloadUid,
    id: u64,
    /// What dry-run policies would have said, where it is something else.
    pub(crate) dry_run: Option<Box<Verdict>>,
    /// Resolves when a change of policy denies the connection.
    pub(crate) denied: oneshot::Receiver<Verdict>,
}

// === impl Policies ===

impl Policies {
    pub fn new(info_logging: bool) -> Self {
        Self {
            info_logging,
            workloads: RefCell::default(),
        }
    }

    /// Judges a connection into `workload`, and watches it if it may pass.
    pub fn admit(
        self: &Rc<Self>,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        connection: Connection,
    ) -> Result<Admission, Verdict> {
        let mut workloads = self.workloads.borrow_mut();
        let applied = workloads
            .entry(workload.uid.clone())
            .or_insert_with(|| Applied::new(snapshot, workload));
        applied.enforce(snapshot, workload, &mut Made::default());
        let verdict = applied.set.authorize(&connection, None);
        self.log(workload, &connection, &verdict);
        let dry_run = applied.set.dry_run_verdict(&verdict, &connection, None);
        if let Some(dry_run) = &dry_run {
            tell_dry_run(workload, &connection, &verdict, dry_run);
        }
        let dry_run = dry_run.filter(|dry_run| dry_run.is_allowed() != verdict.is_allowed());
        if !verdict.is_allowed() {
            return Err(verdict);
        }
        let (cut, denied) = oneshot::channel();
        let id = applied.next;
        applied.next += 1;
        applied.admitted.insert(id, Admitted { connection, cut });
        Ok(Admission {
            policies: self.clone(),
            workload: workload.uid.clone(),
            id,
            dry_run: dry_run.map(Box::new),
            denied,
        })
    }

    fn log(&self, workload: &Workload, connection: &Connection, verdict: &Verdict) {
        let peer = connection
            .source_identity
            .as_ref()
            .map(tracing::field::display);
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    %verdict, workload = %workload.uid, source = %connection.source_ip,
                    source.identity = peer, destination = %connection.destination,
                    "policy judged a connection"
                )
            };
        }
        match self.info_logging {
            true => log!(info),
            false => log!(debug),
        }
    }

    /// Judges again what is open, where the policies have changed, and cuts what may no
    /// longer pass. A workload that is gone is judged by what it was: its pod may still run,
    /// and what denies it now must not wait for its return.
    pub fn recheck(&self, snapshot: &Snapshot, changed: Option<&Changed>) {
        let mut workloads = self.workloads.borrow_mut();
        let mut made = Made::default();
        let Some(changed) = changed.filter(|changed| !changed.policies) else {
            workloads.retain(|uid, applied| applied.recheck(snapshot, uid, &mut made));
            return;
        };
        for uid in &changed.workloads {
            let applied = workloads.get_mut(uid);
            if applied.is_some_and(|applied| !applied.recheck(snapshot, uid, &mut made)) {
                workloads.remove(uid);
            }
        }
    }
}

/// Counts what the verdict would be with the dry-run policies, and logs it where it is another.
fn tell_dry_run(workload: &Workload, connection: &Connection, enforced: &Verdict, tried: &Verdict) {
    let policy = tried.policy();
    metrics::counter!(
        "weft_policy_dry_run_total",
        "enforced" => enforced.word(),
        "dry_run" => tried.word(),
        "policy" => policy.map_or_else(|| "none".to_owned(), ToString::to_string),
    )
    .increment(1);
    if tried.is_allowed() == enforced.is_allowed() {
        return;
    }
    let peer = connection.source_identity.as_ref();
    tracing::info!(
        dry_run = %tried, %enforced, workload = %workload.uid, source = %connection.source_ip,
        source.identity = peer.map(tracing::field::display),
        destination = %connection.destination,
        "dry-run policies would decide otherwise"
    );
}

// === impl Applied ===

impl Applied {
    fn new(snapshot: &Snapshot, workload: &Arc<Workload>) -> Self {
        Self {
            workload: workload.clone(),
            is_gone: false,
            version: snapshot.policies_version().clone(),
            basis: Rc::new(Basis::of(snapshot, workload)),
            set: Rc::new(PolicySet::of(snapshot, workload)),
            next: 0,
            admitted: BTreeMap::new(),
        }
    }

    /// Puts the policies of the snapshot in force; false where nobody needs them any more.
    fn recheck(&mut self, snapshot: &Snapshot, uid: &WorkloadUid, made: &mut Made) -> bool {
        let known = snapshot.workload(uid);
        self.is_gone = known.is_none();
        if self.is_unused() {
            return false;
        }
        let workload = known.unwrap_or(&self.workload).clone();
        self.enforce(snapshot, &workload, made);
        true
    }

    fn is_unused(&self) -> bool {
        self.is_gone && self.admitted.is_empty()
    }

    /// Puts the policies of the snapshot in force, also for what they admitted before they
    /// were these. Whoever comes first with a new snapshot does it: a connection that is
    /// judged must not leave the open ones to a later look that finds nothing changed.
    fn enforce(&mut self, snapshot: &Snapshot, workload: &Arc<Workload>, made: &mut Made) {
        if !self.refresh(snapshot, workload, made) {
            return;
        }
        let set = self.set.clone();
        let judged = self.admitted.iter().map(|(number, admitted)| {
            let verdict = set.authorize(&admitted.connection, None);
            (*number, verdict)
        });
        let denied: Vec<_> = judged
            .filter(|(_, verdict)| !verdict.is_allowed())
            .collect();
        for (number, verdict) in denied {
            if let Some(admitted) = self.admitted.remove(&number) {
                // The connection may have ended by itself meanwhile.
                let _ = admitted.cut.send(verdict);
            }
        }
    }

    /// True when the policies are not those of the last time.
    fn refresh(&mut self, snapshot: &Snapshot, workload: &Arc<Workload>, made: &mut Made) -> bool {
        let version = snapshot.policies_version();
        if self.version == *version && Arc::ptr_eq(&self.workload, workload) {
            return false;
        }
        self.version = version.clone();
        self.workload = workload.clone();
        let alike = made.alike(snapshot, workload);
        if alike.basis.is_same(&self.basis) {
            return false;
        }
        self.set = alike.set(snapshot);
        self.basis = alike.basis.clone();
        true
    }
}

// === impl Made ===

impl Made {
    fn alike(&mut self, snapshot: &Snapshot, workload: &Arc<Workload>) -> &Alike {
        let known = self.0.iter().position(|alike| alike.is_of(workload));
        let at = known.unwrap_or_else(|| {
            self.0.push(Alike {
                workload: workload.clone(),
                basis: Rc::new(Basis::of(snapshot, workload)),
                set: OnceCell::new(),
            });
            self.0.len() - 1
        });
        &self.0[at]
    }
}

// === impl Alike ===

impl Alike {
    fn is_of(&self, workload: &Workload) -> bool {
        self.workload.namespace == workload.namespace
            && self.workload.authorization_policies == workload.authorization_policies
            && self.workload.admitted_waypoints == workload.admitted_waypoints
    }

    fn set(&self, snapshot: &Snapshot) -> Rc<PolicySet> {
        let make = || Rc::new(PolicySet::of(snapshot, &self.workload));
        self.set.get_or_init(make).clone()
    }
}

// === impl Basis ===

impl Basis {
    fn of(snapshot: &Snapshot, workload: &Workload) -> Self {
        let selected = workload.authorization_policies.iter();
        Self {
            global: snapshot.global_policies().clone(),
            of_namespace: snapshot.namespace_policies(&workload.namespace).cloned(),
            selected: selected
                .map(|key| snapshot.policy(key).cloned().ok_or_else(|| key.clone()))
                .collect(),
            admitted_waypoints: workload.admitted_waypoints.clone(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        let mut selected = self.selected.iter().zip(&other.selected);
        let of_namespace = match (&self.of_namespace, &other.of_namespace) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        of_namespace
            && self.global.is_same(&other.global)
            && self.admitted_waypoints == other.admitted_waypoints
            && self.selected.len() == other.selected.len()
            && selected.all(|pair| match pair {
                (Ok(one), Ok(other)) => Arc::ptr_eq(one, other),
                (Err(one), Err(other)) => one == other,
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            })
    }
}

// === impl Admission ===

impl Drop for Admission {
    fn drop(&mut self) {
        let mut workloads = self.policies.workloads.borrow_mut();
        let Some(applied) = workloads.get_mut(&self.workload) else {
            return;
        };
        applied.admitted.remove(&self.id);
        if applied.is_unused() {
            workloads.remove(&self.workload);
        }
    }
}

#[cfg(test)]
mod tests;
