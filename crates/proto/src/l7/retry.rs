//! When and how often a request is sent again.

use mesh::route as model;

use super::http_rule::try_all;
use super::{Retry, RetryOn, duration};
use crate::error::ConversionError;
use crate::generated::weft::l7::retry_on::Condition;

impl TryFrom<Retry> for model::Retry {
    type Error = ConversionError;

    fn try_from(wire: Retry) -> Result<Self, Self::Error> {
        Ok(Self {
            attempts: wire.attempts,
            on: try_all(wire.on)?,
            backoff: duration::decode_some("retry.backoff", wire.backoff)?,
        })
    }
}

impl From<&model::Retry> for Retry {
    fn from(retry: &model::Retry) -> Self {
        Self {
            attempts: retry.attempts,
            on: retry.on.iter().copied().map(Into::into).collect(),
            backoff: retry.backoff.map(duration::encode),
        }
    }
}

// === RetryOn ===

impl TryFrom<RetryOn> for model::RetryOn {
    type Error = ConversionError;

    fn try_from(wire: RetryOn) -> Result<Self, Self::Error> {
        let unknown = |text: String| ConversionError::value("retry.on", text);
        match wire.condition {
            Some(Condition::Name(name)) => {
                model::RetryOn::named(&name).ok_or_else(|| unknown(name))
            }
            Some(Condition::Status(status)) => u16::try_from(status)
                .map(Self::Status)
                .map_err(|_| unknown(format!("status {status}"))),
            None => Err(ConversionError::Missing("retry.on")),
        }
    }
}

impl From<model::RetryOn> for RetryOn {
    fn from(on: model::RetryOn) -> Self {
        let condition = if let model::RetryOn::Status(status) = on {
            Some(Condition::Status(status.into()))
        } else {
            on.name().map(|name| Condition::Name(name.to_owned()))
        };
        Self { condition }
    }
}
