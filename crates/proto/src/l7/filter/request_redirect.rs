//! An answer that sends the client elsewhere.

use http::StatusCode;
use mesh::route as model;

use super::super::RequestRedirect;
use crate::error::{self, ConversionError};

impl TryFrom<RequestRedirect> for model::RequestRedirect {
    type Error = ConversionError;

    fn try_from(wire: RequestRedirect) -> Result<Self, Self::Error> {
        let port = wire.port.map(|port| error::port("request_redirect", port));
        let status = u16::try_from(wire.status).ok();
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Ok(Self {
            scheme: wire.scheme.map(Into::into),
            hostname: wire.hostname.map(Into::into),
            path: wire.path.map(TryInto::try_into).transpose()?,
            port: port.transpose()?,
            status: status.ok_or_else(|| {
                ConversionError::value("request_redirect", format!("status {}", wire.status))
            })?,
        })
    }
}

impl From<&model::RequestRedirect> for RequestRedirect {
    fn from(redirect: &model::RequestRedirect) -> Self {
        Self {
            scheme: redirect.scheme.as_ref().map(ToString::to_string),
            hostname: redirect.hostname.as_ref().map(ToString::to_string),
            path: redirect.path.as_ref().map(Into::into),
            port: redirect.port.map(Into::into),
            status: redirect.status.as_u16().into(),
        }
    }
}
