//! `run/machine.json`: which processes are the mesh's, told apart from others that got their pids later.
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::system;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) version: String,
    pub(crate) launcher: Process,
    pub(crate) machine: Process,
    pub(crate) folder: PathBuf,
    pub(crate) nodes: Vec<String>,
    /// RFC 3339.
    pub(crate) started: String,
}

/// A process as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// In clock ticks after boot: no two processes with one pid share it.
    pub(crate) start_time: u64,
}

// === impl Record ===

impl Record {
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Whether the mesh that it tells of runs still.
    pub(crate) fn runs(path: &Path) -> bool {
        Self::read(path).is_some_and(|record| record.machine.open().is_some())
    }
}

// === impl Process ===

impl Process {
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time =
            start_time(&stat).ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))?;
        Ok(Self { pid, start_time })
    }

    /// A hold on the process, if it is still the same one.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let pidfd = system::pidfd(self.pid).ok()?;
        (Self::of(self.pid).ok()? == self).then_some(pidfd)
    }
}

/// The 22nd field; the second, in parentheses, may hold anything, parentheses and blanks too.
fn start_time(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_confuse() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(start_time(stat), Some(4711));
    }

    #[test]
    fn another_process_with_the_same_pid_is_not_opened() {
        let me = Process::of(std::process::id().cast_signed()).unwrap();
        assert!(me.open().is_some());
        assert!(
            Process {
                start_time: me.start_time + 1,
                ..me
            }
            .open()
            .is_none()
        );
    }
}
