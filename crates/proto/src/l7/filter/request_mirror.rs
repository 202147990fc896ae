//! A copy of a share of the requests, sent elsewhere.

use mesh::route as model;

use super::super::RequestMirror;
use crate::error::ConversionError;

impl TryFrom<RequestMirror> for model::RequestMirror {
    type Error = ConversionError;

    fn try_from(wire: RequestMirror) -> Result<Self, Self::Error> {
        let backend = wire.backend.ok_or(ConversionError::Missing("backend"))?;
        Ok(Self {
            backend: backend.try_into()?,
            numerator: wire.numerator,
            denominator: wire.denominator,
        })
    }
}

impl From<&model::RequestMirror> for RequestMirror {
    fn from(mirror: &model::RequestMirror) -> Self {
        Self {
            backend: Some((&mirror.backend).into()),
            numerator: mirror.numerator,
            denominator: mirror.denominator,
        }
    }
}
