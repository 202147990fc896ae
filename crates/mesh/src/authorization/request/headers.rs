//! Conditions on headers.
//!
//! A header's values are bytes, and each of a repeated header's values is tested on its own
//! (CVE-2021-32777: the last one only, CVE-2026-26308: all in one text). Which of them the
//! application goes by is not known, so that narrowly all must match.

use http::{HeaderMap, HeaderValue};

use super::super::StringMatch;
use super::super::evaluation::{Reading, any_of};
use super::{Port, authority, host_matches};
use crate::request::Request;

/// What a condition means by a header's name.
pub(super) enum Header<'a> {
    /// `:authority` and its older name `host`.
    Authority,
    /// `:method`.
    Method,
    /// `:path`.
    Path,
    /// Any other that starts with a colon.
    Unknown,
    Named(&'a str),
}

// === impl Header ===

impl<'a> Header<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        match name {
            ":authority" | "host" => Self::Authority,
            ":method" => Self::Method,
            ":path" => Self::Path,
            _ if name.starts_with(':') => Self::Unknown,
            _ => Self::Named(name),
        }
    }

    pub(super) fn matches(
        &self,
        request: &Request<'_>,
        patterns: &[StringMatch],
        reading: Reading,
    ) -> bool {
        match self {
            Self::Authority => {
                let port = Port::new(request.port);
                any_of(patterns, |m| host_matches(m, request.host, port.text()))
            }
            Self::Method => any_of(patterns, |m| m.matches(request.method.as_str())),
            Self::Path => {
                let query = request.query.map_or(["", ""], |query| ["?", query]);
                let target = [request.path, query[0], query[1]];
                any_of(patterns, |m| m.matches_pieces(&target))
            }
            Self::Unknown => reading == Reading::Wide,
            Self::Named(name) => values_match(request.headers, name, patterns, reading),
        }
    }

    /// The values, one text each; none where the header is missing.
    pub(super) fn seen(&self, request: &Request<'_>) -> Vec<String> {
        match self {
            Self::Authority => vec![authority(request)],
            Self::Method => vec![request.method.to_string()],
            Self::Path => {
                let query = request.query.map(|query| format!("?{query}"));
                vec![format!("{}{}", request.path, query.unwrap_or_default())]
            }
            Self::Unknown => Vec::new(),
            Self::Named(name) => {
                let values = request.headers.get_all(*name).iter();
                let text = |value: &HeaderValue| value.as_bytes().escape_ascii().to_string();
                values.map(text).collect()
            }
        }
    }
}

fn values_match(
    headers: &HeaderMap,
    name: &str,
    patterns: &[StringMatch],
    reading: Reading,
) -> bool {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let matches = |value: &[u8]| any_of(patterns, |m| value_matches(m, value));
    match reading {
        Reading::Wide => values.any(matches),
        Reading::Narrow => headers.contains_key(name) && values.all(matches),
    }
}

/// `*` is about the header being there, also with nothing in it.
fn value_matches(pattern: &StringMatch, value: &[u8]) -> bool {
    match pattern {
        StringMatch::Presence => true,
        StringMatch::Exact(_) | StringMatch::Prefix(_) | StringMatch::Suffix(_) => {
            pattern.matches_bytes(value)
        }
    }
}
