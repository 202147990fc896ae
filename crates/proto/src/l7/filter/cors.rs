//! Cross-origin resource sharing.

use std::sync::Arc;

use mesh::route as model;

use super::super::{Cors, duration};
use crate::error::ConversionError;

impl TryFrom<Cors> for model::Cors {
    type Error = ConversionError;

    fn try_from(wire: Cors) -> Result<Self, Self::Error> {
        let texts = |wire: Vec<String>| wire.into_iter().map(Into::into).collect();
        Ok(Self {
            allow_origins: texts(wire.allow_origins),
            allow_credentials: wire.allow_credentials,
            allow_methods: texts(wire.allow_methods),
            allow_headers: texts(wire.allow_headers),
            expose_headers: texts(wire.expose_headers),
            max_age: duration::decode_some("max_age", wire.max_age)?,
        })
    }
}

impl From<&model::Cors> for Cors {
    fn from(cors: &model::Cors) -> Self {
        let texts = |texts: &[Arc<str>]| texts.iter().map(ToString::to_string).collect();
        Self {
            allow_origins: texts(&cors.allow_origins),
            allow_credentials: cors.allow_credentials,
            allow_methods: texts(&cors.allow_methods),
            allow_headers: texts(&cors.allow_headers),
            expose_headers: texts(&cors.expose_headers),
            max_age: cors.max_age.map(duration::encode),
        }
    }
}
