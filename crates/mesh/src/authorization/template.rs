//! Path templates of an operation: `{*}` stands for one segment, `{**}` for any number of them.
//!
//! `{**}` is the last operator, an operator is a whole segment, and outside of operators there is
//! no `*`, `{` or `}`. What an operator stands for may hold any character but `/` (CVE-2025-46821:
//! a `*` in the request's path once kept a template from matching).

use std::fmt;

use super::{PathPattern, StringMatch};

const SEGMENT: &str = "{*}";
const SEGMENTS: &str = "{**}";

/// Why a text is not a path template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("a path template starts with /")]
    Relative,
    #[error("the segment {0:?} mixes text with an operator or has a *, {{ or }} of its own")]
    Segment(String),
    #[error("{{**}} must be the last operator")]
    NotLast,
}

// === impl PathPattern ===

impl PathPattern {
    /// Reads a path of an operation; with an operator in it, it is a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains(SEGMENT) || text.contains(SEGMENTS) {
            validate(text)?;
            Ok(Self::Template(text.into()))
        } else {
            Ok(Self::Text(StringMatch::parse(text)))
        }
    }
}

/// As policies write it.
impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Template(template) => f.write_str(template),
        }
    }
}

/// Whether a text is a path template, and if not, why.
pub(super) fn validate(template: &str) -> Result<(), TemplateError> {
    let segments = template.strip_prefix('/').ok_or(TemplateError::Relative)?;
    let mut ended = false;
    for segment in segments.split('/') {
        let operator = segment == SEGMENT || segment == SEGMENTS;
        if !operator && segment.contains(['*', '{', '}']) {
            return Err(TemplateError::Segment(segment.to_owned()));
        }
        if operator && ended {
            return Err(TemplateError::NotLast);
        }
        ended |= segment == SEGMENTS;
    }
    Ok(())
}

/// What every path begins with that a template matches; none of one that is not valid, which
/// may match anything.
pub(super) fn literal_start(template: &str) -> Option<&str> {
    validate(template).ok()?;
    template.split('{').next()
}

/// Of a valid template; `/a/{**}` needs the slash after `a` and anything or nothing after it.
pub(super) fn matches(template: &str, path: &str) -> bool {
    match template.split_once(SEGMENTS) {
        Some((head, tail)) => after(head, path).is_some_and(|rest| rest.ends_with(tail)),
        None => after(template, path) == Some(""),
    }
}

/// What is left of the path after `head`.
fn after<'a>(head: &str, path: &'a str) -> Option<&'a str> {
    let mut texts = head.split(SEGMENT);
    let mut rest = path.strip_prefix(texts.next()?)?;
    for text in texts {
        let end = rest.find('/').unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        rest = rest[end..].strip_prefix(text)?;
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_by_segments() {
        for (template, path, expected) in [
            ("/foo/{*}", "/foo/bar", true),
            ("/foo/{*}", "/foo/bar/baz", false),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo", false),
            ("/foo/{*}", "/foobar/x", false),
            ("/{*}/foo", "/a/foo", true),
            ("/{*}/foo", "/a/b/foo", false),
            ("/{*}/{*}", "/a/b", true),
            ("/foo/{**}", "/foo/", true),
            ("/foo/{**}", "/foo/a/b/c", true),
            ("/foo/{**}", "/foo", false),
            ("/foo/{**}", "/food/a", false),
            ("/foo/{**}/", "/foo/bar/", true),
            ("/foo/{**}/", "/foo//", true),
            ("/foo/{**}/", "/foo/bar", false),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", true),
            ("/foo/{*}/bar/{**}", "/foo/buzz/baz/bar", false),
            ("/{**}", "/", true),
            ("/{**}", "/a/b", true),
            ("/foo/{*}", "/foo/ä€", true),
        ] {
            assert_eq!(validate(template), Ok(()), "{template}");
            assert_eq!(matches(template, path), expected, "{template} {path}");
        }
    }

    #[test]
    fn cve_2025_46821_a_star_in_the_path_is_a_character_like_any_other() {
        for path in ["/foo/*", "/foo/a*b", "/foo/{*}", "/foo/\"<>|^`"] {
            assert!(matches("/foo/{*}", path), "{path}");
            assert!(matches("/foo/{**}", path), "{path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        let mixed = |segment: &str| Err(TemplateError::Segment(segment.into()));
        for (text, expected) in [
            ("foo/{*}", Err(TemplateError::Relative)),
            ("/*/baz/{*}", mixed("*")),
            ("/**/baz/{*}", mixed("**")),
            ("/{**}/foo/{*}", Err(TemplateError::NotLast)),
            ("/{**}/{**}", Err(TemplateError::NotLast)),
            ("/foo/{*}.txt", mixed("{*}.txt")),
            ("/foo/{a}/{*}", mixed("{a}")),
            ("/foo/{***}/{*}", mixed("{***}")),
        ] {
            let parsed = PathPattern::parse(text).map(|_| ());
            assert_eq!(parsed, expected, "{text}");
        }
        assert_eq!(
            PathPattern::parse("/foo/*"),
            Ok(PathPattern::Text(StringMatch::Prefix("/foo/".into())))
        );
    }
}
