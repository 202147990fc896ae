//! What a change of policy does to admitted connections.

use mesh::authorization::{Action, Clause, Match, PolicyKey, Rule, Scope, StringMatch};
use mesh::identity::Identity;
use mesh::snapshot::Change;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;

fn identity_of(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn deny(account: &str) -> Change {
    let condition = Match {
        principals: vec![StringMatch::Exact(identity_of(account).principal().into())],
        ..Match::default()
    };
    let clause = Clause {
        matches: vec![condition],
    };
    Change::Authorization(Authorization {
        name: "no-entry".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![clause],
        }],
    })
}

struct Scene {
    snapshot: Snapshot,
    policies: Rc<Policies>,
    server: Arc<Workload>,
}

impl Scene {
    fn new() -> Self {
        let server = Workload::new("Kubernetes//Pod/shop/server", "server", "shop");
        let mut snapshot = Snapshot::default();
        snapshot.apply([Change::Workload(server.clone())]);
        Self {
            snapshot,
            policies: Rc::new(Policies::new(false)),
            server: Arc::new(server),
        }
    }

    fn admit(&self, account: &str) -> Result<Admission, Verdict> {
        let connection = Connection::new(
            Some(identity_of(account)),
            "10.0.0.1".parse().expect("address"),
            "10.0.0.2:80".parse().expect("address"),
        );
        self.policies
            .admit(&self.snapshot, &self.server, connection)
    }

    fn change(&mut self, change: Change) {
        let changed = self.snapshot.apply([change]);
        self.policies.recheck(&self.snapshot, Some(&changed));
    }
}

#[test]
fn a_change_cuts_what_it_denies_and_nothing_else() {
    let mut scene = Scene::new();
    let mut good = scene.admit("good").expect("no policy");
    let mut bad = scene.admit("bad").expect("no policy");
    scene.change(deny("bad"));
    let denied = Verdict::DeniedBy(PolicyKey::new("shop", "no-entry"));
    assert_eq!(bad.denied.try_recv(), Ok(denied.clone()));
    assert_eq!(good.denied.try_recv(), Err(TryRecvError::Empty));
    assert_eq!(scene.admit("bad").err(), Some(denied));
}

#[test]
fn a_connection_judged_before_the_recheck_does_not_hide_the_change_from_it() {
    let mut scene = Scene::new();
    let mut open = scene.admit("bad").expect("no policy");
    scene.snapshot.apply([deny("bad")]);
    scene.admit("good").expect("not denied");
    scene.policies.recheck(&scene.snapshot, None);
    assert!(matches!(open.denied.try_recv(), Ok(Verdict::DeniedBy(_))));
}

#[test]
fn a_selected_policy_that_is_gone_cuts() {
    let mut scene = Scene::new();
    let mut open = scene.admit("good").expect("no policy");
    let mut server = Workload::clone(&scene.server);
    server.authorization_policies = vec![PolicyKey::new("shop", "late")];
    scene.change(Change::Workload(server));
    assert!(matches!(
        open.denied.try_recv(),
        Ok(Verdict::PolicyUnknown(_))
    ));
}

#[test]
fn a_workload_that_is_gone_is_judged_by_what_it_was() {
    let mut scene = Scene::new();
    let mut good = scene.admit("good").expect("no policy");
    let mut bad = scene.admit("bad").expect("no policy");
    scene.change(Change::RemoveAddress(scene.server.uid.0.clone()));
    assert_eq!(bad.denied.try_recv(), Err(TryRecvError::Empty));
    scene.change(deny("bad"));
    assert!(matches!(bad.denied.try_recv(), Ok(Verdict::DeniedBy(_))));
    assert_eq!(good.denied.try_recv(), Err(TryRecvError::Empty));
    drop((good, bad));
    assert!(scene.policies.workloads.borrow().is_empty());
}

#[test]
fn a_connection_that_ended_is_forgotten() {
    let mut scene = Scene::new();
    drop(scene.admit("bad").expect("no policy"));
    scene.change(deny("bad"));
    let workloads = scene.policies.workloads.borrow();
    assert!(
        workloads
            .values()
            .all(|applied| applied.admitted.is_empty())
    );
}

/// What is logged at info while `job` runs.
fn logged_at_info(job: impl FnOnce()) -> String {
    let log = tempfile::NamedTempFile::new().expect("a file");
    let writer = log.reopen().expect("the same");
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_writer(Arc::new(writer))
        .finish();
    tracing::subscriber::with_default(subscriber, job);
    std::fs::read_to_string(log.path()).expect("read")
}

#[test]
fn verdicts_are_logged_at_info_only_when_asked_for() {
    for info_logging in [false, true] {
        let mut scene = Scene::new();
        scene.policies = Rc::new(Policies::new(info_logging));
        scene.snapshot.apply([deny("bad")]);
        let log = logged_at_info(|| {
            for account in ["good", "bad"] {
                drop(scene.admit(account));
            }
        });
        let lines: Vec<_> = log.lines().collect();
        match (&lines[..], info_logging) {
            ([], false) => {}
            ([good, bad], true) => {
                assert!(good.contains("sa/good"), "{good}");
                assert!(bad.contains("shop/no-entry"), "{bad}");
            }
            (lines, _) => panic!("{lines:?}"),
        }
    }
}

