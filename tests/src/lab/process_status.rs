//! What the kernel tells of a process in `/proc/PID/status`.

use anyhow::{Context, Result};

/// Bytes of a kind of memory, as the file names it: `VmRSS`, `RssAnon` (proc_pid_status(5)).
pub fn memory(status: &str, kind: &str) -> Result<f64> {
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines
        .find(|(name, _)| *name == kind)
        .with_context(|| kind.to_owned())?;
    let kilobytes = value.trim().trim_end_matches("kB").trim();
    Ok(kilobytes.parse::<f64>()? * 1024.0)
}
