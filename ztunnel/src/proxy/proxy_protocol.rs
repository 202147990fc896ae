//! The PROXY protocol's version 2 header, which tells an application behind an
//! `application_tunnel` who is calling and what they asked for.

use std::io;
use std::net::SocketAddr;

use mesh::identity::Identity;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time;

use super::config::Config;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// Istio's type for the SPIFFE identity of the source.
const SOURCE_IDENTITY: u8 = 0xD0;

/// The length fields have 16 bits.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the PROXY header for {0} bytes of identity would be too long")]
pub struct TooLong(usize);

/// The header of a connection from `source` to `destination`. IPv4 is mapped where the other
/// address is IPv6, since the header has one family for both.
pub fn header(
    source: SocketAddr,
    destination: SocketAddr,
    identity: Option<&Identity>,
) -> Result<Vec<u8>, TooLong> {
    let mut body = Vec::with_capacity(128);
    let family = match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            body.extend(source.ip().octets());
            body.extend(destination.ip().octets());
            TCP_OVER_IPV4
        }
        _ => {
            body.extend(mapped(source));
            body.extend(mapped(destination));
            TCP_OVER_IPV6
        }
    };
    body.extend(source.port().to_be_bytes());
    body.extend(destination.port().to_be_bytes());
    if let Some(identity) = identity {
        let text = identity.to_string();
        let length = u16::try_from(text.len()).map_err(|_| TooLong(text.len()))?;
        body.push(SOURCE_IDENTITY);
        body.extend(length.to_be_bytes());
        body.extend(text.bytes());
    }
    let length = u16::try_from(body.len()).map_err(|_| TooLong(body.len()))?;
    let mut header = Vec::with_capacity(16 + body.len());
    header.extend(SIGNATURE);
    header.extend([PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    Ok(header)
}

fn mapped(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

/// Sends the header ahead of everything else.
pub(super) async fn send(tcp: &mut TcpStream, header: &[u8], config: &Config) -> io::Result<()> {
    match time::timeout(config.connect_timeout, tcp.write_all(header)).await {
        Ok(sent) => sent,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn addresses_ports_and_identity_follow_the_signature() {
        let identity = Identity::new("td", "n", "s");
        let header = header(
            address("10.0.0.1:258"),
            address("10.0.0.2:80"),
            Some(&identity),
        );
        let header = header.expect("short");
        assert_eq!(header[..12], *b"\x0D\x0A\x0D\x0A\x00\x0D\x0AQUIT\x0A");
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12 + 3 + 21]);
        assert_eq!(header[16..28], [10, 0, 0, 1, 10, 0, 0, 2, 1, 2, 0, 80]);
        assert_eq!(header[28..31], [0xD0, 0, 21]);
        assert_eq!(header[31..], *b"spiffe://td/ns/n/sa/s");
    }

    #[test]
    fn one_ipv6_address_makes_both_so() {
        let header = header(address("10.0.0.1:1"), address("[fd00::2]:2"), None).expect("short");
        assert_eq!(header[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(header[26..32], [0xFF, 0xFF, 10, 0, 0, 1]);
        assert_eq!(header.len(), 16 + 36);
    }

    #[test]
    fn what_does_not_fit_is_no_header() {
        let one = address("10.0.0.1:1");
        for length in [70_000, 65_510] {
            let long = Identity::new("td", &*"n".repeat(length), "s");
            assert!(header(one, one, Some(&long)).is_err(), "{length}");
        }
    }
}
