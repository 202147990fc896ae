//! L4 policies as they travel over xDS.
//!
//! What cannot be understood is applied in a form that never widens access, and reported:
//! a match that never allows and always denies, or a policy that denies all it selects.

pub(crate) mod r#match;

pub(crate) mod string_match;

use mesh::authorization as model;
use prost::Message;

use crate::error::{ConversionError, known};
pub use crate::generated::istio::security::{
    Action, Address, Authorization, Clause, Match, Rule, Scope, ServiceAccountMatch, StringMatch,
    string_match::MatchType,
};

/// Resource type of [`Authorization`].
pub const AUTHORIZATION_TYPE_URL: &str = "type.googleapis.com/istio.security.Authorization";

/// A policy that is safe to apply, and what of its message was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    pub policy: model::Authorization,
    pub problems: Vec<String>,
}

// === impl Decoded ===

impl Decoded {
    /// Reads a resource. Without a readable name the resource's own says which policy it is.
    pub fn read(key: &model::PolicyKey, bytes: &[u8]) -> Self {
        match Authorization::decode(bytes) {
            Ok(wire) => Self::from(wire).keyed(key),
            Err(error) => Self {
                policy: denying(key, Scope::Namespace, &error.to_string()),
                problems: vec![error.to_string()],
            },
        }
    }

    /// A message that calls itself otherwise than its resource would be removed under
    /// another name than it was added.
    fn keyed(mut self, key: &model::PolicyKey) -> Self {
        if self.policy.key() != *key {
            let problem = format!("calls itself {}", self.policy.key());
            self.policy = denying(key, Scope::Namespace, &problem);
            self.problems.push(problem);
        }
        self
    }
}

impl From<Authorization> for Decoded {
    fn from(wire: Authorization) -> Self {
        let key = model::PolicyKey::new(wire.namespace, wire.name);
        let kind = known::<Scope>("scope", wire.scope)
            .and_then(|scope| Ok((scope, known::<Action>("action", wire.action)?)));
        let (scope, action) = match kind {
            Ok(kind) => kind,
            Err(error) => return Self::unreadable(&key, wire.scope, wire.dry_run, &error),
        };
        let mut problems = Vec::new();
        let rules = wire
            .rules
            .into_iter()
            .map(|rule| decode_rule(rule, &mut problems))
            .collect();
        let policy = model::Authorization {
            name: key.name,
            namespace: key.namespace,
            scope: scope.into(),
            action: action.into(),
            dry_run: wire.dry_run,
            targets: Vec::new(),
            rules,
        };
        Self { policy, problems }
    }
}

impl Decoded {
    fn unreadable(
        key: &model::PolicyKey,
        scope: i32,
        dry_run: bool,
        error: &ConversionError,
    ) -> Self {
        let problem = error.to_string();
        // Of an unknown scope only this is sure: the policy's own namespace is in it,
        // and every workload that names the policy.
        let scope = Scope::try_from(scope).unwrap_or(Scope::Namespace);
        Self {
            policy: model::Authorization {
                dry_run,
                ..denying(key, scope, &problem)
            },
            problems: vec![problem],
        }
    }
}

/// Denies everything it selects.
fn denying(key: &model::PolicyKey, scope: Scope, reason: &str) -> model::Authorization {
    let unparsable = model::Match {
        unparsable: Some(reason.into()),
        ..Default::default()
    };
    model::Authorization {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope.into(),
        action: model::Action::Deny,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![model::Rule {
            clauses: vec![model::Clause {
                matches: vec![unparsable],
            }],
        }],
    }
}

fn decode_rule(wire: Rule, problems: &mut Vec<String>) -> model::Rule {
    let clauses = wire.clauses.into_iter().map(|clause| model::Clause {
        matches: clause
            .matches
            .into_iter()
            .map(|one| r#match::decode(one, problems))
            .collect(),
    });
    model::Rule {
        clauses: clauses.collect(),
    }
}

// === Encoding ===

impl From<&model::Authorization> for Authorization {
    fn from(policy: &model::Authorization) -> Self {
        let rules = policy.rules.iter().map(|rule| Rule {
            clauses: rule
                .clauses
                .iter()
                .map(|clause| Clause {
                    matches: clause
                        .matches
                        .iter()
                        .map(|one| r#match::encode_for_node(one, policy.action))
                        .collect(),
                })
                .collect(),
        });
        Self {
            name: policy.name.as_ref().to_owned(),
            namespace: policy.namespace.as_ref().to_owned(),
            scope: Scope::from(policy.scope).into(),
            action: Action::from(policy.action).into(),
            rules: rules.collect(),
            dry_run: policy.dry_run,
            extensions: Vec::new(),
        }
    }
}

// === Scope and Action ===

impl From<Scope> for model::Scope {
    fn from(wire: Scope) -> Self {
        match wire {
            Scope::Global => Self::Global,
            Scope::Namespace => Self::Namespace,
            Scope::WorkloadSelector => Self::WorkloadSelector,
        }
    }
}

impl From<model::Scope> for Scope {
    fn from(scope: model::Scope) -> Self {
        match scope {
            model::Scope::Global => Self::Global,
            model::Scope::Namespace => Self::Namespace,
            // Named by no workload, a policy for waypoints applies to none at the node.
            model::Scope::WorkloadSelector | model::Scope::Target => Self::WorkloadSelector,
        }
    }
}

impl From<Action> for model::Action {
    fn from(wire: Action) -> Self {
        match wire {
            Action::Allow => Self::Allow,
            Action::Deny => Self::Deny,
        }
    }
}

impl From<model::Action> for Action {
    fn from(action: model::Action) -> Self {
        match action {
            model::Action::Allow => Self::Allow,
            // Audits are not sent to nodes; one that were must not widen access.
            model::Action::Deny | model::Action::Audit => Self::Deny,
        }
    }
}

#[cfg(test)]
mod tests;
