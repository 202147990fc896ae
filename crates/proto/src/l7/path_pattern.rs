//! A path of a policy's operation.

use mesh::authorization as model;

use super::PathPattern;
use crate::authorization::string_match;
use crate::error::ConversionError;
use crate::generated::weft::l7::path_pattern::Pattern;

impl TryFrom<PathPattern> for model::PathPattern {
    type Error = ConversionError;

    fn try_from(wire: PathPattern) -> Result<Self, Self::Error> {
        match wire.pattern {
            Some(Pattern::Text(text)) => Ok(Self::Text(string_match::decode("paths", text)?)),
            Some(Pattern::Template(template)) => Ok(Self::Template(template.into())),
            None => Err(ConversionError::Missing("paths")),
        }
    }
}

impl From<&model::PathPattern> for PathPattern {
    fn from(pattern: &model::PathPattern) -> Self {
        let pattern = match pattern {
            model::PathPattern::Text(text) => Pattern::Text(text.into()),
            model::PathPattern::Template(template) => Pattern::Template(template.to_string()),
        };
        Self {
            pattern: Some(pattern),
        }
    }
}
