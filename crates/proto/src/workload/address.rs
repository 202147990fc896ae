//! The one resource type for anything that has an address.

use mesh::snapshot::Change;

use super::{Address, Service, Workload};
use crate::error::ConversionError;
use crate::generated::istio::workload::address::Type;

impl TryFrom<Address> for Change {
    type Error = ConversionError;

    fn try_from(address: Address) -> Result<Self, Self::Error> {
        match address.r#type {
            Some(Type::Workload(workload)) => Ok(Self::Workload(workload.try_into()?)),
            Some(Type::Service(service)) => Ok(Self::Service(service.try_into()?)),
            None => Err(ConversionError::Missing("type")),
        }
    }
}

impl From<&mesh::workload::Workload> for Address {
    fn from(workload: &mesh::workload::Workload) -> Self {
        Self {
            r#type: Some(Type::Workload(Workload::from(workload))),
        }
    }
}

impl From<&mesh::service::Service> for Address {
    fn from(service: &mesh::service::Service) -> Self {
        Self {
            r#type: Some(Type::Service(Service::from(service))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_neither_kind_is_rejected() {
        assert_eq!(
            Change::try_from(Address { r#type: None }),
            Err(ConversionError::Missing("type"))
        );
    }
}
