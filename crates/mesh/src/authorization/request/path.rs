//! Paths of an operation against a request's path.

use std::borrow::Cow;

use super::super::evaluation::{Reading, any_of};
use super::super::{PathPattern, template};

/// A path with parameters (`/admin;v=1`) is `/admin` to many applications and a path of its own
/// to others (CVE-2026-73551, 73553): it matches narrowly only what both readings do.
pub(super) fn matches(patterns: &[PathPattern], path: &str, reading: Reading) -> bool {
    let plain = without_parameters(path);
    any_of(patterns, |pattern| {
        let literal = pattern.matches(path, reading);
        if pattern.has_parameters() || matches!(plain, Cow::Borrowed(_)) {
            return literal;
        }
        let plain = pattern.matches(&plain, reading);
        match reading {
            Reading::Wide => literal || plain,
            Reading::Narrow => literal && plain,
        }
    })
}

// === impl PathPattern ===

impl PathPattern {
    fn matches(&self, path: &str, reading: Reading) -> bool {
        match self {
            Self::Text(text) => text.matches(path),
            Self::Template(template) => match template::validate(template) {
                Ok(()) => template::matches(template, path),
                Err(_) => reading == Reading::Wide,
            },
        }
    }

    fn has_parameters(&self) -> bool {
        match self {
            Self::Text(text) => text.text().contains(';'),
            Self::Template(template) => template.contains(';'),
        }
    }
}

/// Each segment up to its first `;`; the path itself where there is none.
fn without_parameters(path: &str) -> Cow<'_, str> {
    if !path.contains(';') {
        return Cow::Borrowed(path);
    }
    let mut plain = String::with_capacity(path.len());
    for (n, segment) in path.split('/').enumerate() {
        if n > 0 {
            plain.push('/');
        }
        plain.push_str(segment.split(';').next().unwrap_or_default());
    }
    Cow::Owned(plain)
}
