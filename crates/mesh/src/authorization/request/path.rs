//! Paths of an operation against a request's path.

use std::cell::OnceCell;

use super::super::evaluation::{Reading, any_of};
use super::super::{PathPattern, template};
use crate::path;

/// Applications read some paths in more than one way: `/admin;v=1` is `/admin` to those that cut
/// parameters off (CVE-2026-73551, 73553), and `//admin` and `/%2fadmin` are to those that merge
/// slashes (CVE-2021-31920). What has several readings matches narrowly only what all of them
/// do, and widely what any does.
pub(super) fn matches(
    patterns: &[PathPattern],
    path: &str,
    others: &OtherReadings,
    reading: Reading,
) -> bool {
    any_of(patterns, |pattern| {
        let literal = pattern.matches(path, reading);
        let Some(readings) = others.of(path).filter(|_| !pattern.is_particular()) else {
            return literal;
        };
        let mut others = readings.0.iter();
        match reading {
            Reading::Wide => literal || others.any(|other| pattern.matches(other, reading)),
            Reading::Narrow => literal && others.all(|other| pattern.matches(other, reading)),
        }
    })
}

/// What else the path of one request may be, found out when the first policy asks: a hundred
/// policies about paths would find out a hundred times.
#[derive(Default)]
pub(in super::super) struct OtherReadings(OnceCell<Option<Readings>>);

// === impl OtherReadings ===

impl OtherReadings {
    /// Whether there are any of the request's path, always the same one.
    pub(in super::super) fn exist_for(&self, path: &str) -> bool {
        self.of(path).is_some()
    }

    fn of(&self, path: &str) -> Option<&Readings> {
        self.0.get_or_init(|| Readings::of(path)).as_ref()
    }
}

/// What else a path may be to an application.
struct Readings(Vec<String>);

// === impl Readings ===

impl Readings {
    /// None where there is but one.
    fn of(path: &str) -> Option<Self> {
        let merged = path::PathNormalization::DecodeAndMergeSlashes;
        let merged = match has_slashes_to_merge(path).then(|| merged.path(path)) {
            Some(Ok(merged)) if merged != path => Some(merged.into_owned()),
            Some(Ok(_) | Err(_)) | None => None,
        };
        let mut readings: Vec<String> = path::without_parameters(path).into_iter().collect();
        if let Some(merged) = merged {
            readings.extend(path::without_parameters(&merged));
            readings.push(merged);
        }
        (!readings.is_empty()).then_some(Self(readings))
    }
}

/// Two slashes in a row, one of them escaped or a backslash perhaps.
fn has_slashes_to_merge(path: &str) -> bool {
    path.contains("//") || path.contains('\\') || has_escaped_slash(path)
}

fn has_escaped_slash(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes
        .windows(3)
        .any(|escape| escape.eq_ignore_ascii_case(b"%2f") || escape.eq_ignore_ascii_case(b"%5c"))
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

    /// Whether it is about one of the spellings that have several readings.
    fn is_particular(&self) -> bool {
        let text = match self {
            Self::Text(text) => text.text(),
            Self::Template(template) => template,
        };
        text.contains(';') || has_slashes_to_merge(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(patterns: &[PathPattern], path: &str, reading: Reading) -> bool {
        matches(patterns, path, &OtherReadings::default(), reading)
    }

    #[test]
    fn a_rule_that_denies_holds_for_every_reading_and_one_that_allows_for_all_of_them() {
        let admin = [PathPattern::parse("/admin*").expect("valid")];
        let public = [PathPattern::parse("/public/*").expect("valid")];
        for path in [
            "//admin",
            "///admin//",
            "/%2fadmin",
            "/x/..%2F..%2fadmin",
            "/x/..%5cadmin",
            "/;x/admin",
            "//;x//admin",
        ] {
            assert!(holds(&admin, path, Reading::Wide), "{path}");
            assert!(!holds(&admin, path, Reading::Narrow), "{path}");
        }
        for path in ["/public/..%2fadmin", "/public/%2e%2e%2f..%2fadmin"] {
            assert!(!holds(&public, path, Reading::Narrow), "{path}");
        }
        assert!(holds(&public, "/public/a%2fb", Reading::Narrow));
        let particular = [PathPattern::parse("/a//b").expect("valid")];
        assert!(holds(&particular, "/a//b", Reading::Narrow));
        assert!(!holds(&particular, "/a/b", Reading::Wide));
    }
}
