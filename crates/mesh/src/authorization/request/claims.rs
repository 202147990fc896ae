//! Conditions on a verified token: its principal and its claims.

use std::sync::Arc;

use serde_json::Value;

use super::super::StringMatch;
use super::super::evaluation::Reading;
use crate::request::Claims;

// === impl Claims ===

impl Claims {
    /// Whether the token's principal, `issuer/subject`, matches.
    ///
    /// Both may contain slashes, so that the one text can be made of other issuers and subjects.
    /// A pattern means the split at its last slash; widely, any.
    pub(super) fn is(&self, pattern: &StringMatch, reading: Reading) -> bool {
        match reading {
            Reading::Wide => {
                self.matches_split(pattern)
                    || pattern.matches_pieces(&[&self.issuer, "/", &self.subject])
            }
            Reading::Narrow => self.matches_split(pattern),
        }
    }

    fn matches_split(&self, pattern: &StringMatch) -> bool {
        let (issuer, subject) = (&*self.issuer, &*self.subject);
        let named = !issuer.is_empty() && !subject.is_empty();
        named
            && match pattern {
                StringMatch::Presence => true,
                StringMatch::Exact(exact) => exact.rsplit_once('/') == Some((issuer, subject)),
                StringMatch::Prefix(prefix) => match prefix.rsplit_once('/') {
                    Some((exact, start)) => issuer == exact && subject.starts_with(start),
                    None => issuer.starts_with(&**prefix),
                },
                StringMatch::Suffix(suffix) => match suffix.rsplit_once('/') {
                    Some((end, exact)) => issuer.ends_with(end) && subject == exact,
                    None => subject.ends_with(&**suffix),
                },
            }
    }

    /// Whether `holds` says so of one of the texts that the claim at `path` has: of its own, of a
    /// list's elements, of a list's that is written as one text.
    pub(super) fn any_text(&self, path: &[Arc<str>], holds: &mut dyn FnMut(&str) -> bool) -> bool {
        let Some((name, inner)) = path.split_first() else {
            return false;
        };
        let mut claim = self.all.get(&**name);
        for name in inner {
            claim = claim.and_then(|claim| claim.as_object()?.get(&**name));
        }
        let list = inner.is_empty() && self.space_delimited.contains(name);
        match claim {
            Some(Value::String(text)) if list => text.split_ascii_whitespace().any(holds),
            Some(Value::Array(values)) => values.iter().any(|value| any_scalar(value, holds)),
            Some(value) => any_scalar(value, holds),
            None => false,
        }
    }
}

/// Numbers and booleans by the text that JSON writes.
fn any_scalar(value: &Value, holds: &mut dyn FnMut(&str) -> bool) -> bool {
    match value {
        Value::String(text) => holds(text),
        Value::Bool(true) => holds("true"),
        Value::Bool(false) => holds("false"),
        Value::Number(number) => holds(&number.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}
