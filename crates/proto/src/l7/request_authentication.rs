//! Which tokens are accepted.

use mesh::authorization::{PolicyKey, Scope as ModelScope};
use mesh::request_authentication as model;
use prost::Message;

use super::policy_target::Attachment;
use super::{Decoded, RequestAuthentication, Scope};

impl Decoded<model::RequestAuthentication> {
    /// Reads a resource. Without a readable name the resource's own says which policy it is.
    pub fn read(key: &PolicyKey, bytes: &[u8]) -> Self {
        let decoded = match RequestAuthentication::decode(bytes) {
            Ok(wire) => Self::from(wire),
            Err(error) => return Self::unreadable(key, error.to_string()),
        };
        let own = decoded.resource.key();
        match own == *key {
            true => decoded,
            // It would be removed under another name than it was added.
            false => Self::unreadable(key, format!("calls itself {own}")),
        }
    }

    fn unreadable(key: &PolicyKey, problem: String) -> Self {
        let resource = model::RequestAuthentication {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            scope: ModelScope::Namespace,
            targets: Vec::new(),
            rules: Vec::new(),
            unparsable: Some(problem.as_str().into()),
        };
        Self {
            resource,
            problems: vec![problem],
        }
    }
}

impl From<RequestAuthentication> for Decoded<model::RequestAuthentication> {
    fn from(wire: RequestAuthentication) -> Self {
        let attachment = Attachment::decode(wire.scope, wire.targets);
        let mut problems: Vec<String> = attachment.problem.into_iter().collect();
        let mut rules = Vec::new();
        for rule in wire.rules {
            match model::JwtRule::try_from(rule) {
                Ok(rule) => rules.push(rule),
                Err(error) => problems.push(error.to_string()),
            }
        }
        // What its author could not express needs no report back.
        let unparsable = wire.unparsable.or_else(|| problems.first().cloned());
        let resource = model::RequestAuthentication {
            namespace: wire.namespace.into(),
            name: wire.name.into(),
            scope: attachment.scope,
            targets: attachment.targets,
            rules,
            unparsable: unparsable.map(Into::into),
        };
        Self { resource, problems }
    }
}

impl From<&model::RequestAuthentication> for RequestAuthentication {
    fn from(policy: &model::RequestAuthentication) -> Self {
        Self {
            namespace: policy.namespace.to_string(),
            name: policy.name.to_string(),
            scope: Scope::from(policy.scope).into(),
            targets: policy.targets.iter().map(Into::into).collect(),
            rules: policy.rules.iter().map(Into::into).collect(),
            unparsable: policy.unparsable.as_ref().map(ToString::to_string),
        }
    }
}
