//! What a ConfigMap lays over a waypoint's objects, and what of it is refused.

use std::collections::BTreeMap;

use super::Parameters;
use crate::kind::Kind;
use crate::kinds::config_map::ConfigMap;
use crate::kinds::metadata::ObjectMeta;
use crate::object::ObjectKey;
use crate::parse::{Raw, parse};
use crate::view::{Context, View};
use crate::waypoint::deployment;

fn read(key: &str, text: &str) -> Parameters {
    Parameters::read(&ConfigMap {
        metadata: ObjectMeta {
            name: "options".to_owned(),
            namespace: "shop".to_owned(),
            ..ObjectMeta::default()
        },
        data: BTreeMap::from([(key.to_owned(), text.to_owned())]),
    })
}

#[track_caller]
fn check_mistake(key: &str, text: &str, expected: &str) {
    let parameters = read(key, text);
    let said: Vec<String> = (parameters.mistakes.iter())
        .map(|mistake| parameters.said(mistake))
        .collect();
    assert_eq!(
        said,
        [format!("ConfigMap shop/options: data.{key}: {expected}")]
    );
}

#[test]
fn mistakes_have_their_line_and_field() {
    check_mistake(
        "deployment",
        "spec:\n  replicas: two\n",
        "line 2: spec.replicas: must be a whole number from 0 to 4294967295, not \"two\"",
    );
    check_mistake(
        "deployment",
        "spec:\n  replica: 2\n",
        "line 2: spec.replica: is not a known field (did you mean replicas?)",
    );
    check_mistake(
        "service",
        "plain",
        "line 1: must be a mapping, not \"plain\"",
    );
    check_mistake(
        "service",
        "kind: Deployment\n",
        "line 1: kind: must be Service, or left out",
    );
    check_mistake(
        "deployment",
        "spec: {template: {spec: {containers: [{image: x}]}}}",
        "line 1: spec.template.spec.containers[0]: has no name: add it",
    );
    check_mistake(
        "serviceAccount",
        "{}\n---\n{a: 1}\n",
        "line 3: is a second document: keep one",
    );
    check_mistake(
        "deploymnet",
        "{}",
        "is no object of a waypoint: use one of deployment, service, serviceAccount",
    );
    let broken = read("deployment", "spec:\n  replicas: [\n");
    assert_eq!(broken.mistakes.len(), 1, "{broken:?}");
}

#[test]
fn what_is_not_honoured_is_named_and_is_no_mistake() {
    for (key, text, field) in [
        ("horizontalPodAutoscaler", "spec: {maxReplicas: 3}", ""),
        ("podDisruptionBudget", "spec: {minAvailable: 1}", ""),
        (
            "deployment",
            "spec: {template: {spec: {volumes: []}}}",
            "spec.template.spec.volumes",
        ),
    ] {
        let parameters = read(key, text);
        assert!(parameters.mistakes.is_empty(), "{parameters:?}");
        assert_eq!(parameters.not_honoured.len(), 1, "{key}");
        assert_eq!(parameters.not_honoured[0].field, field);
    }
}

#[test]
fn what_is_blank_says_nothing() {
    assert!(read("deployment", "# later\n").mistakes.is_empty());
}

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: options}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
";

fn config_map(data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: options, namespace: shop}}\ndata:\n{data}"
    )
}

fn view(texts: &[&str]) -> View {
    let mut view = View::new(Context::default());
    for text in texts {
        let parsed = parse("shop.yaml", text.as_bytes(), Raw::Drop).expect("good files");
        for object in &parsed.objects {
            view.apply(&object.key(), Some(object));
        }
    }
    view
}

#[test]
fn a_mistake_keeps_what_runs() {
    let view = view(&[
        GATEWAY,
        &config_map("  deployment: '{spec: {replicas: two}}'\n"),
    ]);
    let accepted = &view
        .translate(&ObjectKey::new(Kind::Gateway, "shop", "gate"))
        .conditions[0];
    assert_eq!(
        (accepted.status.as_str(), accepted.reason.as_str()),
        ("False", "InvalidParameters")
    );
    assert!(
        accepted
            .message
            .contains("data.deployment: line 1: spec.replicas"),
        "{accepted:?}"
    );
    let wanted = deployment::wanted(&view, []);
    let kept: Vec<String> = wanted.kept.iter().map(ToString::to_string).collect();
    assert_eq!(
        kept,
        [
            "ServiceAccount shop/gate",
            "Service shop/gate",
            "Deployment shop/gate"
        ]
    );
    assert!(
        wanted
            .objects
            .iter()
            .all(|body| body.kind() == Kind::GatewayClass)
    );
}

#[test]
fn what_is_not_honoured_is_in_the_status_too() {
    let view = view(&[GATEWAY, &config_map("  podDisruptionBudget: '{}'\n")]);
    let accepted = &view
        .translate(&ObjectKey::new(Kind::Gateway, "shop", "gate"))
        .conditions[0];
    assert!(accepted.is_true(), "{accepted:?}");
    let said = "ConfigMap shop/options: data.podDisruptionBudget: is not honoured";
    assert!(accepted.message.contains(said), "{accepted:?}");
}

#[test]
fn a_file_says_what_of_a_config_map_has_no_effect() {
    let warnings = |data: &str| {
        let parsed = parse("shop.yaml", config_map(data).as_bytes(), Raw::Drop).expect("read");
        let warnings = parsed.warnings.iter();
        warnings.map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(warnings("  deployment: '{spec: {replicas: 2}}'\n"), [""; 0]);
    let not_used = &warnings("  colour: blue\n")[0];
    assert!(not_used.starts_with("shop.yaml:2:"), "{not_used}");
    assert!(not_used.contains("the object has no effect"), "{not_used}");
    let autoscaler = &warnings("  service: '{}'\n  horizontalPodAutoscaler: '{}'\n")[0];
    assert_eq!(
        autoscaler,
        "shop.yaml:6:28: warning: ConfigMap shop/options: data.horizontalPodAutoscaler: \
         is not honoured: it has no effect"
    );
    let broken = &warnings("  deployment: |\n    spec:\n      replica: 2\n")[0];
    assert!(broken.starts_with("shop.yaml:6:"), "{broken}");
    assert!(
        broken.contains("line 2: spec.replica: is not a known field"),
        "{broken}"
    );
}
