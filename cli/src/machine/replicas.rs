//! Which pods a Deployment is to have: names, scaling, and rolling replacement. No I/O.
use std::hash::Hasher;

use istio_compat::kinds::IntOrString;
use istio_compat::kinds::deployment::{
    Deployment, DeploymentStatus, DeploymentStrategyType, PodTemplateSpec,
};
use istio_compat::kinds::metadata::OwnerReference;
use istio_compat::kinds::pod::Pod;
use twox_hash::XxHash64;

/// Kubernetes' alphabet for generated names: no vowels, so that no words come out.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// A pod of the Deployment that is there already.
#[derive(Debug, Clone)]
pub(crate) struct Existing {
    pub(crate) name: String,
    pub(crate) template: String,
    pub(crate) ready: bool,
    pub(crate) going: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) create: Vec<String>,
    pub(crate) delete: Vec<String>,
}

/// What to do now; asked again whenever a pod appears, becomes ready or goes.
pub(crate) fn plan(deployment: &Deployment, existing: &[Existing]) -> Plan {
    let wanted = usize::try_from(deployment.replicas()).unwrap_or(usize::MAX);
    let template = template_hash(&deployment.spec.template);
    let (mut new, mut old): (Vec<_>, Vec<_>) = existing
        .iter()
        .filter(|pod| !pod.going)
        .partition(|pod| pod.template == template);
    // Those not ready go first; among equals the order of names keeps the choice stable.
    for pods in [&mut new, &mut old] {
        pods.sort_by(|a, b| a.ready.cmp(&b.ready).then_with(|| b.name.cmp(&a.name)));
    }
    let mut plan = Plan::default();
    if deployment.spec.paused && !old.is_empty() {
        return plan;
    }
    let (surge, unavailable) = limits(deployment, wanted);

    let missing = wanted.saturating_sub(new.len());
    let room = match deployment.spec.strategy.type_ {
        DeploymentStrategyType::RollingUpdate => {
            (wanted + surge).saturating_sub(new.len() + old.len())
        }
        // All old ones must be gone, to the last process.
        DeploymentStrategyType::Recreate if existing.iter().any(|pod| pod.template != template) => {
            0
        }
        DeploymentStrategyType::Recreate => missing,
    };
    plan.create = free_names(deployment, &template, existing)
        .take(missing.min(room))
        .collect();

    let excess = new.len().saturating_sub(wanted);
    plan.delete
        .extend(new.iter().take(excess).map(|pod| pod.name.clone()));
    match deployment.spec.strategy.type_ {
        DeploymentStrategyType::Recreate => {
            plan.delete.extend(old.iter().map(|pod| pod.name.clone()))
        }
        DeploymentStrategyType::RollingUpdate => {
            let ready = new
                .iter()
                .skip(excess)
                .chain(&old)
                .filter(|pod| pod.ready)
                .count();
            let mut spare = ready.saturating_sub(wanted.saturating_sub(unavailable));
            for pod in old {
                if pod.ready {
                    if spare == 0 {
                        continue;
                    }
                    spare -= 1;
                }
                plan.delete.push(pod.name.clone());
            }
        }
    }
    plan
}

/// What has become of a Deployment.
pub(crate) fn status(deployment: &Deployment, existing: &[Existing]) -> DeploymentStatus {
    let template = template_hash(&deployment.spec.template);
    let staying = || existing.iter().filter(|pod| !pod.going);
    let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
    let ready = count(staying().filter(|pod| pod.ready).count());
    DeploymentStatus {
        replicas: count(staying().count()),
        updated_replicas: count(staying().filter(|pod| pod.template == template).count()),
        ready_replicas: ready,
        available_replicas: ready,
        conditions: Vec::new(),
    }
}

/// The pod object of one replica.
pub(crate) fn pod(deployment: &Deployment, name: &str) -> Pod {
    let PodTemplateSpec { metadata, spec } = deployment.spec.template.clone();
    let template = template_hash(&deployment.spec.template);
    let replica_set = format!("{}-{template}", deployment.metadata.name);
    let mut pod = Pod {
        metadata,
        spec,
        ..Pod::default()
    };
    pod.metadata.name = name.to_owned();
    pod.metadata
        .namespace
        .clone_from(&deployment.metadata.namespace);
    pod.metadata.generate_name = format!("{replica_set}-");
    pod.metadata
        .labels
        .insert(TEMPLATE_HASH.to_owned(), template);
    pod.metadata.owner_references = vec![OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: replica_set,
        uid: String::new(),
        controller: true,
    }];
    pod
}

/// The same for the same template, on every start.
pub(crate) fn template_hash(template: &PodTemplateSpec) -> String {
    // A struct of strings, numbers and ordered maps: it can't fail, and is the same each time.
    let text = serde_json::to_vec(template).unwrap_or_default();
    generated(&[&text], 10)
}

/// How many pods may be too many, and how many too few, while replacing: a quarter each by default.
fn limits(deployment: &Deployment, wanted: usize) -> (usize, usize) {
    let update = deployment
        .spec
        .strategy
        .rolling_update
        .clone()
        .unwrap_or_default();
    let quarter = IntOrString::String("25%".to_owned());
    let surge = amount(
        update.max_surge.as_ref().unwrap_or(&quarter),
        wanted,
        usize::div_ceil,
    );
    let unavailable = amount(
        update.max_unavailable.as_ref().unwrap_or(&quarter),
        wanted,
        |a, b| a / b,
    );
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

fn amount(value: &IntOrString, of: usize, divide: impl Fn(usize, usize) -> usize) -> usize {
    match value {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(0),
        IntOrString::String(text) => {
            let percent: usize = text.trim_end_matches('%').parse().unwrap_or(0);
            divide(of.saturating_mul(percent), 100)
        }
    }
}

fn free_names<'a>(
    deployment: &'a Deployment,
    template: &'a str,
    existing: &'a [Existing],
) -> impl Iterator<Item = String> + 'a {
    let metadata = &deployment.metadata;
    (0_u32..)
        .map(move |index| {
            let parts = [
                metadata.namespace.as_bytes(),
                metadata.name.as_bytes(),
                template.as_bytes(),
                &index.to_be_bytes(),
            ];
            format!("{}-{template}-{}", metadata.name, generated(&parts, 5))
        })
        .filter(|name| existing.iter().all(|pod| pod.name != *name))
}

fn generated(parts: &[&[u8]], length: usize) -> String {
    let mut hasher = XxHash64::with_seed(0);
    for part in parts {
        hasher.write(part);
        hasher.write_u8(0);
    }
    let mut hash = hasher.finish();
    (0..length)
        .map(|_| {
            let letter = ALPHABET[(hash % ALPHABET.len() as u64) as usize];
            hash /= ALPHABET.len() as u64;
            char::from(letter)
        })
        .collect()
}

#[cfg(test)]
mod tests;
