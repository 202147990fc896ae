//! What a folder holds right now: its object files, its directories, and the
//! directories outside of it that its symlinks lead to.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Deeper nesting is reported, not followed.
const MAX_DEPTH: usize = 16;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Enough of a file's metadata to know that its contents are those read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// One pass over a folder.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) files: BTreeMap<PathBuf, Fingerprint>,
    /// Where changes show that can change what a symlink of the folder means.
    pub(super) outside: BTreeSet<PathBuf>,
    /// Directories that could not be listed, and why.
    pub(super) unreadable: Vec<(PathBuf, String)>,
}

// === impl Fingerprint ===

impl Fingerprint {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

// === impl Walk ===

impl Walk {
    /// Lists `root` and below. `watch` is called for each directory before it is
    /// listed, so that no change falls between the listing and the watch. Fails only
    /// when the root itself can't be listed.
    pub(super) fn of(root: &Path, watch: &mut dyn FnMut(&Path)) -> io::Result<Self> {
        let mut walk = Self::default();
        let mut seen = HashSet::new();
        watch(root);
        walk.directory(root, 0, &mut seen, watch)?;
        Ok(walk)
    }

    fn directory(
        &mut self,
        directory: &Path,
        depth: usize,
        seen: &mut HashSet<(u64, u64)>,
        watch: &mut dyn FnMut(&Path),
    ) -> io::Result<()> {
        let metadata = fs::metadata(directory)?;
        if !seen.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            if is_hidden(&path) {
                continue;
            }
            let is_symlink = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            if is_symlink {
                self.note_target(&path);
            }
            // Follows symlinks; a dangling one is as good as no file.
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if metadata.is_dir() {
                if depth + 1 >= MAX_DEPTH {
                    let reason = format!("more than {MAX_DEPTH} levels of folders");
                    self.unreadable.push((path, reason));
                    continue;
                }
                watch(&path);
                if let Err(error) = self.directory(&path, depth + 1, seen, watch) {
                    self.unreadable.push((path, error.to_string()));
                }
            } else if metadata.is_file() && is_object_file(&path) {
                self.files.insert(path, Fingerprint::of(&metadata));
            }
        }
        Ok(())
    }

    /// The directories in which the links of a chain live, and the one it ends in: a
    /// rename in any of them can put another file behind the symlink.
    fn note_target(&mut self, link: &Path) {
        let mut ahead: Vec<OsString> = reversed(link);
        let mut reached = PathBuf::new();
        let mut links = 0;
        while let Some(name) = ahead.pop() {
            if name == ".." {
                // What was reached has no links in it, so that its parent is above it.
                reached.pop();
                continue;
            }
            let next = reached.join(&name);
            match fs::read_link(&next) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    self.outside.insert(reached.clone());
                    if target.is_absolute() {
                        reached.clear();
                    }
                    ahead.extend(reversed(&target));
                }
                _ => reached = next,
            }
        }
        if let Some(parent) = reached.parent() {
            self.outside.insert(parent.to_owned());
        }
    }
}

fn reversed(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|part| *part != Component::CurDir);
    let mut names: Vec<OsString> = names.map(|part| part.as_os_str().to_owned()).collect();
    names.reverse();
    names
}

/// Dot files are editors' swap files and Kubernetes' `..data`: never objects themselves.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether the name says that the file holds objects: `*.yaml`, `*.yml`, `*.json`.
pub(super) fn is_object_file(path: &Path) -> bool {
    !is_hidden(path)
        && path.extension().is_some_and(|extension| {
            extension == "yaml" || extension == "yml" || extension == "json"
        })
}
