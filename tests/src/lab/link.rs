//! The link between the nodes, captured for a lab's whole life: what two pods of the mesh say to
//! each other there is HBONE.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::capture::{self, Segment};
use super::{Lab, START, eventually};

/// The kernel leaves HBONE out, so that a clean run captures next to nothing.
const OUTSIDE_HBONE: &str = "tcp and not port 15008";

/// A running capture of all TCP that is not HBONE.
pub(super) struct Watch {
    tcpdump: Child,
    pcap: PathBuf,
    outsiders: Mutex<BTreeSet<IpAddr>>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn begin(lab: &Lab) -> Result<Self> {
        let pcap = lab.folders.path().join("outside-hbone.pcap");
        let path = pcap.to_str().context("path is text")?;
        let command = [
            "tcpdump",
            "--immediate-mode",
            "-i",
            "any",
            "-U",
            "-s",
            "160",
            "-w",
            path,
            OUTSIDE_HBONE,
        ];
        let watch = Self {
            tcpdump: lab.exec_spawn("switch", &command)?,
            pcap,
            outsiders: Mutex::default(),
        };
        // The file has its header once the capture has begun.
        eventually(START, "tcpdump captures", || {
            ensure!(fs::metadata(&watch.pcap)?.len() >= 24, "not yet");
            Ok(())
        })?;
        Ok(watch)
    }

    /// Remembers which pods are not of the mesh now; their plaintext is nobody's fault.
    pub(super) fn learn(&self, pods: &[Value]) {
        let outside = pods.iter().filter(|pod| !speaks_hbone(pod));
        self.outsiders().extend(outside.flat_map(addresses));
    }

    fn outsiders(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.outsiders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What has crossed so far outside HBONE, of anybody.
    pub(super) fn seen(&self) -> Result<Vec<Segment>> {
        capture::segments(&fs::read(&self.pcap)?)
    }

    /// What has crossed so far between two pods of the mesh outside HBONE.
    pub(super) fn strays(&self) -> Result<Vec<String>> {
        Ok(strays(&self.seen()?, &self.outsiders()))
    }

    /// Reaps the capture, whose machine is gone.
    pub(super) fn end(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

fn strays(segments: &[Segment], outsiders: &BTreeSet<IpAddr>) -> Vec<String> {
    let member = |address: IpAddr| is_pod(address) && !outsiders.contains(&address);
    segments
        .iter()
        .filter(|segment| member(segment.source.ip()) && member(segment.destination.ip()))
        .map(|segment| format!("{} to {}", segment.source, segment.destination))
        .collect()
}

/// Whether a pod takes part: captured by its node, or a waypoint, which speaks HBONE itself.
fn speaks_hbone(pod: &Value) -> bool {
    let metadata = &pod["metadata"];
    metadata["annotations"]["ambient.istio.io/redirection"] == "enabled"
        || metadata["labels"]["gateway.networking.k8s.io/gateway-name"].is_string()
}

pub(super) fn addresses(pod: &Value) -> impl Iterator<Item = IpAddr> {
    let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
    addresses.filter_map(|ip| ip["ip"].as_str()?.parse().ok())
}

/// Of the networks that the machine gives pods, whatever their node.
fn is_pod(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().starts_with(&[10, 244]),
        IpAddr::V6(address) => address.segments().starts_with(&[0xfd00, 0x244]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(address: &str, annotation: &str, label: &str) -> Value {
        json!({
            "metadata": {
                "annotations": {annotation: "enabled"},
                "labels": {label: "web"},
            },
            "status": {"podIPs": [{"ip": address}]},
        })
    }

    #[test]
    fn only_plaintext_between_two_pods_of_the_mesh_is_a_stray() {
        let captured = pod("10.244.1.2", "ambient.istio.io/redirection", "app");
        let label = "gateway.networking.k8s.io/gateway-name";
        let waypoint = pod("10.244.2.3", "other", label);
        let plain = pod("fd00:244:1::4", "other", "app");
        assert!(speaks_hbone(&captured) && speaks_hbone(&waypoint) && !speaks_hbone(&plain));
        let outsiders = addresses(&plain).collect();
        for (source, destination, stray) in [
            ("10.244.1.2:1", "10.244.2.3:80", true),
            ("[fd00:244:2::9]:1", "[fd00:244:1::2]:80", true),
            ("[fd00:244:2::9]:1", "[fd00:244:1::4]:80", false),
            ("[fd00:244:1::4]:80", "[fd00:244:2::9]:1", false),
            ("172.30.0.1:1", "172.30.0.254:15012", false),
        ] {
            let segment = Segment {
                source: source.parse().expect("address"),
                destination: destination.parse().expect("address"),
                payload: b"x".to_vec(),
            };
            let found = strays(&[segment], &outsiders);
            assert_eq!(!found.is_empty(), stray, "{source} to {destination}");
        }
    }
}
