//! The target of a request, its path in the one form that is matched, authorized and forwarded.
//!
//! `meshConfig.pathNormalization` says how much is made equal; what has no safe reading is
//! refused. Every form is a fixed point: normalizing again changes nothing.

use std::borrow::Cow;

use http::Method;

/// Which spellings of a path are one path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathNormalization {
    /// Bytes pass untouched; only what no path may contain is refused.
    None,
    /// Dot segments are removed (RFC 3986 §5.2.4), escaped unreserved characters decoded
    /// (§6.2.2.2), and `\` is `/`.
    #[default]
    Base,
    /// And a run of slashes is one slash.
    MergeSlashes,
    /// And `%2F` and `%5C` are slashes from the beginning.
    DecodeAndMergeSlashes,
}

/// What a request is addressed to (RFC 9112 §3.2), in origin form, absolute form or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Of the absolute form: `http` or `https`. Its authority wins over `Host`.
    pub absolute: Option<(&'static str, &'a str)>,
    /// Normalized. `*` where OPTIONS asks about the whole server.
    pub path: Cow<'a, str>,
    /// Without the `?`; never changed.
    pub query: Option<&'a str>,
}

/// Why a target is refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Neither `/path`, `*` with OPTIONS, nor an absolute `http` or `https` URI.
    #[error("the request target is neither a path nor an absolute URI")]
    Form,
    #[error("the request target contains a control character or a space")]
    Character,
    /// It is the client's own part of a URI (RFC 9110 §7.1): a server that sees one is tricked.
    #[error("the request target contains a fragment")]
    Fragment,
    #[error("the path contains an escape that is none, or an escaped NUL")]
    Escape,
    /// `..;x`, `..%2Fx`: a segment to one reader and a step upwards to the next.
    #[error("the path hides a dot segment")]
    HiddenDotSegment,
}

// === impl PathNormalization ===

impl PathNormalization {
    /// Reads a request's target.
    ///
    /// # Errors
    ///
    /// The target is malformed, or has no safe reading.
    pub fn target<'a>(self, method: &Method, target: &'a str) -> Result<Target<'a>, PathError> {
        check_characters(target)?;
        let (absolute, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let Some((scheme, rest)) = split_scheme(target) else {
                return asterisk(method, target).ok_or(PathError::Form);
            };
            let end = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            if authority.is_empty() {
                return Err(PathError::Form);
            }
            (Some((scheme, authority)), rest)
        };
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let path = match path {
            "" if method == Method::OPTIONS && query.is_none() => Cow::Borrowed("*"),
            "" => Cow::Borrowed("/"),
            path => self.path(path)?,
        };
        Ok(Target {
            absolute,
            path,
            query,
        })
    }

    /// Normalizes a path that has no query. Paths that are normal already are not copied.
    ///
    /// Path parameters (`;`) are part of their segment, as RFC 3986 §3.3 has them. Servers that
    /// cut them off see another path: [`without_parameters`] is that path.
    ///
    /// # Errors
    ///
    /// The path is malformed, or has no safe reading.
    pub fn path(self, path: &str) -> Result<Cow<'_, str>, PathError> {
        check_characters(path)?;
        if !path.starts_with(['/', '\\']) {
            return Err(PathError::Form);
        }
        if self == Self::None || self.is_normal(path) {
            return Ok(Cow::Borrowed(path));
        }
        let decoded = decode(path, self == Self::DecodeAndMergeSlashes)?;
        let resolved = remove_dot_segments(&decoded)?;
        Ok(Cow::Owned(if self.merges() {
            merge_slashes(&resolved)
        } else {
            resolved
        }))
    }

    fn merges(self) -> bool {
        match self {
            Self::None | Self::Base => false,
            Self::MergeSlashes | Self::DecodeAndMergeSlashes => true,
        }
    }

    /// Whether nothing in the path could need a change; sometimes false where nothing does.
    fn is_normal(self, path: &str) -> bool {
        let mut previous = 0;
        path.bytes().all(|byte| {
            let normal = match byte {
                b'%' | b'\\' => false,
                b'.' => previous != b'/',
                b'/' => previous != b'/' || !self.merges(),
                _ => true,
            };
            previous = byte;
            normal
        })
    }
}

