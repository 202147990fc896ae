//! The last good text of every file, kept over restarts: a file that is broken at the
//! moment the control plane starts would otherwise lift the policies it holds.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Copies of files in a folder of their own, each under the digest of its path.
#[derive(Debug)]
pub(super) struct Kept {
    folder: PathBuf,
    /// Digests of the texts that are kept, so that none is written twice.
    texts: HashMap<PathBuf, [u8; 32]>,
}

/// One copy. What was cut short by a crash does not parse, and counts for nothing.
#[derive(Serialize, Deserialize)]
struct Copy {
    path: PathBuf,
    text: String,
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            texts: HashMap::new(),
        }
    }

    /// The copies of files below `root`. Those of other folders are given up.
    pub(super) fn load(&mut self, root: &Path) -> Vec<(PathBuf, String)> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.warn("can't be read", &error);
                }
                return Vec::new();
            }
        };
        let mut copies = Vec::new();
        for file in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let copy = fs::read(&file)
                .map_err(serde_json::Error::io)
                .and_then(|bytes| serde_json::from_slice::<Copy>(&bytes));
            match copy {
                Ok(Copy { path, text }) if path.starts_with(root) => {
                    self.texts.insert(path.clone(), digest(text.as_bytes()));
                    copies.push((path, text));
                }
                Ok(_) => remove(&file),
                Err(error) => {
                    tracing::warn!(target: "folder", "{} is of no use: {error}", file.display());
                    remove(&file);
                }
            }
        }
        copies
    }

    /// Keeps a text that was found good.
    pub(super) fn keep(&mut self, path: &Path, text: &[u8]) {
        let digest = digest(text);
        if self.texts.get(path) == Some(&digest) {
            return;
        }
        let written = String::from_utf8(text.to_vec())
            .map_err(io::Error::other)
            .and_then(|text| {
                self.write(&Copy {
                    path: path.to_owned(),
                    text,
                })
            });
        match written {
            Ok(()) => {
                self.texts.insert(path.to_owned(), digest);
            }
            // The older copy, if any, stays: it is better than nothing.
            Err(error) => self.warn("can't be written", &error),
        }
    }

    /// The file is gone, or holds nothing any more.
    pub(super) fn forget(&mut self, path: &Path) {
        if self.texts.remove(path).is_some() {
            remove(&self.file(path));
        }
    }

    fn write(&self, copy: &Copy) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)?;
        let file = self.file(&copy.path);
        let written = file.with_extension("new");
        let mut out = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&written)?;
        out.write_all(&serde_json::to_vec(copy)?)?;
        fs::rename(&written, &file)
    }

    fn file(&self, path: &Path) -> PathBuf {
        let digest = digest(path.as_os_str().as_bytes());
        let name: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name)
    }

    fn warn(&self, what: &str, error: &io::Error) {
        let folder = self.folder.display();
        tracing::warn!(
            target: "folder",
            "copies in {folder} {what}: {error}; a file that is broken when the control plane starts would hold nothing"
        );
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    boring::sha::sha256(bytes)
}

fn remove(file: &Path) {
    // What can't be removed now is tried again with the next start.
    let _ = fs::remove_file(file);
}
