//! URLRewrite: the path that is forwarded.

use std::borrow::Cow;

use crate::path::{PathError, PathNormalization};
use crate::route::{PathMatch, UrlRewrite};

// === impl UrlRewrite ===

impl UrlRewrite {
    /// The path to forward, in normal form: characters may be replaced so that dot segments
    /// arise, which nobody authorized.
    ///
    /// # Errors
    ///
    /// What arose has no safe reading.
    pub fn rewrite_path<'a>(
        &'a self,
        path: &'a str,
        matched: Option<&PathMatch>,
        normalization: PathNormalization,
    ) -> Result<Cow<'a, str>, PathError> {
        match &self.path {
            None => Ok(Cow::Borrowed(path)),
            Some(modifier) => match modifier.path(path, matched) {
                Cow::Borrowed(path) => normalization.path(path),
                Cow::Owned(path) => Ok(Cow::Owned(normalization.path(&path)?.into_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::PathModifier;

    fn rewrite(path: &str, prefix: PathMatch, to: &str) -> Result<String, PathError> {
        let rewrite = UrlRewrite {
            hostname: None,
            path: Some(PathModifier::ReplacePrefixMatch(to.into())),
        };
        let rewritten = rewrite.rewrite_path(path, Some(&prefix), PathNormalization::Base);
        rewritten.map(Cow::into_owned)
    }

    #[test]
    fn a_rewritten_path_is_normal_again() {
        let segments = PathMatch::PathPrefix("/a".into());
        assert_eq!(rewrite("/a/b", segments, "/c"), Ok("/c/b".to_owned()));
        let characters = PathMatch::StringPrefix("/a".into());
        assert_eq!(
            rewrite("/a./b", characters.clone(), "/c/."),
            Ok("/b".to_owned())
        );
        let hidden = Err(PathError::HiddenDotSegment);
        assert_eq!(rewrite("/a.;/b", characters, "/c/."), hidden);
    }

    #[test]
    fn a_rewrite_of_the_host_leaves_the_path() {
        let rewritten = UrlRewrite::default();
        let path = rewritten.rewrite_path("/a", None, PathNormalization::Base);
        assert!(matches!(path, Ok(Cow::Borrowed("/a"))));
    }
}
