//! A change names every object whose translation it changes: all golden inputs are put
//! into one view and taken out again, and after each step what was kept must be what a
//! translation of everything gives.

use std::collections::{BTreeMap, BTreeSet};

use istio_compat::object::{Object, ObjectKey};
use istio_compat::parse::{Raw, parse};
use istio_compat::translate::Translation;
use istio_compat::view::{Context, View};

use crate::golden;

struct Kept {
    view: View,
    translations: BTreeMap<ObjectKey, Translation>,
    /// How many translations the changes asked for.
    work: usize,
}

impl Kept {
    fn step(&mut self, key: &ObjectKey, object: Option<&Object>) {
        let touched = self.view.apply(key, object);
        self.work += touched.len();
        for key in touched {
            let translation = self.view.translate(&key);
            self.translations.insert(key, translation);
        }
        for (known, kept) in &self.translations {
            let fresh = self.view.translate(known);
            assert_eq!(*kept, fresh, "{known} is stale after a change of {key}");
        }
    }
}

#[test]
fn nothing_is_stale_after_a_change() {
    let mut objects: Vec<Object> = golden::cases()
        .iter()
        .flat_map(|case| golden::read(&case.join("in.yaml")))
        .collect();
    // Another order than by kind, the same in every run.
    objects.sort_by_key(|object| {
        let name = object.key().to_string();
        name.bytes().rev().collect::<Vec<u8>>()
    });
    let mut kept = Kept {
        view: View::new(Context::default()),
        translations: BTreeMap::new(),
        work: 0,
    };
    for object in &objects {
        kept.step(&object.key(), Some(object));
    }
    let keys: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
    for key in &keys {
        kept.step(key, None);
    }
    for (key, translation) in &kept.translations {
        assert_eq!(
            *translation,
            Translation::default(),
            "{key} outlives itself"
        );
    }
}

#[test]
fn a_pods_change_touches_the_pod_alone() {
    // None of these is covered by a policy about requests, which would tell its services.
    let cases = golden::cases();
    let cases = cases.iter().filter(|case| {
        case.parent()
            .is_some_and(|kind| kind.ends_with("pod") || kind.ends_with("service"))
    });
    let objects: Vec<Object> = cases
        .flat_map(|case| golden::read(&case.join("in.yaml")))
        .collect();
    let mut view = View::new(Context::default());
    for object in &objects {
        view.apply(&object.key(), Some(object));
    }
    // One that no policy about requests selects: such a policy covers the pod's services too.
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: quiet, namespace: quiet}\n\
                spec: {containers: [{name: main, command: [serve]}]}\n";
    let parsed = parse("quiet.yaml", text.as_bytes(), Raw::Drop).expect("a pod");
    let pod = &parsed.objects[0];
    view.apply(&pod.key(), Some(pod));
    let touched = view.apply(&pod.key(), Some(pod));
    assert_eq!(touched, BTreeSet::from([pod.key()]));
}
