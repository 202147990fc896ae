//! The memory limit of this process's control group, and what of it is used: version 2, or 1.

use std::fs;
use std::path::{Path, PathBuf};

use super::Usage;

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// Beyond this a "limit" is the kernel's way to say that there is none.
const NO_LIMIT: u64 = 1 << 60;

/// A control group that limits memory.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    files: &'static Files,
    limit: u64,
}

/// What the files are called.
#[derive(Debug)]
struct Files {
    limit: &'static str,
    current: &'static str,
    /// The line of `memory.stat` with what the kernel drops when it needs to.
    droppable: &'static str,
}

const V2: Files = Files {
    limit: "memory.max",
    current: "memory.current",
    droppable: "inactive_file",
};

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    current: "memory.usage_in_bytes",
    droppable: "total_inactive_file",
};

// === impl Group ===

impl Group {
    /// The group that limits this process: its own, or the nearest above with a limit.
    pub fn own() -> Option<Self> {
        let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
        let (root, path, files) = place(&membership)?;
        let root = Path::new(MOUNT).join(root);
        let path = path.trim_start_matches('/');
        // In a container the mount often shows the own group as its root.
        let group = root.join(path);
        let start = if group.exists() { group } else { root.clone() };
        start
            .ancestors()
            .take_while(|folder| folder.starts_with(&root))
            .find_map(|folder| {
                let limit = number(&folder.join(files.limit))?;
                (limit < NO_LIMIT).then(|| Self {
                    folder: folder.to_owned(),
                    files,
                    limit,
                })
            })
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is used now, of the limit as it is now: whoever sets it may set it anew.
    pub fn usage(&self) -> Option<Usage> {
        let current = number(&self.folder.join(self.files.current))?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).ok()?;
        let droppable = line(&stat, self.files.droppable).unwrap_or_default();
        Some(Usage {
            limit: number(&self.folder.join(self.files.limit)).unwrap_or(self.limit),
            group: current.saturating_sub(droppable),
            own: resident()?,
        })
    }
}

/// Where a process's memory is accounted, from `/proc/self/cgroup`: the folder of the mount, the
/// path in it, and what the files are called there.
fn place(membership: &str) -> Option<(&'static str, &str, &'static Files)> {
    let lines = || membership.lines().filter_map(|line| line.split_once(':'));
    let v1 = lines().find_map(|(_, rest)| {
        let (controllers, path) = rest.split_once(':')?;
        let has = controllers.split(',').any(|name| name == "memory");
        has.then_some(("memory", path, &V1))
    });
    v1.or_else(|| {
        lines().find_map(|(number, rest)| {
            let path = rest.strip_prefix(':')?;
            (number == "0").then_some(("", path, &V2))
        })
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn line(stat: &str, name: &str) -> Option<u64> {
    stat.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Of this process, in bytes.
pub fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memberships_of_both_versions_are_understood() {
        let v1 = "12:pids:/x\n7:cpu,memory:/pod/a\n0::/y\n";
        for (membership, root, path, limit) in [
            (v1, "memory", "/pod/a", V1.limit),
            (
                "0::/system.slice/ztunnel\n",
                "",
                "/system.slice/ztunnel",
                V2.limit,
            ),
        ] {
            let found = place(membership).expect("a place");
            assert_eq!((found.0, found.1, found.2.limit), (root, path, limit));
        }
        assert!(place("1:pids:/x\n").is_none());
    }

    #[test]
    fn what_the_kernel_can_drop_is_found() {
        let stat = "cache 5\ntotal_inactive_file 4096\ninactive_file 12\n";
        assert_eq!(line(stat, "total_inactive_file"), Some(4096));
        assert_eq!(line(stat, "inactive_file"), Some(12));
        assert_eq!(line(stat, "active_file"), None);
    }
}
