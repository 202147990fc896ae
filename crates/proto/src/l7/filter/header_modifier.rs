//! Headers that are set, added and removed.

use http::{HeaderName, HeaderValue};
use mesh::route as model;

use super::super::{Header, HeaderModifier};
use crate::error::ConversionError;

impl TryFrom<HeaderModifier> for model::HeaderModifier {
    type Error = ConversionError;

    fn try_from(wire: HeaderModifier) -> Result<Self, Self::Error> {
        let remove = wire.remove.iter().map(|text| name(text));
        Ok(Self {
            set: headers(&wire.set)?,
            add: headers(&wire.add)?,
            remove: remove.collect::<Result<_, _>>()?,
        })
    }
}

fn headers(wire: &[Header]) -> Result<Vec<(HeaderName, HeaderValue)>, ConversionError> {
    let header = |header: &Header| {
        let value = HeaderValue::from_bytes(&header.value)
            .map_err(|error| ConversionError::value("header_modifier", error))?;
        Ok((name(&header.name)?, value))
    };
    wire.iter().map(header).collect()
}

fn name(text: &str) -> Result<HeaderName, ConversionError> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|error| ConversionError::value("header_modifier", error))
}

impl From<&model::HeaderModifier> for HeaderModifier {
    fn from(modifier: &model::HeaderModifier) -> Self {
        Self {
            set: encode(&modifier.set),
            add: encode(&modifier.add),
            remove: modifier.remove.iter().map(ToString::to_string).collect(),
        }
    }
}

fn encode(headers: &[(HeaderName, HeaderValue)]) -> Vec<Header> {
    let header = |(name, value): &(HeaderName, HeaderValue)| Header {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    headers.iter().map(header).collect()
}
