//! What the link between the nodes carried, read from a packet capture.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, ensure};

/// One TCP segment with payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
}

/// pcap link types (tcpdump.org/linktypes).
const ETHERNET: u32 = 1;
const LINUX_SLL: u32 = 113;
const LINUX_SLL2: u32 = 276;

/// Reads the TCP segments with payload of a pcap file (little endian, micro- or nanoseconds).
pub fn segments(pcap: &[u8]) -> Result<Vec<Segment>> {
    ensure!(pcap.len() >= 24, "the capture is empty");
    let magic = word(pcap, 0)?;
    ensure!(
        magic == 0xA1B2_C3D4 || magic == 0xA1B2_3C4D,
        "not a pcap file"
    );
    let link_type = word(pcap, 20)?;
    let mut segments = Vec::new();
    let mut offset = 24;
    while offset + 16 <= pcap.len() {
        let length = word(pcap, offset + 8)? as usize;
        let Some(frame) = pcap.get(offset + 16..offset + 16 + length) else {
            break;
        };
        offset += 16 + length;
        segments.extend(segment(link_type, frame));
    }
    Ok(segments)
}

fn word(bytes: &[u8], offset: usize) -> Result<u32> {
    let slice = bytes.get(offset..offset + 4).context("truncated capture")?;
    Ok(u32::from_le_bytes(slice.try_into()?))
}

fn segment(link_type: u32, frame: &[u8]) -> Option<Segment> {
    let (protocol, packet) = match link_type {
        ETHERNET => (frame.get(12..14)?, frame.get(14..)?),
        LINUX_SLL => (frame.get(14..16)?, frame.get(16..)?),
        LINUX_SLL2 => (frame.get(0..2)?, frame.get(20..)?),
        _ => return None,
    };
    let (source, destination, tcp): (IpAddr, IpAddr, &[u8]) = match protocol {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0F) * 4;
            let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            if *packet.get(9)? != 6 {
                return None;
            }
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            // Offloaded segments may carry 0 for "longer than the field can say".
            let end = if total == 0 {
                packet.len()
            } else {
                total.min(packet.len())
            };
            (
                Ipv4Addr::from(source).into(),
                Ipv4Addr::from(destination).into(),
                packet.get(header..end)?,
            )
        }
        [0x86, 0xDD] => {
            if *packet.get(6)? != 6 {
                return None;
            }
            let source: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
            let destination: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (
                Ipv6Addr::from(source).into(),
                Ipv6Addr::from(destination).into(),
                packet.get(40..)?,
            )
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    let payload = tcp.get(header..)?;
    (!payload.is_empty()).then(|| {
        Some(Segment {
            source: SocketAddr::new(source, port(0)?),
            destination: SocketAddr::new(destination, port(2)?),
            payload: payload.to_vec(),
        })
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_behind_each_link_header() {
        let mut ip = vec![
            0x45, 0, 0, 44, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        ip.extend([
            0x1F, 0x90, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0,
        ]);
        ip.extend(b"data");
        for (link, mut frame) in [
            (ETHERNET, [vec![0; 12], vec![8, 0]].concat()),
            (LINUX_SLL, [vec![0; 14], vec![8, 0]].concat()),
            (LINUX_SLL2, [vec![8, 0], vec![0; 18]].concat()),
        ] {
            frame.extend(&ip);
            let segment = segment(link, &frame).expect("a segment");
            assert_eq!(segment.payload, b"data");
            assert_eq!(segment.source, "10.0.0.1:8080".parse().expect("address"));
            assert_eq!(segment.destination.port(), 80);
        }
    }
}
