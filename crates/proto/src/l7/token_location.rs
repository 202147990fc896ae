//! Where in a request a token may be.

use mesh::request_authentication as model;

use super::{TokenHeader, TokenLocation};
use crate::error::ConversionError;
use crate::generated::weft::l7::token_location::Location;

impl TryFrom<TokenLocation> for model::TokenLocation {
    type Error = ConversionError;

    fn try_from(wire: TokenLocation) -> Result<Self, Self::Error> {
        match wire.location {
            Some(Location::Header(header)) => Ok(Self::Header {
                name: header.name.into(),
                prefix: header.prefix.into(),
            }),
            Some(Location::Param(name)) => Ok(Self::Param(name.into())),
            Some(Location::Cookie(name)) => Ok(Self::Cookie(name.into())),
            None => Err(ConversionError::Missing("locations")),
        }
    }
}

impl From<&model::TokenLocation> for TokenLocation {
    fn from(location: &model::TokenLocation) -> Self {
        let location = match location {
            model::TokenLocation::Header { name, prefix } => Location::Header(TokenHeader {
                name: name.to_string(),
                prefix: prefix.to_string(),
            }),
            model::TokenLocation::Param(name) => Location::Param(name.to_string()),
            model::TokenLocation::Cookie(name) => Location::Cookie(name.to_string()),
        };
        Self {
            location: Some(location),
        }
    }
}
