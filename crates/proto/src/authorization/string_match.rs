//! A text that is compared with an attribute.

use mesh::authorization as model;

use super::{MatchType, StringMatch};
use crate::error::ConversionError;

pub(crate) fn decode(
    field: &'static str,
    wire: StringMatch,
) -> Result<model::StringMatch, ConversionError> {
    match wire.match_type {
        Some(MatchType::Exact(text)) => Ok(model::StringMatch::Exact(text.into())),
        Some(MatchType::Prefix(text)) => Ok(model::StringMatch::Prefix(text.into())),
        Some(MatchType::Suffix(text)) => Ok(model::StringMatch::Suffix(text.into())),
        Some(MatchType::Presence(())) => Ok(model::StringMatch::Presence),
        None => Err(ConversionError::Missing(field)),
    }
}

impl From<&model::StringMatch> for StringMatch {
    fn from(one: &model::StringMatch) -> Self {
        let match_type = match one {
            model::StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
            model::StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
            model::StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
            model::StringMatch::Presence => MatchType::Presence(()),
        };
        Self {
            match_type: Some(match_type),
        }
    }
}
