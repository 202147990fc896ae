//! Scaling and rolling replacement, step by step.
use super::*;

fn deployment(replicas: u32, version: &str) -> Deployment {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": replicas,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "command": ["serve", version]}]},
            },
        },
    }))
    .unwrap()
}

/// Carries a plan out: what is deleted is gone at once, what is created isn't ready yet.
fn carry_out(deployment: &Deployment, pods: &mut Vec<Existing>) -> Plan {
    let plan = plan(deployment, pods);
    pods.retain(|pod| !plan.delete.contains(&pod.name));
    let template = template_hash(&deployment.spec.template);
    pods.extend(plan.create.iter().map(|name| Existing {
        name: name.clone(),
        template: template.clone(),
        ready: false,
        going: false,
    }));
    plan
}

fn all_ready(pods: &mut [Existing]) {
    for pod in pods {
        pod.ready = true;
    }
}

fn running(deployment: &Deployment) -> Vec<Existing> {
    let mut pods = Vec::new();
    carry_out(deployment, &mut pods);
    all_ready(&mut pods);
    pods
}

#[test]
fn names_look_like_kubernetes_and_are_the_same_on_every_start() {
    let first = carry_out(&deployment(2, "v1"), &mut Vec::new()).create;
    let second = carry_out(&deployment(2, "v1"), &mut Vec::new()).create;
    assert_eq!(first, second);
    for name in &first {
        let parts: Vec<_> = name.split('-').collect();
        assert_eq!((parts[0], parts[1].len(), parts[2].len()), ("web", 10, 5));
    }
    assert_ne!(first[0], first[1]);
}

#[test]
fn a_new_template_replaces_a_pod_only_when_the_new_one_is_ready() {
    let mut pods = running(&deployment(1, "v1"));
    let old = pods[0].name.clone();
    let new = deployment(1, "v2");
    let plan = carry_out(&new, &mut pods);
    assert_eq!((plan.create.len(), plan.delete.len()), (1, 0));
    assert_eq!(
        carry_out(&new, &mut pods),
        Plan::default(),
        "not ready: the old one stays"
    );
    all_ready(&mut pods);
    assert_eq!(carry_out(&new, &mut pods).delete, [old]);
    assert_eq!(carry_out(&new, &mut pods), Plan::default());
}

#[test]
fn never_fewer_ready_pods_than_wanted_while_rolling() {
    let mut pods = running(&deployment(3, "v1"));
    let new = deployment(3, "v2");
    for _ in 0..10 {
        carry_out(&new, &mut pods);
        assert!(pods.iter().filter(|pod| pod.ready).count() >= 3);
        assert!(pods.len() <= 4, "one more at most");
        all_ready(&mut pods);
    }
    let template = template_hash(&new.spec.template);
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod.template == template));
}

#[test]
fn old_pods_that_never_were_ready_go_first_and_at_once() {
    let mut pods = running(&deployment(2, "v1"));
    pods[1].ready = false;
    let broken = pods[1].name.clone();
    let plan = carry_out(&deployment(2, "v2"), &mut pods);
    assert_eq!(plan.delete, [broken]);
}

#[test]
fn scaling_down_takes_those_that_are_not_ready_first() {
    let mut pods = running(&deployment(3, "v1"));
    pods[1].ready = false;
    let idle = pods[1].name.clone();
    assert_eq!(carry_out(&deployment(2, "v1"), &mut pods).delete, [idle]);
    assert_eq!(carry_out(&deployment(0, "v1"), &mut pods).delete.len(), 2);
}

#[test]
fn recreate_waits_until_the_old_ones_are_gone() {
    let mut pods = running(&deployment(2, "v1"));
    let mut new = deployment(2, "v2");
    new.spec.strategy.type_ = DeploymentStrategyType::Recreate;
    let plan = plan(&new, &pods);
    assert_eq!((plan.create.len(), plan.delete.len()), (0, 2));
    for pod in &mut pods {
        pod.going = true;
    }
    assert_eq!(super::plan(&new, &pods), Plan::default());
    pods.clear();
    assert_eq!(carry_out(&new, &mut pods).create.len(), 2);
}

#[test]
fn a_name_still_in_use_is_not_given_again() {
    let wanted = deployment(1, "v1");
    let mut pods = running(&wanted);
    pods[0].going = true;
    let plan = plan(&wanted, &pods);
    assert_eq!(plan.create.len(), 1);
    assert_ne!(plan.create[0], pods[0].name);
}

#[test]
fn a_replica_is_owned_as_in_kubernetes() {
    let wanted = deployment(1, "v1");
    let pod = pod(&wanted, "web-x-y");
    let template = template_hash(&wanted.spec.template);
    assert_eq!(pod.metadata.labels[TEMPLATE_HASH], template);
    assert_eq!(
        pod.metadata.owner_references[0].name,
        format!("web-{template}")
    );
    assert_eq!(pod.metadata.namespace, "shop");
}
