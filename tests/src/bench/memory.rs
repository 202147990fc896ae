//! What a ztunnel's process holds: idle, and for connections that do nothing.

use std::io::{BufRead, BufReader};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::system::{Reach, System, Ztunnels};
use crate::lab::Lab;

/// Bars of the design.
pub(super) const IDLE_BAR: f64 = 12e6;
pub(super) const CONNECTION_BAR: f64 = 6e3;

/// What a ztunnel needed to start, or connections to open, it has let go ten seconds later.
const AT_REST: Duration = Duration::from_secs(12);

/// Bytes, of the ztunnels of the client's node and of the server's.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    /// Before any load.
    pub(super) idle: [f64; 2],
    /// More of their own with the connections open and idle for a while, for each of them: without
    /// the pages of the program, which are as many for one connection as for all.
    pub(super) per_connection: [f64; 2],
    /// After all loads.
    pub(super) after: [f64; 2],
}

// === impl Memory ===

impl Memory {
    /// Of processes that have carried nothing yet.
    pub(super) fn measure(
        lab: &Lab,
        ztunnels: &Ztunnels,
        system: System,
        connections: usize,
    ) -> Result<Self> {
        thread::sleep(AT_REST);
        let idle = resident(lab, ztunnels, system)?;
        let own = own(lab, ztunnels, system)?;
        let host = format!("{}.{}", Reach::BetweenNodes.server(), system.name());
        let count = connections.to_string();
        let command = ["bench", "idle", &host, "--connections", &count];
        let mut client = lab.exec_spawn(&system.client(), &command)?;
        let mut line = String::new();
        BufReader::new(client.stdout.take().context("stdout")?).read_line(&mut line)?;
        thread::sleep(AT_REST);
        let open = self::own(lab, ztunnels, system)?;
        drop(client.stdin.take());
        let output = client.wait_with_output()?;
        ensure!(
            line == "open\n" && output.status.success(),
            "{count} connections did not open: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self {
            idle,
            per_connection: [0, 1].map(|end| (open[end] - own[end]) / connections as f64),
            after: idle,
        })
    }
}

pub(super) fn resident(lab: &Lab, ztunnels: &Ztunnels, system: System) -> Result<[f64; 2]> {
    of_both(lab, ztunnels, system, "VmRSS")
}

fn own(lab: &Lab, ztunnels: &Ztunnels, system: System) -> Result<[f64; 2]> {
    of_both(lab, ztunnels, system, "RssAnon")
}

fn of_both(lab: &Lab, ztunnels: &Ztunnels, system: System, kind: &str) -> Result<[f64; 2]> {
    let [client, server] = system.nodes();
    Ok([
        ztunnels.resident(lab, client, kind)?,
        ztunnels.resident(lab, server, kind)?,
    ])
}
