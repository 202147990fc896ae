//! How to reach a gateway or a waypoint.

use mesh::address::GatewayDestination;

use super::{GatewayAddress, NamespacedHostname};
use crate::error::{self, ConversionError};
use crate::generated::istio::workload::gateway_address::Destination;

impl TryFrom<GatewayAddress> for mesh::address::GatewayAddress {
    type Error = ConversionError;

    fn try_from(wire: GatewayAddress) -> Result<Self, Self::Error> {
        let destination = match wire.destination {
            Some(Destination::Address(address)) => GatewayDestination::Address(address.try_into()?),
            Some(Destination::Hostname(name)) => GatewayDestination::Hostname(
                mesh::address::NamespacedHostname::new(name.namespace, name.hostname),
            ),
            None => return Err(ConversionError::Missing("destination")),
        };
        Ok(Self {
            destination,
            hbone_mtls_port: error::port("hbone_mtls_port", wire.hbone_mtls_port)?,
        })
    }
}

impl From<&mesh::address::GatewayAddress> for GatewayAddress {
    fn from(gateway: &mesh::address::GatewayAddress) -> Self {
        let destination = match &gateway.destination {
            GatewayDestination::Address(address) => Destination::Address(address.into()),
            GatewayDestination::Hostname(name) => Destination::Hostname(NamespacedHostname {
                namespace: name.namespace.as_ref().to_owned(),
                hostname: name.hostname.as_ref().to_owned(),
            }),
        };
        Self {
            destination: Some(destination),
            hbone_mtls_port: gateway.hbone_mtls_port.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::strategies;

    proptest! {
        #[test]
        fn reads_back_as_written(gateway in strategies::gateway_address()) {
            let wire = GatewayAddress::from(&gateway);
            prop_assert_eq!(wire.try_into(), Ok(gateway));
        }
    }

    #[test]
    fn a_gateway_without_destination_or_with_a_bad_port_is_rejected() {
        let read = |wire| mesh::address::GatewayAddress::try_from(wire).expect_err("invalid");
        assert_eq!(
            read(GatewayAddress::default()),
            ConversionError::Missing("destination")
        );
        let wire = GatewayAddress {
            destination: Some(Destination::Hostname(NamespacedHostname::default())),
            hbone_mtls_port: 65_536,
        };
        assert_eq!(
            read(wire),
            ConversionError::Port {
                field: "hbone_mtls_port",
                value: 65_536
            }
        );
    }
}
