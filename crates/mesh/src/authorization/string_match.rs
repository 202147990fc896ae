//! How policies match a text, also one that exists only in pieces, so that nothing is put
//! together for it.

use std::fmt;

use super::StringMatch;

/// Compares two byte strings of one length.
type Equal = fn(&[u8], &[u8]) -> bool;

// === impl StringMatch ===

impl StringMatch {
    /// Reads the form policies write: `*`, `*suffix`, `prefix*` or an exact text.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Presence
        } else if let Some(suffix) = text.strip_prefix('*') {
            Self::Suffix(suffix.into())
        } else if let Some(prefix) = text.strip_suffix('*') {
            Self::Prefix(prefix.into())
        } else {
            Self::Exact(text.into())
        }
    }

    pub fn matches(&self, text: &str) -> bool {
        self.matches_bytes(text.as_bytes())
    }

    /// Of a text that need not be UTF-8.
    pub(super) fn matches_bytes(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => text == exact.as_bytes(),
            Self::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            Self::Presence => !text.is_empty(),
        }
    }

    /// Of the text that the pieces make.
    pub(super) fn matches_pieces(&self, pieces: &[&str]) -> bool {
        self.matches_pieces_by(pieces, |one, other| one == other)
    }

    /// Of the text that the pieces make, in any letter case.
    pub(super) fn matches_any_case(&self, pieces: &[&str]) -> bool {
        self.matches_pieces_by(pieces, <[u8]>::eq_ignore_ascii_case)
    }

    /// The part of the pattern that is compared.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Suffix(text) => text,
            Self::Presence => "",
        }
    }

    fn matches_pieces_by(&self, pieces: &[&str], equal: Equal) -> bool {
        let length = || pieces.iter().map(|piece| piece.len()).sum::<usize>();
        match self {
            Self::Exact(exact) => length() == exact.len() && begins(pieces, exact, equal),
            Self::Prefix(prefix) => begins(pieces, prefix, equal),
            Self::Suffix(suffix) => ends(pieces, suffix, equal),
            Self::Presence => pieces.iter().any(|piece| !piece.is_empty()),
        }
    }
}

/// As policies write it.
impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(exact) => f.write_str(exact),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
            Self::Presence => f.write_str("*"),
        }
    }
}

fn begins(pieces: &[&str], start: &str, equal: Equal) -> bool {
    let mut rest = start.as_bytes();
    for piece in pieces {
        let length = rest.len().min(piece.len());
        let (now, later) = rest.split_at(length);
        if !equal(now, &piece.as_bytes()[..length]) {
            return false;
        }
        rest = later;
    }
    rest.is_empty()
}

fn ends(pieces: &[&str], end: &str, equal: Equal) -> bool {
    let mut rest = end.as_bytes();
    for piece in pieces.iter().rev() {
        let length = rest.len().min(piece.len());
        let (later, now) = rest.split_at(rest.len() - length);
        if !equal(now, &piece.as_bytes()[piece.len() - length..]) {
            return false;
        }
        rest = later;
    }
    rest.is_empty()
}
