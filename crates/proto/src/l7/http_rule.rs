//! What is done with the requests that one rule of a route is about.

use std::sync::Arc;

use mesh::route as model;

use super::{HttpRule, http_match};
use crate::error::ConversionError;

/// A rule of which anything is not understood answers what it may match with 500.
pub(super) fn decode(wire: HttpRule, problems: &mut Vec<String>) -> model::HttpRule {
    let mut unreadable = Vec::new();
    let name: Option<Arc<str>> = wire.name.clone().map(Into::into);
    let matches: Vec<_> = wire
        .matches
        .iter()
        .map(|one| http_match::decode(one, &mut unreadable))
        .collect();
    let rule = readable(wire, name.clone(), matches.clone());
    let rule = rule.unwrap_or_else(|error| {
        unreadable.push(error.to_string());
        model::HttpRule::default()
    });
    let Some(reason) = unreadable.first() else {
        return rule;
    };
    let refusing = refusing(name, matches, reason);
    problems.append(&mut unreadable);
    refusing
}

fn readable(
    wire: HttpRule,
    name: Option<Arc<str>>,
    matches: Vec<model::HttpMatch>,
) -> Result<model::HttpRule, ConversionError> {
    let timeouts = wire.timeouts.map(TryInto::try_into).transpose()?;
    Ok(model::HttpRule {
        name,
        matches,
        filters: try_all(wire.filters)?,
        backends: try_all(wire.backends)?,
        timeouts: timeouts.unwrap_or_default(),
        retry: wire.retry.map(TryInto::try_into).transpose()?,
    })
}

pub(super) fn try_all<W, M>(wire: Vec<W>) -> Result<Vec<M>, ConversionError>
where
    M: TryFrom<W, Error = ConversionError>,
{
    wire.into_iter().map(TryInto::try_into).collect()
}

pub(super) fn refusing(
    name: Option<Arc<str>>,
    matches: Vec<model::HttpMatch>,
    reason: &str,
) -> model::HttpRule {
    model::HttpRule {
        name,
        matches,
        backends: vec![refused(reason)],
        ..Default::default()
    }
}

/// The whole share of a rule, refused.
pub(super) fn refused(reason: &str) -> model::Backend {
    model::Backend {
        backend: model::BackendRef::Invalid(reason.into()),
        weight: 1,
        filters: Vec::new(),
    }
}

impl From<&model::HttpRule> for HttpRule {
    fn from(rule: &model::HttpRule) -> Self {
        Self {
            name: rule.name.as_ref().map(ToString::to_string),
            matches: rule.matches.iter().map(Into::into).collect(),
            filters: rule.filters.iter().map(Into::into).collect(),
            backends: rule.backends.iter().map(Into::into).collect(),
            timeouts: (rule.timeouts != model::Timeouts::default())
                .then(|| (&rule.timeouts).into()),
            retry: rule.retry.as_ref().map(Into::into),
        }
    }
}
