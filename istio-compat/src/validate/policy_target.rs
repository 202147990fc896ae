//! What policies are attached to: a selector, or targets of their own namespace.

use crate::kind::Kind;
use crate::kinds::authorization_policy::PolicyTargetReference;
use crate::kinds::metadata::ObjectMeta;
use crate::kinds::selector::WorkloadSelector;
use crate::validate::{Problems, labels};

const MAX_TARGETS: usize = 16;
const TARGETS: [(&str, &str); 4] = [
    ("Service", ""),
    ("ServiceEntry", "networking.istio.io"),
    ("Gateway", "gateway.networking.k8s.io"),
    ("GatewayClass", "gateway.networking.k8s.io"),
];

pub(super) fn attachment(
    metadata: &ObjectMeta,
    selector: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
    problems: &mut Problems<'_>,
) {
    if let Some(selector) = selector {
        labels(
            "spec.selector.matchLabels",
            &selector.match_labels,
            problems,
        );
    }
    if target.is_some() && !targets.is_empty() {
        problems.error(
            "spec.targetRef",
            "is there together with targetRefs: keep targetRefs",
        );
    }
    if targets.len() > MAX_TARGETS {
        problems.error(
            "spec.targetRefs",
            format!("has {} targets, more than {MAX_TARGETS}", targets.len()),
        );
    }
    if selector.is_some() && (target.is_some() || !targets.is_empty()) {
        problems.error(
            "spec.selector",
            "is there together with targetRefs: keep one of them",
        );
    }
    let one = target
        .iter()
        .map(|target| ("spec.targetRef".to_owned(), *target));
    let several = targets
        .iter()
        .enumerate()
        .map(|(index, target)| (format!("spec.targetRefs[{index}]"), target));
    for (field, target) in one.chain(several) {
        self::target(&field, target, metadata, problems);
    }
}

fn target(
    field: &str,
    target: &PolicyTargetReference,
    metadata: &ObjectMeta,
    problems: &mut Problems<'_>,
) {
    problems.given(format!("{field}.name"), &target.name);
    let known = TARGETS.iter().find(|(kind, _)| *kind == target.kind);
    match known {
        None if target.kind.is_empty() => problems.given(format!("{field}.kind"), ""),
        None => problems.error(
            format!("{field}.kind"),
            format!(
                "{:?} can't be targeted: use Service, ServiceEntry, Gateway or GatewayClass",
                target.kind
            ),
        ),
        Some((kind, group)) => {
            let core = group.is_empty() && target.group == "core";
            if target.group != *group && !core && !target.group.is_empty() {
                problems.error(
                    format!("{field}.group"),
                    format!("{:?} has no {kind}: use {group:?}", target.group),
                );
            }
        }
    }
    let class = target.kind == Kind::GatewayClass.name();
    if !class && !target.namespace.is_empty() && target.namespace != metadata.namespace {
        problems.error(
            format!("{field}.namespace"),
            "is another namespace: a policy targets its own namespace only",
        );
    }
}
