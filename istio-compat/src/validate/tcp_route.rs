//! TCPRoute: rules with backends, and nothing about requests.

use crate::kinds::tcp_route::TcpRoute;
use crate::validate::{Problems, Validate, route};

impl Validate for TcpRoute {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        route::parents(&spec.parent_refs, problems);
        let names = spec.rules.iter().map(|rule| rule.name.as_ref());
        route::rules(spec.rules.len(), names, problems);
        if spec.rules.len() > 1 {
            problems.warn(
                "spec.rules",
                "has several rules: connections have nothing to choose by, so that the first \
                 one counts",
            );
        }
        for (index, rule) in spec.rules.iter().enumerate() {
            let field = format!("spec.rules[{index}].backendRefs");
            if rule.backend_refs.is_empty() {
                problems.error(field.as_str(), "has no backend: give one");
            }
            route::backends(&field, &rule.backend_refs, problems);
            for (index, backend) in rule.backend_refs.iter().enumerate() {
                if !backend.filters.is_empty() {
                    problems.error(
                        format!("{field}[{index}].filters"),
                        "is about requests: a TCPRoute has none",
                    );
                }
            }
        }
    }
}
