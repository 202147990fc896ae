//! What is compared, and the processes that it is made of.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::lab::{Lab, process_status};

/// What stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum System {
    /// Nothing: pods outside the mesh.
    Plain,
    /// Our ztunnel.
    Weft,
    /// Another ztunnel, on nodes of its own in the same mesh.
    Other,
}

/// Where the server is, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reach {
    BetweenNodes,
    OneNode,
}

/// The mesh's ztunnel processes, by node.
pub(super) struct Ztunnels(BTreeMap<String, u64>);

/// Of a process: proc(5), `utime` and `stime`.
const TICKS_PER_SECOND: f64 = 100.0;

// === impl System ===

impl System {
    /// The namespace its pods are in.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Weft => "weft",
            Self::Other => "other",
        }
    }

    /// The client's node, and the other one.
    pub(super) fn nodes(self) -> [&'static str; 2] {
        match self {
            Self::Plain | Self::Weft => ["node-1", "node-2"],
            Self::Other => ["node-3", "node-4"],
        }
    }

    /// The nodes whose ztunnels carry what goes that far.
    pub(super) fn carriers(self, reach: Reach) -> Vec<&'static str> {
        match (self, reach) {
            (Self::Plain, _) => Vec::new(),
            (_, Reach::BetweenNodes) => self.nodes().to_vec(),
            (_, Reach::OneNode) => vec![self.nodes()[0]],
        }
    }

    /// The client's pod.
    pub(super) fn client(self) -> String {
        format!("{}/client", self.name())
    }
}

// === impl Reach ===

impl Reach {
    pub(super) const ALL: [Self; 2] = [Self::BetweenNodes, Self::OneNode];

    /// The service asked for.
    pub(super) fn server(self) -> &'static str {
        match self {
            Self::BetweenNodes => "far",
            Self::OneNode => "near",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::BetweenNodes => "Between nodes",
            Self::OneNode => "On one node",
        }
    }
}

// === impl Ztunnels ===

impl Ztunnels {
    pub(super) fn of(lab: &Lab) -> Result<Self> {
        let status: Value = serde_json::from_str(&lab.weft(&["status", "-o", "json"])?)?;
        let pieces = status["machine"]["pieces"]
            .as_array()
            .or(status["pieces"].as_array())
            .context("weft status tells no pieces")?;
        let pids = pieces
            .iter()
            .filter(|piece| piece["name"] == "ztunnel")
            .filter_map(|piece| Some((piece["node"].as_str()?.to_owned(), piece["pid"].as_u64()?)))
            .collect();
        Ok(Self(pids))
    }

    /// Processor time that the ztunnels of these nodes have used so far.
    pub(super) fn processor_seconds(&self, lab: &Lab, nodes: &[&str]) -> Result<f64> {
        let mut seconds = 0.0;
        for node in nodes {
            let stat = self.read(lab, node, "stat")?;
            let (_, fields) = stat.rsplit_once(')').context("stat")?;
            let fields: Vec<&str> = fields.split_whitespace().collect();
            // The fields after the program's name begin with the third.
            let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
            seconds += ticks / TICKS_PER_SECOND;
        }
        Ok(seconds)
    }

    /// Resident bytes of a node's ztunnel: `VmRSS`, or of a kind.
    pub(super) fn resident(&self, lab: &Lab, node: &str, kind: &str) -> Result<f64> {
        process_status::memory(&self.read(lab, node, "status")?, kind)
    }

    fn read(&self, lab: &Lab, node: &str, file: &str) -> Result<String> {
        let pid = self
            .0
            .get(node)
            .with_context(|| format!("{node} has no ztunnel"))?;
        lab.exec(
            &format!("node/{node}"),
            &["cat", &format!("/proc/{pid}/{file}")],
        )
    }
}
