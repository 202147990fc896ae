//! IP addresses and ranges, which travel as raw bytes and a prefix length.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::error::ConversionError;

pub(crate) fn decode(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ConversionError> {
    decode_raw(field, bytes).map(|address| address.to_canonical())
}

pub(crate) fn decode_net(
    field: &'static str,
    bytes: &[u8],
    length: u32,
) -> Result<IpNet, ConversionError> {
    let raw = decode_raw(field, bytes)?;
    // A range of v4-mapped addresses would never match: connections are compared as IPv4.
    let (address, bits) = match raw.to_canonical() {
        IpAddr::V4(v4) if raw.is_ipv6() && length >= 96 => (IpAddr::V4(v4), length - 96),
        _ => (raw, length),
    };
    u8::try_from(bits)
        .ok()
        .and_then(|bits| IpNet::new(address, bits).ok())
        .ok_or(ConversionError::PrefixLength {
            field,
            address: raw,
            length,
        })
}

pub(crate) fn encode(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn decode_raw(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ConversionError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        Ok(Ipv4Addr::from(v4).into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        Ok(Ipv6Addr::from(v6).into())
    } else {
        Err(ConversionError::AddressLength {
            field,
            length: bytes.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_4_or_16_bytes_are_an_address() {
        assert_eq!(decode("a", &[10, 0, 0, 1]), Ok([10, 0, 0, 1].into()));
        for length in [0, 3, 5, 15, 17] {
            let bytes = vec![0; length];
            assert_eq!(
                decode("a", &bytes),
                Err(ConversionError::AddressLength { field: "a", length })
            );
        }
    }

    #[test]
    fn a_prefix_longer_than_its_address_is_an_error() {
        assert!(decode_net("a", &[10, 0, 0, 0], 32).is_ok());
        assert!(decode_net("a", &[10, 0, 0, 0], 33).is_err());
        assert!(decode_net("a", &[0; 16], 129).is_err());
        assert!(decode_net("a", &[10, 0, 0, 0], 256 + 8).is_err());
    }

    #[test]
    fn mapped_ranges_mean_ipv4() {
        let mapped = "::ffff:10.0.0.0".parse().expect("literal");
        let net = decode_net("a", &encode(mapped), 104).expect("valid");
        assert_eq!(net, "10.0.0.0/8".parse().expect("literal"));
    }
}
