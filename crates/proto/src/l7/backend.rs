//! Where a share of a rule's requests goes.

use mesh::route as model;

use super::http_rule::try_all;
use super::route_parent::service;
use super::{Backend, BackendRef, ServicePort};
use crate::error::{self, ConversionError};
use crate::generated::weft::l7::backend_ref::Backend as Kind;

impl TryFrom<Backend> for model::Backend {
    type Error = ConversionError;

    fn try_from(wire: Backend) -> Result<Self, Self::Error> {
        let backend = wire.backend.ok_or(ConversionError::Missing("backend"))?;
        Ok(Self {
            backend: backend.try_into()?,
            weight: wire.weight,
            filters: try_all(wire.filters)?,
        })
    }
}

impl From<&model::Backend> for Backend {
    fn from(backend: &model::Backend) -> Self {
        Self {
            backend: Some((&backend.backend).into()),
            weight: backend.weight,
            filters: backend.filters.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<BackendRef> for model::BackendRef {
    type Error = ConversionError;

    fn try_from(wire: BackendRef) -> Result<Self, Self::Error> {
        match wire.backend {
            Some(Kind::Service(to)) => Ok(Self::Service {
                service: service("backend", to.service)?,
                port: error::port("backend", to.port)?,
                subset: to.subset.map(Into::into),
            }),
            Some(Kind::Invalid(reason)) => Ok(Self::Invalid(reason.into())),
            None => Err(ConversionError::Missing("backend")),
        }
    }
}

impl From<&model::BackendRef> for BackendRef {
    fn from(backend: &model::BackendRef) -> Self {
        let backend = match backend {
            model::BackendRef::Service {
                service,
                port,
                subset,
            } => Kind::Service(ServicePort {
                service: service.to_string(),
                port: u32::from(*port),
                subset: subset.as_ref().map(ToString::to_string),
            }),
            model::BackendRef::Invalid(reason) => Kind::Invalid(reason.to_string()),
        };
        Self {
            backend: Some(backend),
        }
    }
}
