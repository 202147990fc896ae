//! Why a message is not a resource of the mesh.

use std::net::IpAddr;

/// Names the field at fault, for the NACK that the control plane's operator reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field}: {value} is not a value this version knows")]
    UnknownEnum { field: &'static str, value: i32 },
    #[error("{field}: {length} bytes are not an IP address")]
    AddressLength { field: &'static str, length: usize },
    #[error("{field}: {address} has no prefix of length {length}")]
    PrefixLength {
        field: &'static str,
        address: IpAddr,
        length: u32,
    },
    #[error("{field}: {value} is not a port")]
    Port { field: &'static str, value: u32 },
    #[error("{field}: {value:?} is not of the form NAMESPACE/NAME")]
    Key { field: &'static str, value: String },
    #[error("{field}: {reason}")]
    Value { field: &'static str, reason: String },
    #[error("tunnel_protocol: LEGACY_ISTIO_MTLS cannot be spoken by a node tunnel")]
    LegacyTunnel,
}

/// Reads a wire enum, which travels as a number.
pub(crate) fn known<T: TryFrom<i32>>(
    field: &'static str,
    value: i32,
) -> Result<T, ConversionError> {
    T::try_from(value).map_err(|_| ConversionError::UnknownEnum { field, value })
}

pub(crate) fn port(field: &'static str, value: u32) -> Result<u16, ConversionError> {
    u16::try_from(value).map_err(|_| ConversionError::Port { field, value })
}

impl ConversionError {
    pub(crate) fn value(field: &'static str, reason: impl ToString) -> Self {
        Self::Value {
            field,
            reason: reason.to_string(),
        }
    }
}
