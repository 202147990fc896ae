//! A service that a route is attached to.

use mesh::address::NamespacedHostname;
use mesh::route as model;

use super::RouteParent;
use crate::error::{self, ConversionError};

impl TryFrom<RouteParent> for model::RouteParent {
    type Error = ConversionError;

    fn try_from(wire: RouteParent) -> Result<Self, Self::Error> {
        Ok(Self {
            service: service("parents", wire.service)?,
            port: wire
                .port
                .map(|port| error::port("parents", port))
                .transpose()?,
            clients: wire.clients.map(Into::into),
        })
    }
}

/// Reads `namespace/hostname`.
pub(super) fn service(
    field: &'static str,
    value: String,
) -> Result<NamespacedHostname, ConversionError> {
    NamespacedHostname::parse(&value).ok_or(ConversionError::Key { field, value })
}

impl From<&model::RouteParent> for RouteParent {
    fn from(parent: &model::RouteParent) -> Self {
        Self {
            service: parent.service.to_string(),
            port: parent.port.map(Into::into),
            clients: parent.clients.as_ref().map(ToString::to_string),
        }
    }
}
