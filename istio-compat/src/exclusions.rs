//! The connections of a captured pod that its annotations leave alone, as sidecars' users know
//! them: they neither enter nor leave through the node's proxy.
//!
//! Over the tunnel an excluded port of a pod stays reachable, with policy: only plaintext to it is
//! no longer looked at.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use crate::kinds::metadata::ObjectMeta;
use crate::labels;

pub const INBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
pub const OUTBOUND_PORTS: &str = "traffic.sidecar.istio.io/excludeOutboundPorts";
pub const OUTBOUND_RANGES: &str = "traffic.sidecar.istio.io/excludeOutboundIPRanges";

/// Ports of the node's proxy in the pod: without them it could not be reached.
const RESERVED: [u16; 5] = [15001, 15006, 15008, 15053, 15080];

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exclusions {
    pub inbound_ports: BTreeSet<u16>,
    pub outbound_ports: BTreeSet<u16>,
    pub outbound_ranges: BTreeSet<IpNet>,
}

/// Whether the pod takes all plaintext to it itself, as ingress gateways do.
pub fn bypasses_inbound(metadata: &ObjectMeta) -> bool {
    metadata.annotation(labels::BYPASS_INBOUND) == Some("true")
}

/// An entry of an annotation that excludes nothing.
pub(crate) struct Mistake {
    pub(crate) annotation: &'static str,
    pub(crate) message: String,
}

// === impl Exclusions ===

impl Exclusions {
    /// What can't be read stays captured.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self::read(metadata, &mut Vec::new())
    }

    pub(crate) fn mistakes(metadata: &ObjectMeta) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        Self::read(metadata, &mut mistakes);
        mistakes
    }

    fn read(metadata: &ObjectMeta, mistakes: &mut Vec<Mistake>) -> Self {
        Self {
            inbound_ports: list(metadata, INBOUND_PORTS, port, mistakes),
            outbound_ports: list(metadata, OUTBOUND_PORTS, port, mistakes),
            outbound_ranges: list(metadata, OUTBOUND_RANGES, range, mistakes),
        }
    }

    /// What keeps a connection of the pod from capture: the annotation and its entry.
    pub fn of_outbound(&self, to: SocketAddr) -> Option<String> {
        let port = self.outbound_ports.get(&to.port());
        let by_port = port.map(|port| format!("{OUTBOUND_PORTS}: {port}"));
        let range = || {
            self.outbound_ranges
                .iter()
                .find(|one| one.contains(&to.ip()))
        };
        by_port.or_else(|| range().map(|range| format!("{OUTBOUND_RANGES}: {range}")))
    }

    /// What keeps plaintext to a port of the pod from capture.
    pub fn of_inbound(&self, port: u16) -> Option<String> {
        let port = self.inbound_ports.get(&port)?;
        Some(format!("{INBOUND_PORTS}: {port}"))
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Exclusions {
    /// `to port 9090, from it to port 5432, from it to 10.0.0.0/8`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inbound = self
            .inbound_ports
            .iter()
            .map(|port| format!("to port {port}"));
        let ports = self
            .outbound_ports
            .iter()
            .map(|port| format!("from it to port {port}"));
        let ranges = self
            .outbound_ranges
            .iter()
            .map(|range| format!("from it to {range}"));
        let all: Vec<String> = inbound.chain(ports).chain(ranges).collect();
        f.write_str(&all.join(", "))
    }
}

fn list<T: Ord>(
    metadata: &ObjectMeta,
    annotation: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeSet<T> {
    let text = metadata.annotation(annotation).unwrap_or_default();
    let entries = text.split(',').map(str::trim).filter(|one| !one.is_empty());
    let read = entries.filter_map(|entry| match parse(entry) {
        Ok(value) => Some(value),
        Err(why) => {
            let message = format!("{entry:?} {why}: it stays captured");
            mistakes.push(Mistake {
                annotation,
                message,
            });
            None
        }
    });
    read.collect()
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("is not a port".to_owned()),
        Ok(port) if RESERVED.contains(&port) => Err("is a port of the node's proxy".to_owned()),
        Ok(port) => Ok(port),
    }
}

fn range(text: &str) -> Result<IpNet, String> {
    let range = text.parse::<IpNet>();
    let range = range.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    range
        .map(|range| range.trunc())
        .map_err(|_| "is not an IP range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(annotations: &[(&str, &str)]) -> ObjectMeta {
        let own = |text: &&str| (*text).to_owned();
        ObjectMeta {
            annotations: annotations
                .iter()
                .map(|(key, value)| (own(key), own(value)))
                .collect(),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn lists_are_read_entry_by_entry() {
        let metadata = pod(&[
            (INBOUND_PORTS, "9090, 8081,"),
            (OUTBOUND_PORTS, "5432"),
            (OUTBOUND_RANGES, "10.1.2.3/8,192.0.2.1,fd00::/8"),
        ]);
        let exclusions = Exclusions::of(&metadata);
        assert_eq!(
            exclusions.to_string(),
            "to port 8081, to port 9090, from it to port 5432, from it to 10.0.0.0/8, \
             from it to 192.0.2.1/32, from it to fd00::/8"
        );
        assert!(Exclusions::mistakes(&metadata).is_empty());
        let outbound = |to: &str| exclusions.of_outbound(to.parse().unwrap());
        for (to, expected) in [
            ("203.0.113.1:5432", format!("{OUTBOUND_PORTS}: 5432")),
            ("10.255.0.1:80", format!("{OUTBOUND_RANGES}: 10.0.0.0/8")),
            ("[fd12::1]:80", format!("{OUTBOUND_RANGES}: fd00::/8")),
        ] {
            assert_eq!(outbound(to), Some(expected), "{to}");
        }
        assert_eq!(outbound("192.0.2.2:9090"), None);
        let inbound = format!("{INBOUND_PORTS}: 8081");
        assert_eq!(exclusions.of_inbound(8081), Some(inbound));
        assert_eq!(exclusions.of_inbound(5432), None);
        assert!(Exclusions::of(&pod(&[])).is_empty());
    }

    #[test]
    fn what_cannot_be_read_excludes_nothing() {
        for (annotation, text) in [
            (INBOUND_PORTS, "*"),
            (INBOUND_PORTS, "80-90"),
            (INBOUND_PORTS, "15008"),
            (OUTBOUND_PORTS, "0"),
            (OUTBOUND_PORTS, "70000"),
            (OUTBOUND_RANGES, "*"),
            (OUTBOUND_RANGES, "10.0.0.0/33"),
            (OUTBOUND_RANGES, "10.0.0.0/8; accept"),
        ] {
            let metadata = pod(&[(annotation, text)]);
            assert!(Exclusions::of(&metadata).is_empty(), "{text}");
            assert_eq!(Exclusions::mistakes(&metadata).len(), 1, "{text}");
        }
    }
}
