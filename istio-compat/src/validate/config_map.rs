//! ConfigMap: what of it has no effect. Only waypoints are shaped by one; an application's own
//! is none of the mesh's business.

use crate::kinds::config_map::ConfigMap;
use crate::validate::{Problems, Validate};
use crate::waypoint::parameters::{self, Parameters};

impl Validate for ConfigMap {
    fn validate(&self, problems: &mut Problems<'_>) {
        if !parameters::is_meant(self) {
            return problems.warn(
                "kind",
                "ConfigMap (v1) is used by the mesh for the objects of waypoints alone: the object \
                 has no effect",
            );
        }
        let parameters = Parameters::read(self);
        // No error: an application may have keys of these names. A Gateway that has the
        // ConfigMap says what is wrong.
        for mistake in &parameters.mistakes {
            let message = format!("{mistake}: no waypoint can be shaped by it");
            problems.warn(mistake.place(), message);
        }
        for mistake in &parameters.not_honoured {
            problems.warn(mistake.place(), format!("{mistake}: it has no effect"));
        }
    }
}
