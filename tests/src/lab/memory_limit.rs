//! A control group of a test's own that limits the memory of whatever enters it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::eventually;

const MOUNT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to notice that a group is empty.
const GONE: Duration = Duration::from_secs(10);

/// Removed when dropped, which is after the lab whose processes are in it.
pub struct MemoryLimit(PathBuf);

// === impl MemoryLimit ===

impl MemoryLimit {
    pub fn new(bytes: u64) -> Result<Self> {
        let v1 = Path::new(MOUNT).join("memory");
        let (root, file) = if v1.exists() {
            (v1, "memory.limit_in_bytes")
        } else {
            let root = PathBuf::from(MOUNT);
            // It is on already where anything limits memory.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root, "memory.max")
        };
        let folder = tempfile::Builder::new()
            .prefix("weft-")
            .tempdir_in(root)
            .context("the right to make control groups")?
            .keep();
        let limit = Self(folder);
        fs::write(limit.0.join(file), bytes.to_string()).context(file)?;
        Ok(limit)
    }

    /// The shell command that puts its shell, and what that becomes, under the limit.
    pub fn enter(&self) -> String {
        format!("echo 0 > {}", self.0.join("cgroup.procs").display())
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let removed = eventually(GONE, "the control group is empty", || {
            Ok(fs::remove_dir(&self.0)?)
        });
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}
