//! The files of the watched folders and the objects read from them. A file takes effect
//! as a whole or not at all: one mistake in it keeps everything it said before.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use istio_compat::diagnostic::{Diagnostic, Severity};
use istio_compat::object::{Object, ObjectKey};
use istio_compat::parse::Raw;

use crate::folder::claims::{Claims, Place, Rank};
use crate::folder::kept::Kept;
use crate::folder::pending::{Cause, Root};
use crate::folder::walk::Fingerprint;
use crate::source::Event;

/// A file beyond this is refused unread, so that no file can exhaust the memory.
const MAX_FILE_BYTES: u64 = istio_compat::parse::MAX_FILE_SIZE as u64;

/// The root of the user's files. Others are written by programs, whole.
const USER: Root = 0;

/// What became of one look at a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// It changed while it was read.
    ReadAgain,
    /// It holds nothing although it held objects: perhaps someone is about to write it.
    Emptied,
}

#[derive(Debug, Default)]
struct KnownFile {
    fingerprint: Option<Fingerprint>,
    /// The objects in force from this file, in their order.
    keys: Vec<ObjectKey>,
}

/// Every file that was read and what it defines.
#[derive(Debug)]
pub(super) struct Files {
    raw: Raw,
    /// The root over which all others lie.
    pub(super) lowest: Option<Root>,
    known: BTreeMap<(Root, Arc<Path>), KnownFile>,
    diagnostics: BTreeMap<(Root, Arc<Path>), Vec<Diagnostic>>,
    claims: Claims,
    kept: Option<Kept>,
}

// === impl Files ===

impl Files {
    pub(super) fn new(raw: Raw) -> Self {
        Self {
            raw,
            lowest: None,
            known: BTreeMap::new(),
            diagnostics: BTreeMap::new(),
            claims: Claims::default(),
            kept: None,
        }
    }

    /// Keeps copies of the user's files, and starts with those of an earlier run: they hold
    /// until the files themselves have been read.
    pub(super) fn start_with(&mut self, mut kept: Kept, user: &Path) {
        for (path, text) in kept.load(user) {
            let parsed =
                istio_compat::parse::parse(&path.to_string_lossy(), text.as_bytes(), self.raw);
            match parsed {
                Ok(parsed) => self.accept(USER, &path, None, parsed.objects, Vec::new()),
                Err(_) => kept.forget(&path),
            }
        }
        self.kept = Some(kept);
    }

    /// The files known below a root.
    pub(super) fn of_root(&self, root: Root) -> impl Iterator<Item = &Path> {
        self.known
            .keys()
            .filter(move |(of, _)| *of == root)
            .map(|(_, path)| &**path)
    }

    pub(super) fn is_current(&self, root: Root, path: &Path, fingerprint: Fingerprint) -> bool {
        self.known
            .get(&(root, Arc::from(path)))
            .is_some_and(|file| file.fingerprint == Some(fingerprint))
    }

