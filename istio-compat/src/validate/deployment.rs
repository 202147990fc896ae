//! Deployment: a selector that chooses the template's own pods.

use crate::kinds::deployment::Deployment;
use crate::kinds::pod::RestartPolicy;
use crate::validate::{Problems, Validate, labels, names, pod};

impl Validate for Deployment {
    fn validate(&self, problems: &mut Problems<'_>) {
        let template = &self.spec.template;
        // The pods' names carry a suffix and become host names.
        problems.check("metadata.name", names::subdomain(&self.metadata.name));
        if self.spec.selector.is_empty() {
            problems.error(
                "spec.selector",
                "is empty: give it matchLabels that the template's labels satisfy",
            );
        } else if !self.spec.selector.matches(&template.metadata.labels) {
            problems.error(
                "spec.selector",
                "does not choose the template's own pods: make spec.template.metadata.labels \
                 satisfy it",
            );
        }
        labels(
            "spec.template.metadata.labels",
            &template.metadata.labels,
            problems,
        );
        if template.spec.restart_policy != RestartPolicy::Always {
            problems.error(
                "spec.template.spec.restartPolicy",
                "must be Always in a Deployment",
            );
        }
        pod::exclusions("spec.template.metadata", &template.metadata, problems);
        pod::pod_spec("spec.template.spec", &template.spec, problems);
    }
}
