//! When to act on what the kernel reported: at once for a file that was written, a
//! little later for one that is gone, because editors save by moving the old file away
//! and writing a new one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Gathers the several events of one save.
const CHANGED_AFTER: Duration = Duration::from_millis(4);
/// How long a file may be away while an editor or a `git checkout` replaces it. Without
/// it a policy would be lifted for the length of a save.
const REMOVED_AFTER: Duration = Duration::from_millis(40);
/// How long a folder that came back must be quiet before what it holds is believed.
const RETURNED_AFTER: Duration = Duration::from_millis(80);
/// How long it may stay restless before it is believed nevertheless.
const RETURNED_AT_LAST: Duration = Duration::from_secs(2);

/// Index of a watched root in the order given.
pub(super) type Root = usize;

/// What was reported of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// Written or moved in.
    Changed,
    /// Deleted, moved away or emptied, and not replaced since.
    Removed,
}

/// Why a root is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    Routine,
    /// It was away, and has been quiet since it came back.
    Settled,
}

/// Work to do and when.
#[derive(Debug, Default)]
pub(super) struct Pending {
    files: BTreeMap<(Root, PathBuf), (Instant, Cause)>,
    walks: BTreeMap<Root, Instant>,
    /// Roots that came back, and when to believe them at the latest.
    settling: BTreeMap<Root, Instant>,
}

/// Work whose time has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) files: Vec<(Root, PathBuf, Cause)>,
    pub(super) walks: Vec<(Root, Visit)>,
}

// === impl Pending ===

impl Pending {
    /// The file was written or moved in. Writing again does not postpone the reading.
    pub(super) fn changed(&mut self, root: Root, path: &Path, now: Instant) {
        if self.settling.contains_key(&root) {
            return self.walk(root, now);
        }
        let mut at = now + CHANGED_AFTER;
        let id = (root, path.to_owned());
        if let Some((known, _)) = self.files.get(&id) {
            at = at.min(*known);
        }
        self.files.insert(id, (at, Cause::Changed));
    }

    /// The file was deleted, moved away or emptied.
    pub(super) fn removed(&mut self, root: Root, path: &Path, now: Instant) {
        if self.settling.contains_key(&root) {
            return self.walk(root, now);
        }
        self.files.insert(
            (root, path.to_owned()),
            (now + REMOVED_AFTER, Cause::Removed),
        );
    }

    /// The file was not there when its folder was listed, which may be a save halfway.
    pub(super) fn missing(&mut self, root: Root, path: &Path, now: Instant) {
        self.files
            .entry((root, path.to_owned()))
            .or_insert((now + REMOVED_AFTER, Cause::Removed));
    }

    /// The root has to be looked through as a whole.
    pub(super) fn walk(&mut self, root: Root, now: Instant) {
        let at = match (self.settling.get(&root), self.walks.get(&root)) {
            (Some(at_last), _) => (now + RETURNED_AFTER).min(*at_last),
            (None, Some(known)) => (now + CHANGED_AFTER).min(*known),
            (None, None) => now + CHANGED_AFTER,
        };
        self.walks.insert(root, at);
    }

    /// The root came back: look through it again once it has been quiet for a while.
    pub(super) fn settle(&mut self, root: Root, now: Instant) {
        self.settling.entry(root).or_insert(now + RETURNED_AT_LAST);
        self.walk(root, now);
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Instant> {
        let files = self.files.values().map(|(at, _)| at);
        files.chain(self.walks.values()).min().copied()
    }

    /// Takes out what is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        self.files.retain(|(root, path), (at, cause)| {
            if *at > now {
                return true;
            }
            due.files.push((*root, path.clone(), *cause));
            false
        });
        self.walks.retain(|root, at| {
            if *at > now {
                return true;
            }
            let visit = match self.settling.remove(root) {
                Some(_) => Visit::Settled,
                None => Visit::Routine,
            };
            due.walks.push((*root, visit));
            false
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_replaced_by_its_editor_is_read_once_and_never_seen_missing() {
        let start = Instant::now();
        let path = Path::new("/objects/policy.yaml");
        let mut pending = Pending::default();
        pending.removed(0, path, start);
        let back = start + Duration::from_millis(20);
        assert_eq!(pending.take_due(back), Due::default());
        pending.changed(0, path, back);
        let due = pending.take_due(back + CHANGED_AFTER);
        assert_eq!(due.files, [(0, path.to_owned(), Cause::Changed)]);
        assert_eq!(pending.next(), None);
    }

    #[test]
    fn a_removed_file_is_acted_on_within_the_promised_time() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.removed(0, Path::new("/objects/policy.yaml"), start);
        assert_eq!(pending.next(), Some(start + REMOVED_AFTER));
        assert!(REMOVED_AFTER < Duration::from_millis(100));
    }

    #[test]
    fn a_file_written_all_the_time_is_still_read() {
        let start = Instant::now();
        let mut pending = Pending::default();
        for milliseconds in 0..4 {
            let now = start + Duration::from_millis(milliseconds);
            pending.changed(0, Path::new("/objects/busy.yaml"), now);
        }
        assert_eq!(pending.next(), Some(start + CHANGED_AFTER));
    }

    #[test]
    fn a_folder_that_returns_is_believed_once_quiet_and_at_the_latest_in_two_seconds() {
        let start = Instant::now();
        let mut pending = Pending::default();
        pending.settle(0, start);
        let mut now = start;
        while now < start + Duration::from_secs(5) {
            pending.changed(0, Path::new("/objects/checkout.yaml"), now);
            let due = pending.take_due(now);
            if !due.walks.is_empty() {
                assert_eq!(due.walks, [(0, Visit::Settled)]);
                break;
            }
            now += Duration::from_millis(50);
        }
        assert!(now <= start + RETURNED_AT_LAST + Duration::from_millis(50));
    }
}
