//! ReferenceGrant: who, and what.

use crate::kinds::reference_grant::ReferenceGrant;
use crate::validate::{Problems, Validate, names};

const MAX_ENTRIES: usize = 16;

impl Validate for ReferenceGrant {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        for (field, length) in [("spec.from", spec.from.len()), ("spec.to", spec.to.len())] {
            problems.at_most(field, length, MAX_ENTRIES);
            if length == 0 {
                problems.error(field, "has no entry: give one");
            }
        }
        for (index, from) in spec.from.iter().enumerate() {
            let field = format!("spec.from[{index}]");
            problems.given(format!("{field}.kind"), &from.kind);
            problems.check(format!("{field}.namespace"), names::label(&from.namespace));
        }
        for (index, to) in spec.to.iter().enumerate() {
            problems.given(format!("spec.to[{index}].kind"), &to.kind);
        }
    }
}
