//! What a policy is attached to.

use mesh::authorization::Scope;
use mesh::policy_target as model;

use super::route_parent::service;
use super::{Gateway, PolicyTarget, scope};
use crate::error::ConversionError;
use crate::generated::weft::l7::policy_target::Target;

/// The scope and the targets of a policy, as far as they are understood.
pub(super) struct Attachment {
    pub(super) scope: Scope,
    pub(super) targets: Vec<model::PolicyTarget>,
    /// Not all of them: the scope is then the policy's namespace, which what it targets is in.
    pub(super) problem: Option<String>,
}

impl Attachment {
    pub(super) fn decode(wire_scope: i32, wire: Vec<PolicyTarget>) -> Self {
        let mut targets = Vec::new();
        let mut problem = None;
        for target in wire {
            match target.try_into() {
                Ok(target) => targets.push(target),
                Err(error) => problem = Some(ConversionError::to_string(&error)),
            }
        }
        let scope = scope::decode(wire_scope).unwrap_or_else(|error| {
            problem = Some(error.to_string());
            Scope::Namespace
        });
        Self {
            scope: match (&problem, scope) {
                (Some(_), Scope::Target) => Scope::Namespace,
                (_, scope) => scope,
            },
            targets,
            problem,
        }
    }
}

impl TryFrom<PolicyTarget> for model::PolicyTarget {
    type Error = ConversionError;

    fn try_from(wire: PolicyTarget) -> Result<Self, Self::Error> {
        match wire.target {
            Some(Target::Service(key)) => Ok(Self::Service(service("targets", key)?)),
            Some(Target::Gateway(gateway)) => Ok(Self::Gateway {
                namespace: gateway.namespace.into(),
                name: gateway.name.into(),
            }),
            Some(Target::GatewayClass(name)) => Ok(Self::GatewayClass(name.into())),
            None => Err(ConversionError::Missing("targets")),
        }
    }
}

impl From<&model::PolicyTarget> for PolicyTarget {
    fn from(target: &model::PolicyTarget) -> Self {
        let target = match target {
            model::PolicyTarget::Service(key) => Target::Service(key.to_string()),
            model::PolicyTarget::Gateway { namespace, name } => Target::Gateway(Gateway {
                namespace: namespace.to_string(),
                name: name.to_string(),
            }),
            model::PolicyTarget::GatewayClass(name) => Target::GatewayClass(name.to_string()),
        };
        Self {
            target: Some(target),
        }
    }
}
