//! The kernel's watches on directories, and what an event on one of them asks for.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use inotify::{EventMask, EventOwned, WatchDescriptor, WatchMask, Watches as Kernel};

use crate::folder::pending::{Pending, Root};
use crate::folder::walk::{is_hidden, is_object_file};

/// Why a directory is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Part of a root.
    Inside,
    /// A symlink of a root leads here.
    Outside,
    /// Nearest directory above a root that is gone.
    Above,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Watched {
    root: Root,
    path: PathBuf,
    role: Role,
    /// Of the latest walk that still wanted it.
    generation: u64,
}

/// Every watch and why it is there.
pub(super) struct Watches {
    kernel: Kernel,
    table: HashMap<WatchDescriptor, Vec<Watched>>,
    generation: u64,
}

// === impl Watches ===

impl Watches {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            table: HashMap::new(),
            generation: 0,
        }
    }

    /// Starts a walk over a root: what it does not watch again is let go by [`Self::end`].
    pub(super) fn begin(&mut self) {
        self.generation += 1;
    }

    pub(super) fn end(&mut self, root: Root) {
        let generation = self.generation;
        let kernel = &mut self.kernel;
        self.table.retain(|descriptor, reasons| {
            reasons.retain(|watched| watched.root != root || watched.generation == generation);
            if reasons.is_empty() {
                // Fails for a directory that is gone, whose watch went with it.
                let _ = kernel.remove(descriptor.clone());
            }
            !reasons.is_empty()
        });
    }

    /// Watches a directory. One that does not exist is nobody's error: whoever lists it
    /// next will find out.
    pub(super) fn add(&mut self, root: Root, path: &Path, role: Role) -> io::Result<()> {
        // CLOSE_WRITE and not MODIFY: what is being written is not read until its
        // writer has finished.
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        let descriptor = match self.kernel.add(path, mask) {
            Ok(descriptor) => descriptor,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let watched = Watched {
            root,
            path: path.to_owned(),
            role,
            generation: self.generation,
        };
        let reasons = self.table.entry(descriptor).or_default();
        reasons.retain(|known| known.root != root || known.role != role);
        reasons.push(watched);
        Ok(())
    }

    /// Turns an event into work to do.
    pub(super) fn note(&mut self, event: &EventOwned, pending: &mut Pending, now: Instant) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            for watched in self.table.values().flatten() {
                pending.walk(watched.root, now);
            }
            return;
        }
        let Some(reasons) = self.table.get(&event.wd) else {
            return;
        };
        for watched in reasons {
            match watched.role {
                Role::Inside => note_inside(watched, event, pending, now),
                Role::Outside | Role::Above => pending.walk(watched.root, now),
            }
        }
        if event.mask.contains(EventMask::IGNORED) {
            self.table.remove(&event.wd);
        }
    }
}

fn note_inside(watched: &Watched, event: &EventOwned, pending: &mut Pending, now: Instant) {
    let Some(name) = &event.name else {
        // The directory itself was removed, moved or unmounted.
        if event.mask.intersects(
            EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::UNMOUNT | EventMask::IGNORED,
        ) {
            pending.walk(watched.root, now);
        }
        return;
    };
    let path = watched.path.join(name);
    if event.mask.contains(EventMask::ISDIR) {
        if !is_hidden(&path) {
            pending.walk(watched.root, now);
        }
        return;
    }
    if event
        .mask
        .intersects(EventMask::DELETE | EventMask::MOVED_FROM)
    {
        if is_object_file(&path) {
            pending.removed(watched.root, &path, now);
        }
        return;
    }
    // A symlink appears whole, and whatever its name, others may lead through it.
    match std::fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_symlink() => pending.walk(watched.root, now),
        Ok(_) if !is_object_file(&path) => {}
        // A new file is read when its writer closes it; a hard link has no writer.
        Ok(metadata) if event.mask.contains(EventMask::CREATE) && metadata.nlink() == 1 => {}
        Ok(_) => pending.changed(watched.root, &path, now),
        Err(_) => {}
    }
}
