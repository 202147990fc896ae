//! The header of the PROXY protocol's version 2, as its specification has it.

use std::net::{IpAddr, SocketAddr};

/// The one of a connection from `source`, with Istio's TLV for who that is.
pub(crate) fn proxy_header(source: SocketAddr, asked: SocketAddr, identity: &str) -> Vec<u8> {
    let mut rest = Vec::new();
    for address in [source, asked] {
        match address.ip() {
            IpAddr::V4(ip) => rest.extend(ip.octets()),
            IpAddr::V6(ip) => rest.extend(ip.octets()),
        }
    }
    for address in [source, asked] {
        rest.extend(address.port().to_be_bytes());
    }
    rest.push(0xD0);
    rest.extend(length(identity.as_bytes()));
    rest.extend(identity.bytes());
    let mut header = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A".to_vec();
    // Version 2, PROXY; TCP over IPv4 or IPv6.
    header.extend([0x21, if source.is_ipv4() { 0x11 } else { 0x21 }]);
    header.extend(length(&rest));
    header.extend(rest);
    header
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("short").to_be_bytes()
}