    /// Brings one file up to date with the disk. A file found empty is believed only when
    /// it has been so for as long as one that is gone.
    pub(super) fn refresh(&mut self, root: Root, path: &Path, cause: Cause) -> Outcome {
        let (text, fingerprint) = match read(path) {
            Ok(Reading::Text(text, fingerprint)) => (text, fingerprint),
            Ok(Reading::Changing) => return Outcome::ReadAgain,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(root, path);
                return Outcome::Done;
            }
            Err(error) => {
                self.refuse(root, path, None, vec![file_error(path, error.to_string())]);
                return Outcome::Done;
            }
        };
        if self.is_current(root, path, fingerprint) {
            return Outcome::Done;
        }
        let holds_objects = self
            .known
            .get(&(root, Arc::from(path)))
            .is_some_and(|file| !file.keys.is_empty());
        if holds_objects && cause == Cause::Changed && text.trim_ascii().is_empty() {
            return Outcome::Emptied;
        }
        match istio_compat::parse::parse(&path.to_string_lossy(), &text, self.raw) {
            Ok(parsed) => {
                match &mut self.kept {
                    Some(kept) if root == USER && parsed.objects.is_empty() => kept.forget(path),
                    Some(kept) if root == USER => kept.keep(path, &text),
                    _ => {}
                }
                let fingerprint = Some(fingerprint);
                self.accept(root, path, fingerprint, parsed.objects, parsed.warnings);
            }
            Err(rejected) => {
                let mut diagnostics = rejected.errors;
                diagnostics.extend(rejected.warnings);
                self.refuse(root, path, Some(fingerprint), diagnostics);
            }
        }
        Outcome::Done
    }

    /// The file is gone, and with it what it defined.
    pub(super) fn forget(&mut self, root: Root, path: &Path) {
        let id = (root, Arc::from(path));
        self.diagnostics.remove(&id);
        if let Some(kept) = &mut self.kept
            && root == USER
        {
            kept.forget(path);
        }
        if let Some(file) = self.known.remove(&id) {
            let rank = self.rank(root);
            for (ordinal, key) in file.keys.iter().enumerate() {
                self.claims
                    .remove(key, &Place::new(rank, id.1.clone(), ordinal));
            }
        }
    }

    /// Later roots overlay earlier ones; the lowest lies below them all.
    fn rank(&self, root: Root) -> Rank {
        match self.lowest == Some(root) {
            true => 0,
            false => root + 1,
        }
    }

    fn accept(
        &mut self,
        root: Root,
        path: &Path,
        fingerprint: Option<Fingerprint>,
        objects: Vec<Object>,
        warnings: Vec<Diagnostic>,
    ) {
        let id: (Root, Arc<Path>) = (root, Arc::from(path));
        let rank = self.rank(root);
        let file = self.known.entry(id.clone()).or_default();
        file.fingerprint = fingerprint;
        let old = std::mem::take(&mut file.keys);
        for (ordinal, key) in old.iter().enumerate() {
            self.claims
                .remove(key, &Place::new(rank, id.1.clone(), ordinal));
        }
        for (ordinal, object) in objects.into_iter().enumerate() {
            let key = object.key();
            file.keys.push(key.clone());
            let place = Place::new(rank, id.1.clone(), ordinal);
            self.claims.add(key, place, object);
        }
        if warnings.is_empty() {
            self.diagnostics.remove(&id);
        } else {
            self.diagnostics.insert(id, warnings);
        }
    }

    fn refuse(
        &mut self,
        root: Root,
        path: &Path,
        fingerprint: Option<Fingerprint>,
        mut diagnostics: Vec<Diagnostic>,
    ) {
        let id: (Root, Arc<Path>) = (root, Arc::from(path));
        let file = self.known.entry(id.clone()).or_default();
        file.fingerprint = fingerprint;
        if !file.keys.is_empty() {
            let held = file.keys.len();
            diagnostics.push(Diagnostic {
                severity: Severity::Warning,
                ..file_error(
                    path,
                    format!("the {held} objects read from it before stay in force"),
                )
            });
        }
        for diagnostic in &diagnostics {
            tracing::warn!(target: "folder", "{diagnostic}");
        }
        self.diagnostics.insert(id, diagnostics);
    }

    /// What changed in force since the last call.
    pub(super) fn settle(&mut self) -> Vec<Event> {
        self.claims.settle()
    }

    pub(super) fn diagnostics(&self) -> Vec<Diagnostic> {
        self.diagnostics
            .values()
            .flatten()
            .cloned()
            .chain(self.claims.conflicts())
            .collect()
    }
}

enum Reading {
    Text(Vec<u8>, Fingerprint),
    Changing,
}

fn read(path: &Path) -> io::Result<Reading> {
    // Opening a FIFO would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
    }
    let mut file = File::open(path)?;
    let before = file.metadata()?;
    if before.len() > MAX_FILE_BYTES {
        let message = format!("is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let mut bytes = Vec::with_capacity(before.len() as usize);
    (&mut file).take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    let after = Fingerprint::of(&file.metadata()?);
    if after != Fingerprint::of(&before) {
        return Ok(Reading::Changing);
    }
    Ok(Reading::Text(bytes, after))
}

/// An error about the file as a whole.
pub(super) fn file_error(path: &Path, message: String) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        file: path.to_string_lossy().into(),
        line: 0,
        column: 0,
        object: String::new(),
        field: String::new(),
        message,
    }
}
