//! Which pods give their node a right to their identity.

use istio_compat::parse::{Raw, parse};
use istio_compat::view::Context;

use super::*;
use crate::source::{Batch, Event};

fn knowledge(text: &str) -> Knowledge {
    let parsed = parse("test.yaml", text.as_bytes(), Raw::Drop).expect("valid");
    let knowledge = Knowledge::new(Index::new(Context::default()));
    knowledge.apply(Batch {
        events: parsed.objects.into_iter().map(Event::Applied).collect(),
        ..Batch::default()
    });
    knowledge
}

/// A pod `web` of the account `web` on node-1, in an ambient namespace or another one.
fn runs(namespace: &str, metadata: &str, rest: &str) -> bool {
    let text = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: shop, labels: {{istio.io/dataplane-mode: ambient}}}}}}
---
{{apiVersion: v1, kind: Namespace, metadata: {{name: plain}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: {namespace}{metadata}}}
spec: {{nodeName: node-1, serviceAccountName: web, containers: [{{name: web, image: web}}]}}
{rest}"
    );
    knowledge(&text).runs_on("node-1", namespace, "web")
}

#[test]
fn a_pod_counts_once_it_is_eligible_or_captured() {
    assert!(runs("shop", "", ""), "by its namespace's label");
    let ambient = ", labels: {istio.io/dataplane-mode: ambient}";
    assert!(runs("plain", ambient, ""), "by its own label");
    let captured = ", annotations: {ambient.istio.io/redirection: enabled}";
    assert!(runs("plain", captured, ""), "captured still");
}

#[test]
fn a_pod_outside_the_mesh_counts_for_nothing() {
    assert!(!runs("plain", "", ""), "nobody enrols it");
    let none = ", labels: {istio.io/dataplane-mode: none}";
    assert!(!runs("shop", none, ""), "it opts out");
    assert!(!runs("shop", "", "status: {phase: Succeeded}"), "finished");
    assert!(!knowledge("").runs_on("node-1", "shop", "web"));
}
