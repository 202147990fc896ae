//! A mesh whose ztunnels run under conditions of the test's making, and how to get at them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Lab, link, process_status, program};

// === impl Lab ===

impl Lab {
    /// As [`Lab::up`], with shell commands before each ztunnel starts: settings, limits. They find
    /// the node in `$NODE_NAME`.
    pub fn up_wrapped(yaml: &str, prelude: &str) -> Result<Self> {
        Self::up_wrapped_on(2, yaml, prelude)
    }

    /// As [`Lab::up_wrapped`], with as many nodes.
    pub fn up_wrapped_on(nodes: usize, yaml: &str, prelude: &str) -> Result<Self> {
        Self::up_both_wrapped(nodes, yaml, prelude, "")
    }

    /// The same, with commands before the control plane starts, too.
    pub fn up_both_wrapped(
        nodes: usize,
        yaml: &str,
        ztunnel: &str,
        control_plane: &str,
    ) -> Result<Self> {
        let mut lab = Self::stopped()?;
        lab.write("lab.yaml", yaml)?;
        let ztunnel = lab.wrapper(ztunnel)?;
        let control_plane = lab.wrapper_of("control-plane", control_plane)?;
        let programs = ["--ztunnel", &ztunnel, "--control-plane", &control_plane];
        lab.start(&[&["--nodes", &nodes.to_string()], &programs[..]].concat())?;
        let watch = link::Watch::begin(&lab)?;
        watch.learn(&lab.pods()?);
        lab.watch = Some(watch);
        Ok(lab)
    }

    /// A program that does these commands and then is the ztunnel.
    pub fn wrapper(&self, prelude: &str) -> Result<String> {
        self.wrapper_of("ztunnel", prelude)
    }

    /// The same, of another of the mesh's own programs.
    fn wrapper_of(&self, name: &str, prelude: &str) -> Result<String> {
        let path = self.folders.path().join(name);
        let wrapped = program(name);
        let script = format!(
            "#!/bin/sh -e\n{prelude}\nexec {} \"$@\"\n",
            wrapped.display()
        );
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        Ok(path.to_str().context("path is text")?.to_owned())
    }

    /// Bytes that a node's ztunnel has for itself. Pages of its program come and go besides.
    pub fn own_memory(&self, node: &str) -> Result<f64> {
        self.memory(node, "RssAnon")
    }

    /// Bytes of a kind of memory of a node's ztunnel, as [`process_status::memory`] names it.
    pub fn memory(&self, node: &str, kind: &str) -> Result<f64> {
        let pid = &self.piece("ztunnel", Some(node))?["pid"];
        let status = self.exec(
            &format!("node/{node}"),
            &["cat", &format!("/proc/{pid}/status")],
        )?;
        process_status::memory(&status, kind)
    }

    /// What `weft status` says of one of the mesh's own processes.
    pub fn piece(&self, name: &str, node: Option<&str>) -> Result<Value> {
        let status: Value = serde_json::from_str(&self.weft(&["status", "-o", "json"])?)?;
        let pieces = status["machine"]["pieces"].as_array();
        let found = pieces
            .into_iter()
            .flatten()
            .find(|piece| piece["name"] == name && node.is_none_or(|node| piece["node"] == node));
        found
            .cloned()
            .with_context(|| format!("no {name}: {status}"))
    }

    /// Sends a signal, named as `kill` names it, to one of the mesh's own processes.
    pub fn signal(&self, name: &str, node: Option<&str>, signal: &str) -> Result<()> {
        let piece = self.piece(name, node)?;
        let pid = piece["pid"].as_i64().with_context(|| piece.to_string())?;
        self.exec("switch", &["kill", "-s", signal, &pid.to_string()])?;
        Ok(())
    }

    /// A number of the metrics of a node's ztunnel, summed over its series.
    pub fn metric(&self, node: &str, name: &str) -> Result<f64> {
        sum(&self.metrics(node)?, name)
    }

    /// The TCP packets so far that crossed between the nodes outside HBONE, those without payload
    /// included, from one address.
    pub fn packets_outside_hbone(&self, from: std::net::IpAddr) -> Result<Vec<String>> {
        let path = self.folders.path().join("outside-hbone.pcap");
        ensure!(path.exists(), "nothing is captured");
        let output = std::process::Command::new("tcpdump")
            .args(["-n", "-r"])
            .arg(path)
            .arg(format!("src host {from}"))
            .output()?;
        let lines = String::from_utf8_lossy(&output.stdout);
        Ok(lines.lines().map(str::to_owned).collect())
    }
}

/// The sum of a metric's series in a text of Prometheus.
pub(super) fn sum(metrics: &str, name: &str) -> Result<f64> {
    let mut found = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name) else {
            continue;
        };
        if rest.starts_with(['{', ' ']) {
            let value: f64 = rest.rsplit(' ').next().unwrap_or_default().parse()?;
            *found.get_or_insert(0.0) += value;
        }
    }
    found.with_context(|| format!("no metric {name}"))
}
