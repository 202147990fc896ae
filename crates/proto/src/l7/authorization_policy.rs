//! A whole AuthorizationPolicy, as waypoints evaluate it.

use mesh::authorization as model;
use prost::Message;

use super::policy_target::Attachment;
use super::{
    Action, AuthorizationPolicy, Clause, Decoded, Match, Rule, Scope, request_match, scope,
};
use crate::authorization::r#match;

impl Decoded<model::Authorization> {
    /// Reads a resource. Without a readable name the resource's own says which policy it is.
    pub fn read(key: &model::PolicyKey, bytes: &[u8]) -> Self {
        let decoded = match AuthorizationPolicy::decode(bytes) {
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

    fn unreadable(key: &model::PolicyKey, problem: String) -> Self {
        let mut resource = model::Authorization {
            name: key.name.clone(),
            namespace: key.namespace.clone(),
            scope: model::Scope::Namespace,
            action: model::Action::Deny,
            dry_run: false,
            targets: Vec::new(),
            rules: Vec::new(),
        };
        deny_all(&mut resource, &problem);
        Self {
            resource,
            problems: vec![problem],
        }
    }
}

impl From<AuthorizationPolicy> for Decoded<model::Authorization> {
    fn from(wire: AuthorizationPolicy) -> Self {
        let attachment = Attachment::decode(wire.scope, wire.targets);
        let action = scope::decode_action(wire.action);
        let unreadable = action.as_ref().err().map(ToString::to_string);
        let unreadable = unreadable.or(attachment.problem);
        let mut problems = Vec::new();
        let rules = wire
            .rules
            .into_iter()
            .map(|rule| decode_rule(rule, &mut problems));
        let mut resource = model::Authorization {
            name: wire.name.into(),
            namespace: wire.namespace.into(),
            scope: attachment.scope,
            action: action.unwrap_or(model::Action::Deny),
            dry_run: wire.dry_run,
            targets: attachment.targets,
            rules: rules.collect(),
        };
        if let Some(problem) = unreadable {
            deny_all(&mut resource, &problem);
            problems.push(problem);
        }
        Self { resource, problems }
    }
}

/// Makes it deny everything it selects.
fn deny_all(policy: &mut model::Authorization, reason: &str) {
    let unparsable = model::Match {
        unparsable: Some(reason.into()),
        ..Default::default()
    };
    policy.action = model::Action::Deny;
    policy.rules = vec![model::Rule {
        clauses: vec![model::Clause {
            matches: vec![unparsable],
        }],
    }];
}

fn decode_rule(wire: Rule, problems: &mut Vec<String>) -> model::Rule {
    let clauses = wire.clauses.into_iter().map(|clause| model::Clause {
        matches: clause
            .matches
            .into_iter()
            .map(|one| decode_match(one, problems))
            .collect(),
    });
    model::Rule {
        clauses: clauses.collect(),
    }
}

fn decode_match(wire: Match, problems: &mut Vec<String>) -> model::Match {
    let mut decoded = r#match::decode(wire.connection.unwrap_or_default(), problems);
    match wire.request.map(request_match::decode).transpose() {
        Ok(request) => decoded.request = request.map(Into::into),
        Err(error) => {
            let problem = error.to_string();
            decoded.unparsable.get_or_insert(problem.as_str().into());
            problems.push(problem);
        }
    }
    decoded
}

impl From<&model::Authorization> for AuthorizationPolicy {
    fn from(policy: &model::Authorization) -> Self {
        let encode = |one: &model::Match| Match {
            connection: Some(r#match::encode(one, policy.action)),
            request: one.request.as_deref().map(Into::into),
        };
        let clause = |clause: &model::Clause| Clause {
            matches: clause.matches.iter().map(encode).collect(),
        };
        let rules = policy.rules.iter().map(|rule| Rule {
            clauses: rule.clauses.iter().map(clause).collect(),
        });
        Self {
            namespace: policy.namespace.to_string(),
            name: policy.name.to_string(),
            scope: Scope::from(policy.scope).into(),
            targets: policy.targets.iter().map(Into::into).collect(),
            action: Action::from(policy.action).into(),
            dry_run: policy.dry_run,
            rules: rules.collect(),
        }
    }
}
