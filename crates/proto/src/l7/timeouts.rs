//! How long requests and tries may take.

use mesh::route as model;

use super::{Timeouts, duration};
use crate::error::ConversionError;

impl TryFrom<Timeouts> for model::Timeouts {
    type Error = ConversionError;

    fn try_from(wire: Timeouts) -> Result<Self, Self::Error> {
        Ok(Self {
            request: duration::decode_some("timeouts.request", wire.request)?,
            backend_request: duration::decode_some(
                "timeouts.backend_request",
                wire.backend_request,
            )?,
        })
    }
}

impl From<&model::Timeouts> for Timeouts {
    fn from(timeouts: &model::Timeouts) -> Self {
        Self {
            request: timeouts.request.map(duration::encode),
            backend_request: timeouts.backend_request.map(duration::encode),
        }
    }
}
