//! A condition on a request's path.

use mesh::route as model;

use super::PathMatch;
use crate::error::ConversionError;
use crate::generated::weft::l7::path_match::Path;

impl TryFrom<&PathMatch> for model::PathMatch {
    type Error = ConversionError;

    fn try_from(wire: &PathMatch) -> Result<Self, Self::Error> {
        Ok(match &wire.path {
            Some(Path::Exact(text)) => Self::Exact(text.as_str().into()),
            Some(Path::PathPrefix(text)) => Self::PathPrefix(text.as_str().into()),
            Some(Path::StringPrefix(text)) => Self::StringPrefix(text.as_str().into()),
            Some(Path::RegularExpression(text)) => Self::RegularExpression(pattern("path", text)?),
            None => return Err(ConversionError::Missing("path")),
        })
    }
}

pub(super) fn pattern(field: &'static str, text: &str) -> Result<model::Pattern, ConversionError> {
    model::Pattern::new(text).map_err(|error| ConversionError::value(field, error))
}

impl From<&model::PathMatch> for PathMatch {
    fn from(path: &model::PathMatch) -> Self {
        let path = match path {
            model::PathMatch::Exact(text) => Path::Exact(text.to_string()),
            model::PathMatch::PathPrefix(text) => Path::PathPrefix(text.to_string()),
            model::PathMatch::StringPrefix(text) => Path::StringPrefix(text.to_string()),
            model::PathMatch::RegularExpression(pattern) => {
                Path::RegularExpression(pattern.as_str().to_owned())
            }
        };
        Self { path: Some(path) }
    }
}
