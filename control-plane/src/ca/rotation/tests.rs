//! Every step, every step out of turn, and a crash between any two writes.

use std::time::Duration;

use mesh::identity::Identity;

use super::super::store;
use super::*;

const STEPS: [Step; 3] = [Step::Add, Step::Switch, Step::Remove];

fn own() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    store::load_or_create(folder.path(), SystemTime::now()).expect("made");
    folder
}

fn now() -> SystemTime {
    SystemTime::now()
}

/// How many roots are published, and where the rotation is.
fn shown(folder: &Path) -> (usize, Phase) {
    let (signer, phase) = load(folder, now()).expect("loads");
    let web = Identity::new("cluster.local", "shop", "web");
    let signed = signer.workload_certificate(&web, Duration::from_secs(60), now());
    assert_eq!(signed.expect("signs").roots().count(), signer.root_count());
    let published = fs::read_to_string(folder.join(ROOT)).expect("roots");
    assert_eq!(published, signer.roots());
    (signer.root_count(), phase)
}

#[test]
fn three_steps_replace_the_root() {
    let folder = own();
    let former = fs::read_to_string(folder.path().join(ROOT)).expect("root");
    let expected = [
        (Step::Add, (2, Phase::Added)),
        (Step::Switch, (2, Phase::Switched)),
        (Step::Remove, (1, Phase::Steady)),
    ];
    for (step, then) in expected {
        for other in STEPS.into_iter().filter(|other| *other != step) {
            let refused = take(folder.path(), other, now());
            assert!(
                matches!(refused, Err(StoreError::OutOfTurn { .. })),
                "{other:?}"
            );
        }
        take(folder.path(), step, now()).expect("taken");
        assert_eq!(shown(folder.path()), then);
    }
    let next = fs::read_to_string(folder.path().join(ROOT)).expect("root");
    assert_ne!(former, next);
    assert!(!folder.path().join(NEXT_KEY).exists());
}

/// Published roots change with each step: that is what makes proxies ask anew.
#[test]
fn every_step_changes_the_published_roots() {
    let folder = own();
    let mut seen = vec![fs::read_to_string(folder.path().join(ROOT)).expect("roots")];
    for step in STEPS {
        take(folder.path(), step, now()).expect("taken");
        shown(folder.path());
        seen.push(fs::read_to_string(folder.path().join(ROOT)).expect("roots"));
        assert_ne!(seen[seen.len() - 1], seen[seen.len() - 2], "{step:?}");
    }
}

#[test]
fn a_crash_between_two_writes_leaves_a_state_to_go_on_from() {
    let folder = own();
    // Only the key of the next root was written.
    fs::write(folder.path().join(NEXT_KEY), "half").expect("written");
    assert_eq!(shown(folder.path()), (1, Phase::Steady));
    take(folder.path(), Step::Add, now()).expect("begun anew");

    // The key was renamed, and the published roots still name the former first.
    let before = fs::read_to_string(folder.path().join(ROOT)).expect("roots");
    shown(folder.path());
    switch(folder.path()).expect("renamed");
    fs::write(folder.path().join(ROOT), before).expect("written");
    assert_eq!(shown(folder.path()), (2, Phase::Switched));

    // The former is no longer published, and the next one's own file is still there.
    let next = fs::read_to_string(folder.path().join(NEXT_CERTIFICATE)).expect("next");
    fs::write(folder.path().join(ROOT), &next).expect("written");
    assert_eq!(shown(folder.path()), (1, Phase::Steady));

    // A second rotation that was cut short after its key: the first one's rest is no next root.
    let other = Signer::self_signed(ORGANIZATION, ROOT_LIFETIME, now()).expect("made");
    fs::write(
        folder.path().join(NEXT_KEY),
        other.key().to_pem().expect("PEM"),
    )
    .expect("written");
    assert_eq!(shown(folder.path()), (1, Phase::Steady));
    take(folder.path(), Step::Add, now()).expect("begun");
    assert_eq!(shown(folder.path()), (2, Phase::Added));
}
