//! PeerAuthentication: port levels only where workloads are selected.

use crate::kinds::peer_authentication::PeerAuthentication;
use crate::node::{Node, Value};
use crate::validate::{Problems, Validate, labels};

impl Validate for PeerAuthentication {
    fn validate(&self, problems: &mut Problems<'_>) {
        let selector = self.spec.selector.as_ref();
        if let Some(selector) = selector {
            labels(
                "spec.selector.matchLabels",
                &selector.match_labels,
                problems,
            );
        }
        let ports = problems
            .document()
            .get("spec")
            .and_then(|spec| spec.get("portLevelMtls"));
        if ports.is_some() && selector.is_none_or(|selector| selector.match_labels.is_empty()) {
            problems.error(
                "spec.portLevelMtls",
                "needs spec.selector: only selected workloads have modes by port",
            );
        }
        if let Some(Node {
            value: Value::Mapping(entries),
            ..
        }) = ports
            && entries.is_empty()
        {
            problems.error("spec.portLevelMtls", "has no port: give one or remove it");
        }
    }
}
