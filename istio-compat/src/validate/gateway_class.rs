//! GatewayClass: a controller, by domain and path.

use crate::kinds::gateway_class::GatewayClass;
use crate::validate::{Problems, Validate, names};

const MAX_LENGTH: usize = 253;

impl Validate for GatewayClass {
    fn validate(&self, problems: &mut Problems<'_>) {
        let name = self.spec.controller_name.as_str();
        let fine = name.len() <= MAX_LENGTH
            && name
                .split_once('/')
                .is_some_and(|(domain, path)| names::subdomain(domain).is_ok() && !path.is_empty());
        if !fine {
            problems.error(
                "spec.controllerName",
                format!(
                    "{name:?} is no controller: write domain/path, as istio.io/mesh-controller"
                ),
            );
        }
    }
}
