//! Addresses and ranges of addresses on a named network.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh::address::NetworkCidr;

use super::NetworkAddress;
use crate::error::ConversionError;
use crate::ip;

const FIELD: &str = "address";

/// What a service's address may be: the wire uses one message for both.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Vip {
    Address(mesh::address::NetworkAddress),
    Range(NetworkCidr),
}

impl TryFrom<NetworkAddress> for Vip {
    type Error = ConversionError;

    fn try_from(wire: NetworkAddress) -> Result<Self, Self::Error> {
        let Some(length) = wire.length else {
            return Ok(Self::Address(mesh::address::NetworkAddress::new(
                wire.network,
                ip::decode(FIELD, &wire.address)?,
            )));
        };
        let range = ip::decode_net(FIELD, &wire.address, length)?;
        Ok(if range.prefix_len() == range.max_prefix_len() {
            Self::Address(mesh::address::NetworkAddress::new(
                wire.network,
                range.addr(),
            ))
        } else {
            Self::Range(NetworkCidr {
                network: wire.network.into(),
                cidr: range.trunc(),
            })
        })
    }
}

impl TryFrom<NetworkAddress> for mesh::address::NetworkAddress {
    type Error = ConversionError;

    fn try_from(wire: NetworkAddress) -> Result<Self, Self::Error> {
        match Vip::try_from(wire)? {
            Vip::Address(address) => Ok(address),
            Vip::Range(range) => Err(ConversionError::PrefixLength {
                field: FIELD,
                address: range.cidr.addr(),
                length: range.cidr.prefix_len().into(),
            }),
        }
    }
}

impl From<&mesh::address::NetworkAddress> for NetworkAddress {
    fn from(address: &mesh::address::NetworkAddress) -> Self {
        encode(&address.network, address.address, None)
    }
}

impl From<&NetworkCidr> for NetworkAddress {
    fn from(range: &NetworkCidr) -> Self {
        let cidr: IpNet = range.cidr;
        encode(&range.network, cidr.addr(), Some(cidr.prefix_len().into()))
    }
}

fn encode(network: &str, address: IpAddr, length: Option<u32>) -> NetworkAddress {
    NetworkAddress {
        network: network.to_owned(),
        address: ip::encode(address),
        length,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip(address: &[u8], length: Option<u32>) -> Result<Vip, ConversionError> {
        Vip::try_from(NetworkAddress {
            network: "north".to_owned(),
            address: address.to_vec(),
            length,
        })
    }

    #[test]
    fn a_full_length_prefix_is_one_address() {
        assert_eq!(vip(&[10, 0, 0, 1], Some(32)), vip(&[10, 0, 0, 1], None));
    }

    #[test]
    fn a_shorter_prefix_is_a_range_without_host_bits() {
        let range = NetworkCidr {
            network: "north".into(),
            cidr: "10.0.0.0/8".parse().expect("literal"),
        };
        assert_eq!(vip(&[10, 1, 2, 3], Some(8)), Ok(Vip::Range(range)));
    }

    #[test]
    fn a_gateway_cannot_be_a_range() {
        let wire = NetworkAddress {
            network: String::new(),
            address: vec![10, 0, 0, 0],
            length: Some(8),
        };
        assert!(mesh::address::NetworkAddress::try_from(wire).is_err());
    }
}
