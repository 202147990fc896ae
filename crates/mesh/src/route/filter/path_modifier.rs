//! The path that a redirect or a rewrite makes of a request's.

use std::borrow::Cow;

use crate::route::{PathMatch, PathModifier};

// === impl PathModifier ===

impl PathModifier {
    /// The new path. `matched` is what the rule matched the path by.
    pub fn path<'a>(&'a self, path: &'a str, matched: Option<&PathMatch>) -> Cow<'a, str> {
        match self {
            Self::ReplaceFullPath(replacement) => rooted(replacement),
            Self::ReplacePrefixMatch(replacement) => match matched {
                None => replace_segments(path, "/", replacement),
                Some(PathMatch::PathPrefix(prefix)) => replace_segments(path, prefix, replacement),
                Some(PathMatch::StringPrefix(prefix)) => {
                    let rest = path.strip_prefix(&**prefix).unwrap_or_default();
                    rooted(&format!("{replacement}{rest}")).into_owned().into()
                }
                Some(PathMatch::Exact(_) | PathMatch::RegularExpression(_)) => rooted(replacement),
            },
        }
    }
}

/// Slashes at the end of prefix and replacement say nothing; what follows the prefix is kept.
fn replace_segments<'a>(path: &'a str, prefix: &str, replacement: &str) -> Cow<'a, str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let replacement = replacement.strip_suffix('/').unwrap_or(replacement);
    let rest = path.strip_prefix(prefix).unwrap_or_default();
    match (replacement, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (replacement, rest) => Cow::Owned(rooted(&format!("{replacement}{rest}")).into_owned()),
    }
}

fn rooted(path: &str) -> Cow<'_, str> {
    if path.starts_with('/') {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(format!("/{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Pattern;

    #[track_caller]
    fn check(path: &str, matched: Option<PathMatch>, replacement: &str, expected: &str) {
        let modifier = PathModifier::ReplacePrefixMatch(replacement.into());
        let modified = modifier.path(path, matched.as_ref());
        assert_eq!(modified, expected, "{path} by {matched:?} to {replacement}");
    }

    /// The table of HTTPPathModifier's `replacePrefixMatch`.
    #[test]
    fn prefixes_are_replaced_as_gateway_api_says() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/", "/", "/xyz", "/xyz/"),
        ] {
            let matched = PathMatch::PathPrefix(prefix.into());
            check(path, Some(matched), replacement, expected);
        }
    }

    #[test]
    fn other_matches_have_prefixes_of_their_own() {
        let exact = PathMatch::Exact("/foo".into());
        check("/foo", Some(exact), "/xyz", "/xyz");
        check("/foo", None, "/xyz", "/xyz/foo");
        let characters = PathMatch::StringPrefix("/fo".into());
        check("/foo/bar", Some(characters), "/x", "/xo/bar");
        let expression = PathMatch::RegularExpression(Pattern::new("/f.*").unwrap());
        check("/foo", Some(expression), "/xyz", "/xyz");
    }

    #[test]
    fn a_full_path_is_what_it_says() {
        let full = |text: &str| PathModifier::ReplaceFullPath(text.into());
        assert_eq!(full("/new").path("/foo/bar", None), "/new");
        assert_eq!(full("new").path("/foo", None), "/new");
        assert_eq!(full("").path("/foo", None), "/");
    }
}