/// The path as servers see it that cut off path parameters, each `;` to the end of its segment;
/// none where there is no parameter. A rule that refuses must refuse either path, a rule that
/// allows must allow both.
pub fn without_parameters(path: &str) -> Option<String> {
    if !path.contains(';') {
        return None;
    }
    let mut stripped = String::with_capacity(path.len());
    for segment in path.split('/').skip(1) {
        let name = segment.split(';').next().unwrap_or_default();
        if !name.is_empty() || segment.is_empty() {
            stripped.push('/');
            stripped.push_str(name);
        }
    }
    if stripped.is_empty() {
        stripped.push('/');
    }
    Some(stripped)
}

fn check_characters(target: &str) -> Result<(), PathError> {
    for byte in target.bytes() {
        match byte {
            0..=b' ' | 0x7f => return Err(PathError::Character),
            b'#' => return Err(PathError::Fragment),
            _ => {}
        }
    }
    Ok(())
}

fn split_scheme(target: &str) -> Option<(&'static str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    ["http", "https"]
        .into_iter()
        .find(|known| scheme.eq_ignore_ascii_case(known))
        .map(|known| (known, rest))
}

fn asterisk<'a>(method: &Method, target: &'a str) -> Option<Target<'a>> {
    (target == "*" && method == Method::OPTIONS).then_some(Target {
        absolute: None,
        path: Cow::Borrowed(target),
        query: None,
    })
}

/// Decodes escapes of unreserved characters (RFC 3986 §2.3) and makes backslashes slashes; with
/// `slashes`, escaped ones of both kinds too. No decoded character can begin or complete another
/// escape, so one pass is all.
fn decode(path: &str, slashes: bool) -> Result<String, PathError> {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('\\') {
            decoded.push('/');
            rest = after;
            continue;
        }
        let (escape, after) = rest.split_at_checked(3).ok_or(PathError::Escape)?;
        match unescape(escape).ok_or(PathError::Escape)? {
            0 => return Err(PathError::Escape),
            byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                decoded.push(char::from(byte));
            }
            b'/' | b'\\' if slashes => decoded.push('/'),
            _ => decoded.push_str(escape),
        }
        rest = after;
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// The byte of `%XX`.
pub(crate) fn unescape(escape: &str) -> Option<u8> {
    let digits = escape.strip_prefix('%')?;
    // `from_str_radix` alone would take a sign.
    (digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

fn remove_dot_segments(path: &str) -> Result<String, PathError> {
    let mut resolved = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => resolved.truncate(resolved.rfind('/').unwrap_or(0)),
            _ if hides_dot_segment(segment) => return Err(PathError::HiddenDotSegment),
            _ => {
                resolved.push('/');
                resolved.push_str(segment);
                continue;
            }
        }
        // A dot segment in last place leaves its slash.
        if segments.peek().is_none() {
            resolved.push('/');
        }
    }
    Ok(resolved)
}

/// Whether a segment becomes a dot segment once parameters are cut off or escaped slashes are
/// decoded.
fn hides_dot_segment(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let mut start = 0;
    let mut at = 0;
    while at <= bytes.len() {
        let (ends, length) = match bytes.get(at..).unwrap_or_default() {
            [] => (true, 1),
            [b';', ..] => (true, 1),
            [b'%', b'3', b'B' | b'b', ..] => (true, 3),
            [b'%', b'2', b'F' | b'f', ..] | [b'%', b'5', b'C' | b'c', ..] => (true, 3),
            [..] => (false, 1),
        };
        if ends {
            if matches!(&bytes[start..at], b"." | b"..") {
                return true;
            }
            start = at + length;
        }
        at += length;
    }
    false
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !merged.ends_with('/') {
            merged.push(character);
        }
    }
    merged
}

#[cfg(test)]
mod tests;
