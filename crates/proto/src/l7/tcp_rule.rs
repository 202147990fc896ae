//! Where connections go.

use std::sync::Arc;

use mesh::route as model;

use super::TcpRule;
use super::http_rule::{refused, try_all};

pub(super) fn decode(wire: TcpRule, problems: &mut Vec<String>) -> model::TcpRule {
    let name: Option<Arc<str>> = wire.name.map(Into::into);
    match try_all(wire.backends) {
        Ok(backends) => model::TcpRule { name, backends },
        Err(error) => {
            let reason = error.to_string();
            let rule = refusing(name, &reason);
            problems.push(reason);
            rule
        }
    }
}

pub(super) fn refusing(name: Option<Arc<str>>, reason: &str) -> model::TcpRule {
    model::TcpRule {
        name,
        backends: vec![refused(reason)],
    }
}

impl From<&model::TcpRule> for TcpRule {
    fn from(rule: &model::TcpRule) -> Self {
        Self {
            name: rule.name.as_ref().map(ToString::to_string),
            backends: rule.backends.iter().map(Into::into).collect(),
        }
    }
}
