//! What times and generations conditions have, as objects come, change and go.

use std::time::Duration;

use istio_compat::kinds::metadata::Condition;
use istio_compat::parse::{Raw, parse};
use istio_compat::view::Context;

use super::*;
use crate::index::Index;
use crate::source::Event;

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                       spec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n";
const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                     metadata: {name: web, namespace: shop}\n\
                     spec:\n  parentRefs: [{group: '', kind: Service, name: web}]\n\
                     \x20 rules: [{backendRefs: [{name: web, port: 80}]}]\n";
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
                       metadata: {name: gate, namespace: shop}\n\
                       spec:\n  gatewayClassName: istio-waypoint\n\
                       \x20 listeners: [{name: mesh, port: 15008, protocol: HBONE}]\n";

/// An index, and the minutes since 1970 as they pass.
struct Scene {
    index: Index,
    minute: u64,
}

impl Scene {
    fn new() -> Self {
        Self {
            index: Index::new(Context::default()),
            minute: 0,
        }
    }

    /// A minute later an object is what `text` says.
    fn apply(&mut self, text: &str) {
        let parsed = parse("test.yaml", text.as_bytes(), Raw::Drop).expect("well formed");
        let events: Vec<_> = parsed.objects.into_iter().map(Event::Applied).collect();
        self.pass(events);
    }

    fn delete(&mut self, key: &ObjectKey) {
        self.pass(vec![Event::Deleted(key.clone())]);
    }

    fn pass(&mut self, events: Vec<Event>) {
        self.minute += 1;
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(60 * self.minute);
        self.index.apply(events, now);
    }
}

/// Type and status of conditions, the minute since when, and the generation.
#[track_caller]
fn check(conditions: &[Condition], expected: &[(&str, &str, u64, Option<i64>)]) {
    let told: Vec<_> = conditions
        .iter()
        .map(|one| {
            let since = one.last_transition_time.as_deref().expect("a time");
            let since = DateTime::parse_from_rfc3339(since).expect("RFC 3339");
            assert!(
                one.last_transition_time
                    .as_deref()
                    .is_some_and(|time| time.ends_with(":00Z"))
            );
            (
                one.type_.as_str(),
                one.status.as_str(),
                u64::try_from(since.timestamp()).expect("after 1970") / 60,
                one.observed_generation,
            )
        })
        .collect();
    assert_eq!(told, expected);
}

fn route() -> ObjectKey {
    ObjectKey::new(Kind::HttpRoute, "shop", "web")
}

#[test]
fn a_condition_holds_since_its_status_changed() {
    let mut scene = Scene::new();
    scene.apply(ROUTE);
    let of_parent = |scene: &Scene| scene.index.parents(&route())[0].conditions.clone();
    let none = [
        ("Accepted", "False", 1, Some(1)),
        ("ResolvedRefs", "False", 1, Some(1)),
    ];
    check(&of_parent(&scene), &none);
    let before = of_parent(&scene)[1].message.clone();
    scene.apply(&ROUTE.replace("backendRefs: [{name: web", "backendRefs: [{name: api"));
    // Another message, the same status.
    assert_ne!(of_parent(&scene)[1].message, before);
    let still = [
        ("Accepted", "False", 1, Some(2)),
        ("ResolvedRefs", "False", 1, Some(2)),
    ];
    check(&of_parent(&scene), &still);
    scene.apply(SERVICE);
    let attached = of_parent(&scene);
    check(
        &attached[..2],
        &[
            ("Accepted", "True", 3, Some(2)),
            ("ResolvedRefs", "False", 1, Some(2)),
        ],
    );
    scene.apply(ROUTE);
    let resolved = of_parent(&scene);
    check(
        &resolved[..2],
        &[
            ("Accepted", "True", 3, Some(3)),
            ("ResolvedRefs", "True", 4, Some(3)),
        ],
    );
}

#[test]
fn a_generation_is_of_what_an_object_says() {
    let mut scene = Scene::new();
    let generation = |scene: &Scene| scene.index.generation(&route());
    scene.apply(ROUTE);
    assert_eq!(generation(&scene), Some(1));
    scene.apply(&ROUTE.replace(
        "{name: web, namespace: shop}",
        "{name: web, namespace: shop, labels: {a: b}}",
    ));
    scene.apply(&format!("{ROUTE}status: {{parents: []}}\n"));
    assert_eq!(generation(&scene), Some(1), "metadata and status");
    scene.apply(&ROUTE.replace("port: 80", "port: 81"));
    assert_eq!(generation(&scene), Some(2));
    scene.delete(&route());
    assert_eq!(generation(&scene), None);
    scene.apply(ROUTE);
    assert_eq!(
        generation(&scene),
        Some(1),
        "another object of the same name"
    );
    check(
        &scene.index.parents(&route())[0].conditions,
        &[
            ("Accepted", "False", 6, Some(1)),
            ("ResolvedRefs", "False", 6, Some(1)),
        ],
    );
}

#[test]
fn listeners_have_times_and_services_no_generation() {
    let mut scene = Scene::new();
    scene.apply(GATEWAY);
    let gateway = ObjectKey::new(Kind::Gateway, "shop", "gate");
    scene.apply(&GATEWAY.replace("port: 15008", "port: 15009"));
    let status = scene.index.gateway(&gateway).expect("a status");
    check(
        &status.listeners[0].conditions,
        &[
            ("Accepted", "False", 2, Some(2)),
            ("Programmed", "False", 1, Some(2)),
            ("Conflicted", "False", 1, Some(2)),
            ("ResolvedRefs", "True", 1, Some(2)),
        ],
    );
    scene.apply(&SERVICE.replace(
        "{name: web",
        "{labels: {istio.io/use-waypoint: gate}, name: web",
    ));
    let service = ObjectKey::new(Kind::Service, "shop", "web");
    assert_eq!(scene.index.generation(&service), None);
    let conditions = scene.index.conditions(&service);
    assert!(!conditions.is_empty());
    for condition in conditions {
        assert_eq!(
            condition.last_transition_time.as_deref(),
            Some("1970-01-01T00:03:00Z")
        );
        assert_eq!(condition.observed_generation, None);
    }
}
