//! A control group of a test's own that limits whatever enters it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::eventually;

const MOUNT: &str = "/sys/fs/cgroup";
/// How long the kernel may take to notice that a group is empty.
const GONE: Duration = Duration::from_secs(10);
/// Microseconds within which processor time is counted: short, so that who has a quarter of a processor
/// has it all the time, and not all of it for a while.
const PERIOD: u64 = 20_000;

/// Removed when dropped, which is after the lab whose processes are in it.
pub struct ControlGroup {
    folder: PathBuf,
    /// Where its limit is.
    file: &'static str,
}

/// Where a limit is written, as the two versions of the kernel's interface have it.
struct Controller {
    name: &'static str,
    /// In a hierarchy of its own.
    v1: (&'static str, String),
    v2: (&'static str, String),
}

// === impl ControlGroup ===

impl ControlGroup {
    /// Those in it have so many bytes of memory together.
    pub fn with_memory(bytes: u64) -> Result<Self> {
        Self::new(&Controller {
            name: "memory",
            v1: ("memory.limit_in_bytes", bytes.to_string()),
            v2: ("memory.max", bytes.to_string()),
        })
    }

    /// Those in it have so many hundredths of one processor together.
    pub fn with_processor(percent: u64) -> Result<Self> {
        let quota = PERIOD * percent / 100;
        Self::new(&Controller {
            name: "cpu",
            v1: ("cpu.cfs_quota_us", quota.to_string()),
            v2: ("cpu.max", format!("{quota} {PERIOD}")),
        })
    }

    fn new(controller: &Controller) -> Result<Self> {
        let v1 = Path::new(MOUNT).join(controller.name);
        let (root, &(file, ref limit)) = if v1.exists() {
            (v1, &controller.v1)
        } else {
            let root = PathBuf::from(MOUNT);
            let enable = format!("+{}", controller.name);
            // It is on already where anything else is limited so.
            let _ = fs::write(root.join("cgroup.subtree_control"), enable);
            (root, &controller.v2)
        };
        let folder = tempfile::Builder::new()
            .prefix("weft-")
            .tempdir_in(root)
            .context("the right to make control groups")?
            .keep();
        let group = Self { folder, file };
        group.set(limit)?;
        Ok(group)
    }

    /// The shell command that puts its shell, and what that becomes, under the limit.
    pub fn enter(&self) -> String {
        format!("echo 0 > {}", self.folder.join("cgroup.procs").display())
    }

    /// Sets the limit of memory so that what is used now, and can't be dropped, is so many hundredths
    /// of it.
    pub fn squeeze(&self, percent: u64) -> Result<()> {
        let (used, droppable) = match self.file {
            "memory.max" => ("memory.current", "inactive_file"),
            _ => ("memory.usage_in_bytes", "total_inactive_file"),
        };
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).context(file.to_owned());
        let used: u64 = read(used)?.trim().parse().context("bytes")?;
        let stat = read("memory.stat")?;
        let line = |line: &str| line.strip_prefix(droppable)?.trim().parse::<u64>().ok();
        let droppable = stat.lines().find_map(line).context("no such line")?;
        self.set(&((used - droppable) * 100 / percent).to_string())
    }

    fn set(&self, limit: &str) -> Result<()> {
        fs::write(self.folder.join(self.file), limit).context(self.file)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let removed = eventually(GONE, "the control group is empty", || {
            Ok(fs::remove_dir(&self.folder)?)
        });
        if let Err(error) = removed {
            eprintln!("{error:#}");
        }
    }
}
