//! The pod that a command names: itself, or by what it is one of, as kubectl has it.

use std::borrow::Cow;

use istio_compat::kind::Kind;
use istio_compat::kinds::deployment::Deployment;
use istio_compat::kinds::pod::Pod;
use istio_compat::kinds::selector::LabelSelector;
use istio_compat::kinds::service::Service;
use istio_compat::object::{Object, ObjectKey};

use crate::exit::{Exit, Result};
use crate::objects::Objects;
use crate::state::State;

/// The name of one pod of `deploy/NAME` or `svc/NAME`, a ready one if there is any; everything else as it is.
pub(super) fn resolve<'a>(state: &State, text: &'a str, namespace: &str) -> Result<Cow<'a, str>> {
    let (kind, name) = match text.split_once('/') {
        Some(("deploy" | "deployment" | "deployments", name)) => (Kind::Deployment, name),
        Some(("svc" | "service" | "services", name)) => (Kind::Service, name),
        _ => return Ok(text.into()),
    };
    let objects = Objects::open(state)?.with_cluster(state);
    let object = objects
        .get(&ObjectKey::new(kind, namespace, name))
        .ok_or_else(|| Exit::NotFound.because(format!("there is no {kind} {namespace}/{name}")))?;
    one_of(object, namespace, objects.of_kind(Kind::Pod))
        .map(Cow::Owned)
        .ok_or_else(|| Exit::TryAgain.because(format!("{kind} {namespace}/{name} has no pod")))
}

fn one_of<'a>(
    object: &Object,
    namespace: &str,
    pods: impl Iterator<Item = &'a Object>,
) -> Option<String> {
    let selector = selector(object)?;
    pods.filter_map(Object::get::<Pod>)
        .filter(|pod| pod.metadata.namespace == namespace)
        .filter(|pod| selector.matches(&pod.metadata.labels))
        .min_by_key(|pod| (!pod.is_ready(), &pod.metadata.name))
        .map(|pod| pod.metadata.name.clone())
}

/// None where it chooses nothing.
fn selector(object: &Object) -> Option<LabelSelector> {
    let selector = match object.get::<Deployment>() {
        Some(deployment) => deployment.spec.selector.clone(),
        None => LabelSelector {
            match_labels: object.get::<Service>()?.spec.selector.clone(),
            ..LabelSelector::default()
        },
    };
    (!selector.is_empty()).then_some(selector)
}

#[cfg(test)]
mod tests {
    use istio_compat::parse::{Raw, parse};

    use super::*;

    const YAML: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, command: [a]}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: all, namespace: shop}
spec: {selector: {tier: front}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: none, namespace: shop}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: a, command: [a]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {containers: [{name: a, command: [a]}]}
status: {conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: other, labels: {app: web, tier: front}}
spec: {containers: [{name: a, command: [a]}]}
";

    #[test]
    fn a_ready_pod_comes_before_the_others() {
        let objects = parse("a.yaml", YAML.as_bytes(), Raw::Drop).expect("well formed");
        let objects = objects.objects;
        for (kind, name, pod) in [
            (Kind::Deployment, "web", Some("web-2")),
            (Kind::Service, "all", Some("web-1")),
            (Kind::Service, "none", None),
        ] {
            let key = ObjectKey::new(kind, "shop", name);
            let object = objects.iter().find(|object| object.key() == key);
            let found = one_of(object.expect("written above"), "shop", objects.iter());
            assert_eq!(found.as_deref(), pod, "{name}");
        }
    }
}
