//! Spans of time.

use std::time::Duration;

use crate::error::ConversionError;

pub(super) fn decode(
    field: &'static str,
    wire: prost_types::Duration,
) -> Result<Duration, ConversionError> {
    Duration::try_from(wire).map_err(|error| ConversionError::value(field, error))
}

pub(super) fn decode_some(
    field: &'static str,
    wire: Option<prost_types::Duration>,
) -> Result<Option<Duration>, ConversionError> {
    wire.map(|wire| decode(field, wire)).transpose()
}

pub(super) fn encode(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}
