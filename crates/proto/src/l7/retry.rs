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
            Some(Condition::Name(name)) => named(&name).ok_or_else(|| unknown(name)),
            Some(Condition::Status(status)) => u16::try_from(status)
                .map(Self::Status)
                .map_err(|_| unknown(format!("status {status}"))),
            None => Err(ConversionError::Missing("retry.on")),
        }
    }
}

fn named(name: &str) -> Option<model::RetryOn> {
    use model::RetryOn;
    [
        RetryOn::ServerError,
        RetryOn::GatewayError,
        RetryOn::Reset,
        RetryOn::ResetBeforeRequest,
        RetryOn::ConnectFailure,
        RetryOn::RefusedStream,
        RetryOn::Retriable4xx,
        RetryOn::Cancelled,
        RetryOn::DeadlineExceeded,
        RetryOn::Internal,
        RetryOn::ResourceExhausted,
        RetryOn::Unavailable,
    ]
    .into_iter()
    .find(|one| super::RetryOn::from(*one).condition == Some(Condition::Name(name.to_owned())))
}

impl From<model::RetryOn> for RetryOn {
    fn from(on: model::RetryOn) -> Self {
        let name = match on {
            model::RetryOn::ServerError => "5xx",
            model::RetryOn::GatewayError => "gateway-error",
            model::RetryOn::Reset => "reset",
            model::RetryOn::ResetBeforeRequest => "reset-before-request",
            model::RetryOn::ConnectFailure => "connect-failure",
            model::RetryOn::RefusedStream => "refused-stream",
            model::RetryOn::Retriable4xx => "retriable-4xx",
            model::RetryOn::Cancelled => "cancelled",
            model::RetryOn::DeadlineExceeded => "deadline-exceeded",
            model::RetryOn::Internal => "internal",
            model::RetryOn::ResourceExhausted => "resource-exhausted",
            model::RetryOn::Unavailable => "unavailable",
            model::RetryOn::Status(status) => {
                return Self {
                    condition: Some(Condition::Status(status.into())),
                };
            }
        };
        Self {
            condition: Some(Condition::Name(name.to_owned())),
        }
    }
}