#[test]
fn a_waypoint_in_front_is_admitted_until_it_is_not_any_more() {
    let mut scene = Scene::new();
    scene.snapshot.apply([deny("waypoint")]);
    let denied = Verdict::DeniedBy(PolicyKey::new("shop", "no-entry"));
    assert_eq!(scene.admit("waypoint").err(), Some(denied.clone()));

    let unbound = Workload::clone(&scene.server);
    let mut bound = unbound.clone();
    bound.admitted_waypoints = vec![identity_of("waypoint")];
    scene.server = Arc::new(bound.clone());
    scene.change(Change::Workload(bound));
    let mut open = scene.admit("waypoint").expect("admitted");
    assert_eq!(open.denied.try_recv(), Err(TryRecvError::Empty));

    scene.change(Change::Workload(unbound));
    assert_eq!(open.denied.try_recv(), Ok(denied));
}

#[test]
fn what_does_not_concern_a_workload_leaves_its_policies_as_they_are() {
    let mut scene = Scene::new();
    let _open = scene.admit("good").expect("no policy");
    let set = |scene: &Scene| {
        scene.policies.workloads.borrow()[&scene.server.uid]
            .set
            .clone()
    };
    let before = set(&scene);
    let mut elsewhere = deny("bad");
    if let Change::Authorization(policy) = &mut elsewhere {
        policy.namespace = "bank".into();
    }
    let other = Workload::new("Kubernetes//Pod/shop/other", "other", "shop");
    for change in [
        elsewhere,
        Change::Workload(other),
        Change::Workload(Workload::clone(&scene.server)),
    ] {
        scene.change(change);
        let _another = scene.admit("good").expect("no policy");
        assert!(Rc::ptr_eq(&set(&scene), &before));
    }
    scene.change(deny("bad"));
    assert!(!Rc::ptr_eq(&set(&scene), &before));
    assert!(scene.admit("bad").is_err());
}

#[test]
fn a_workload_that_is_changed_has_other_policies_at_once() {
    let mut scene = Scene::new();
    scene.change(deny("bad"));
    assert!(scene.admit("bad").is_err());
    let mut server = Workload::clone(&scene.server);
    server.admitted_waypoints = vec![identity_of("bad")];
    scene.snapshot.apply([Change::Workload(server)]);
    scene.server = scene
        .snapshot
        .workload(&scene.server.uid)
        .expect("known")
        .clone();
    assert!(scene.admit("bad").is_ok());
}

#[test]
fn workloads_that_are_alike_share_what_they_are_judged_by() {
    let mut scene = Scene::new();
    let mut add = |name: &str, policies: Vec<PolicyKey>| {
        let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
        workload.authorization_policies = policies;
        scene.snapshot.apply([Change::Workload(workload.clone())]);
        Arc::new(workload)
    };
    let late = |name: &str| vec![PolicyKey::new("shop", name)];
    let workloads = [
        add("web-1", Vec::new()),
        add("web-2", Vec::new()),
        add("other", late("one")),
        add("another", late("two")),
    ];
    let connection = Connection::new(
        Some(identity_of("good")),
        "10.0.0.1".parse().expect("address"),
        "10.0.0.2:80".parse().expect("address"),
    );
    let judge = |scene: &Scene, workload| {
        let admitted = scene
            .policies
            .admit(&scene.snapshot, workload, connection.clone());
        admitted.err()
    };
    for workload in &workloads {
        judge(&scene, workload);
    }
    scene.change(deny("bad"));
    let sets = scene.policies.workloads.borrow();
    let set = |at: usize| sets[&workloads[at].uid].set.clone();
    assert!(Rc::ptr_eq(&set(0), &set(1)));
    assert!(!Rc::ptr_eq(&set(0), &set(2)));
    drop(sets);
    for (workload, name) in [(&workloads[2], "one"), (&workloads[3], "two")] {
        let unknown = Verdict::PolicyUnknown(PolicyKey::new("shop", name));
        assert_eq!(judge(&scene, workload), Some(unknown));
    }
}

#[test]
fn the_policy_that_is_not_known_is_the_one_that_the_workload_names_now() {
    let mut scene = Scene::new();
    for name in ["one", "two"] {
        let mut server = Workload::clone(&scene.server);
        server.authorization_policies = vec![PolicyKey::new("shop", name)];
        scene.server = Arc::new(server.clone());
        scene.change(Change::Workload(server));
        let unknown = Verdict::PolicyUnknown(PolicyKey::new("shop", name));
        assert_eq!(scene.admit("good").err(), Some(unknown));
    }
}
