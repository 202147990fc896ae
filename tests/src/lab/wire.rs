//! A bad cable in a lab's mesh: between one node and the switch.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout};

use anyhow::{Context, Result, ensure};

use super::Lab;
use crate::wire::{Counts, Faults};

/// The cable of a node, without faults until it gets some. Without the process behind it nothing
/// passes, so it lives as long as the lab.
pub struct Wire {
    process: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

// === impl Wire ===

impl Wire {
    /// Cuts the cable of `node` and joins the ends. Checksums and segments are made by the kernel
    /// from here on: offloaded ones would travel unfinished.
    pub fn insert(lab: &Lab, node: &str) -> Result<Self> {
        let script = format!(
            "ip link add mended type veth peer name wire && ip link set {node} nomaster \
             && ip link set mended master weft0 up && ip link set wire up \
             && ethtool -K mended tx off gso off tso off >/dev/null \
             && ethtool -K {node} gro off >/dev/null && ethtool -K wire gro off >/dev/null"
        );
        lab.exec("switch", &["sh", "-ec", &script])?;
        let offload = [
            "ethtool", "-K", "eth0", "tx", "off", "gso", "off", "tso", "off",
        ];
        lab.exec(&format!("node/{node}"), &offload)?;
        let mut process = lab.exec_spawn("switch", &["wire", node, "wire"])?;
        let commands = process.stdin.take().context("piped")?;
        let answers = process.stdout.take().context("piped")?;
        let mut wire = Self {
            process,
            commands,
            answers: BufReader::new(answers).lines(),
        };
        let ready = wire.answer()?;
        ensure!(ready == "ready", "the wire said {ready:?}");
        Ok(wire)
    }

    /// From now on; tells what has passed until now.
    pub fn set(&mut self, faults: &Faults) -> Result<Counts> {
        let line = serde_json::to_string(faults)?;
        writeln!(self.commands, "{line}")?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    fn answer(&mut self) -> Result<String> {
        let line = self.answers.next().context("the wire has ended")?;
        Ok(line?)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // It ends with the mesh too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
