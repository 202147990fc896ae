//! What a policy is about, and what it does.

use mesh::authorization as model;

use super::{Action, Scope};
use crate::error::{ConversionError, known};

pub(super) fn decode(wire: i32) -> Result<model::Scope, ConversionError> {
    match known::<Scope>("scope", wire)? {
        Scope::Unspecified => Err(ConversionError::Missing("scope")),
        Scope::Global => Ok(model::Scope::Global),
        Scope::Namespace => Ok(model::Scope::Namespace),
        Scope::WorkloadSelector => Ok(model::Scope::WorkloadSelector),
        Scope::Target => Ok(model::Scope::Target),
    }
}

impl From<model::Scope> for Scope {
    fn from(scope: model::Scope) -> Self {
        match scope {
            model::Scope::Global => Self::Global,
            model::Scope::Namespace => Self::Namespace,
            model::Scope::WorkloadSelector => Self::WorkloadSelector,
            model::Scope::Target => Self::Target,
        }
    }
}

pub(super) fn decode_action(wire: i32) -> Result<model::Action, ConversionError> {
    match known::<Action>("action", wire)? {
        Action::Unspecified => Err(ConversionError::Missing("action")),
        Action::Allow => Ok(model::Action::Allow),
        Action::Deny => Ok(model::Action::Deny),
        Action::Audit => Ok(model::Action::Audit),
    }
}

impl From<model::Action> for Action {
    fn from(action: model::Action) -> Self {
        match action {
            model::Action::Allow => Self::Allow,
            model::Action::Deny => Self::Deny,
            model::Action::Audit => Self::Audit,
        }
    }
}
