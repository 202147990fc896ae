//! What becomes of a path in a redirect or a rewrite.

use mesh::route as model;

use super::super::PathModifier;
use crate::error::ConversionError;
use crate::generated::weft::l7::path_modifier::Modifier;

impl TryFrom<PathModifier> for model::PathModifier {
    type Error = ConversionError;

    fn try_from(wire: PathModifier) -> Result<Self, Self::Error> {
        match wire.modifier {
            Some(Modifier::ReplaceFullPath(text)) => Ok(Self::ReplaceFullPath(text.into())),
            Some(Modifier::ReplacePrefixMatch(text)) => Ok(Self::ReplacePrefixMatch(text.into())),
            None => Err(ConversionError::Missing("modifier")),
        }
    }
}

impl From<&model::PathModifier> for PathModifier {
    fn from(modifier: &model::PathModifier) -> Self {
        let modifier = match modifier {
            model::PathModifier::ReplaceFullPath(text) => {
                Modifier::ReplaceFullPath(text.to_string())
            }
            model::PathModifier::ReplacePrefixMatch(text) => {
                Modifier::ReplacePrefixMatch(text.to_string())
            }
        };
        Self {
            modifier: Some(modifier),
        }
    }
}
