//! A condition on the value of a header or a query parameter.

use mesh::route as model;

use super::NamedValueMatch;
use super::path_match::pattern;
use crate::error::ConversionError;
use crate::generated::weft::l7::named_value_match::Value;

impl TryFrom<&NamedValueMatch> for model::ValueMatch {
    type Error = ConversionError;

    fn try_from(wire: &NamedValueMatch) -> Result<Self, Self::Error> {
        Ok(match &wire.value {
            Some(Value::Exact(text)) => Self::Exact(text.as_str().into()),
            Some(Value::Prefix(text)) => Self::Prefix(text.as_str().into()),
            Some(Value::RegularExpression(text)) => {
                Self::RegularExpression(pattern("value", text)?)
            }
            Some(Value::Present(())) => Self::Present,
            None => return Err(ConversionError::Missing("value")),
        })
    }
}

impl From<&model::ValueMatch> for Value {
    fn from(value: &model::ValueMatch) -> Self {
        match value {
            model::ValueMatch::Exact(text) => Self::Exact(text.to_string()),
            model::ValueMatch::Prefix(text) => Self::Prefix(text.to_string()),
            model::ValueMatch::RegularExpression(pattern) => {
                Self::RegularExpression(pattern.as_str().to_owned())
            }
            model::ValueMatch::Present => Self::Present(()),
        }
    }
}
