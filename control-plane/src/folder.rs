//! Objects from folders of YAML and JSON files, kept up to date by the kernel's
//! notifications: no polling, and in force within 100 ms.
//!
//! Folders overlay each other. A file with a mistake keeps what it said before, also over a
//! restart; a folder that vanishes keeps everything it said before, until it is back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use futures::StreamExt;
use inotify::Inotify;
use istio_compat::parse::Raw;
use tokio::sync::mpsc;

mod claims;
mod files;
mod kept;
mod pending;
mod walk;
mod watches;

use files::{Files, Outcome};
use kept::Kept;
use pending::{Cause, Due, Pending, Root, Visit};
use walk::Walk;
use watches::{Role, Watches};

use crate::source::{Batch, Place, Report, Source, Trouble};

/// Folders as a source of objects.
pub struct FolderSource {
    inotify: Inotify,
    state: State,
}

/// Why the folders can't be a source.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("folder {}: {error}", path.display())]
    Unreadable {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error(
        "can't watch folders: {0} (see the limits fs.inotify.max_user_instances and max_user_watches)"
    )]
    Watch(std::io::Error),
}

/// Everything that is known of the folders; moves to a blocking thread to read them.
struct State {
    roots: Vec<RootFolder>,
    watches: Watches,
    files: Files,
    pending: Pending,
}

struct RootFolder {
    path: PathBuf,
    trouble: Option<Trouble>,
    /// Was gone, or returned without a file in it: what it says now is not yet believed.
    away: bool,
}

// === impl FolderSource ===

impl FolderSource {
    /// Folders in the order of precedence: a later one overlays the earlier ones. The
    /// first must be readable; the others may come later.
    pub fn open(folders: &[PathBuf], raw: Raw) -> Result<Self, OpenError> {
        if let Some(path) = folders.first() {
            std::fs::read_dir(path).map_err(|error| OpenError::Unreadable {
                path: path.clone(),
                error,
            })?;
        }
        let inotify = Inotify::init().map_err(OpenError::Watch)?;
        let roots = folders
            .iter()
            .map(|path| RootFolder {
                path: std::path::absolute(path).unwrap_or_else(|_| path.clone()),
                trouble: None,
                away: false,
            })
            .collect();
        let watches = Watches::new(inotify.watches());
        Ok(Self {
            inotify,
            state: State {
                roots,
                watches,
                files: Files::new(raw),
                pending: Pending::default(),
            },
        })
    }

    /// Reads another folder too, over which all others lie: what programs made up for want of
    /// anything the user says.
    pub fn over(mut self, folder: PathBuf) -> Self {
        self.state.files.lowest = Some(self.state.roots.len());
        self.state.roots.push(RootFolder {
            path: std::path::absolute(&folder).unwrap_or(folder),
            trouble: None,
            away: false,
        });
        self
    }

    /// Keeps copies of the first folder's files in `copies`, so that one that is broken at the
    /// next start still says what it said last.
    pub fn keeping(mut self, copies: PathBuf) -> Self {
        if let Some(user) = self.state.roots.first() {
            self.state.files.start_with(Kept::new(copies), &user.path);
        }
        self
    }
}

/// Reads a folder once, without watching it.
pub fn load(folder: &Path, raw: Raw) -> Result<Batch, OpenError> {
    let mut source = FolderSource::open(&[folder.to_owned()], raw)?;
    Ok(source.state.start())
}

impl Source for FolderSource {
    async fn run(self, batches: mpsc::Sender<Batch>) -> anyhow::Result<()> {
        let Self { inotify, mut state } = self;
        let mut events = inotify
            .into_event_stream(vec![0; 16 << 10])
            .context("can't read folder notifications")?;
        let (returned, batch) = on_blocking_thread(state, State::start).await?;
        state = returned;
        if batches.send(batch).await.is_err() {
            return Ok(());
        }
        loop {
            let next = state.pending.next();
            tokio::select! {
                event = events.next() => {
                    let event = event
                        .context("folder notifications ended")?
                        .context("can't read folder notifications")?;
                    state.watches.note(&event, &mut state.pending, Instant::now());
                }
                () = at(next) => {
                    let (returned, batch) = on_blocking_thread(state, State::catch_up).await?;
                    state = returned;
                    if let Some(batch) = batch && batches.send(batch).await.is_err() {
                        return Ok(());
                    }
                }
                () = batches.closed() => return Ok(()),
            }
        }
    }
}

async fn at(next: Option<Instant>) {
    match next {
        Some(next) => tokio::time::sleep_until(next.into()).await,
        None => std::future::pending().await,
    }
}

async fn on_blocking_thread<T: Send + 'static>(
    mut state: State,
    work: impl FnOnce(&mut State) -> T + Send + 'static,
) -> anyhow::Result<(State, T)> {
    tokio::task::spawn_blocking(move || {
        let answer = work(&mut state);
        (state, answer)
    })
    .await
    .context("reading the folders failed")
}

// === impl State ===

impl State {
    /// Reads everything there is.
    fn start(&mut self) -> Batch {
        for root in 0..self.roots.len() {
            self.walk(root, Visit::Routine);
        }
        Batch {
            events: self.files.settle(),
            synced: true,
            report: Some(Arc::new(self.report())),
        }
    }

    /// Does what is due. None where nothing came of it.
    fn catch_up(&mut self) -> Option<Batch> {
        let before = self.report();
        let Due { files, walks } = self.pending.take_due(Instant::now());
        for (root, visit) in walks {
            self.walk(root, visit);
        }
        for (root, path, cause) in files {
            // A root that is away, or just went, is believed as a whole or not at all.
            if self.roots[root].away || !self.is_there(root) {
                self.pending.walk(root, Instant::now());
                continue;
            }
            self.refresh(root, &path, cause);
        }
        let events = self.files.settle();
        let report = self.report();
        (!events.is_empty() || report != before).then(|| Batch {
            events,
            synced: false,
            report: Some(Arc::new(report)),
        })
    }

    fn is_there(&self, root: Root) -> bool {
        self.roots[root].path.is_dir()
    }

    fn refresh(&mut self, root: Root, path: &Path, cause: Cause) {
        match self.files.refresh(root, path, cause) {
            Outcome::Done => {}
            Outcome::ReadAgain => self.pending.changed(root, path, Instant::now()),
            Outcome::Emptied => self.pending.removed(root, path, Instant::now()),
        }
    }

    /// Looks through a root as a whole, and watches what it finds.
    fn walk(&mut self, root: Root, visit: Visit) {
        let path = self.roots[root].path.clone();
        self.watches.begin();
        let mut watch_error = None;
        let walk = {
            let watches = &mut self.watches;
            Walk::of(&path, &mut |directory| {
                if let Err(error) = watches.add(root, directory, Role::Inside) {
                    watch_error.get_or_insert((directory.to_owned(), error));
                }
            })
        };
        let walk = match walk {
            Ok(walk) => walk,
            Err(error) => {
                self.gone(root, &error);
                return;
            }
        };
        for outside in &walk.outside {
            if let Err(error) = self.watches.add(root, outside, Role::Outside) {
                watch_error.get_or_insert((outside.clone(), error));
            }
        }
        self.watches.end(root);

        let had_files = self.files.of_root(root).next().is_some();
        if self.roots[root].away && walk.files.is_empty() && had_files {
            let message =
                "is back but empty; what it held before stays in force until a file appears";
            self.roots[root].set_trouble(message.to_owned());
            return;
        }
        if self.roots[root].away && had_files && visit == Visit::Routine {
            self.pending.settle(root, Instant::now());
            return;
        }
        self.roots[root].away = false;
        self.roots[root].trouble = None;
        if let Some((directory, error)) = watch_error {
            let message = format!("changes in {} go unnoticed: {error}", directory.display());
            self.roots[root].set_trouble(message);
        } else if let Some((directory, reason)) = walk.unreadable.first() {
            let message = format!("{} can't be listed: {reason}", directory.display());
            self.roots[root].set_trouble(message);
        }

        let now = Instant::now();
        let missing: Vec<PathBuf> = self
            .files
            .of_root(root)
            .filter(|known| !walk.files.contains_key(*known))
            .filter(|known| {
                !walk
                    .unreadable
                    .iter()
                    .any(|(dir, _)| known.starts_with(dir))
            })
            .map(Path::to_owned)
            .collect();
        for path in missing {
            self.pending.missing(root, &path, now);
        }
        for (path, fingerprint) in &walk.files {
            if !self.files.is_current(root, path, *fingerprint) {
                self.refresh(root, path, Cause::Changed);
            }
        }
    }

    /// The root can't be listed: what it said stays in force, and the nearest directory
    /// above tells when it is back.
    fn gone(&mut self, root: Root, error: &std::io::Error) {
        let path = self.roots[root].path.clone();
        for above in path.ancestors() {
            // Watching the root itself catches permissions that are given back.
            if let Err(error) = self.watches.add(root, above, Role::Above) {
                tracing::warn!(target: "folder", "can't watch {}: {error}", above.display());
                continue;
            }
            if above != path && above.is_dir() {
                break;
            }
        }
        self.watches.end(root);
        if self.roots[root].path.is_dir() && std::fs::read_dir(&path).is_ok() {
            // It came back before the watch was set.
            self.pending.walk(root, Instant::now());
        }
        self.roots[root].away = true;
        let message = format!("can't be read: {error}; what it held before stays in force");
        self.roots[root].set_trouble(message);
    }

    fn report(&self) -> Report {
        Report {
            places: self
                .roots
                .iter()
                .map(|root| Place {
                    name: root.path.to_string_lossy().into(),
                    trouble: root.trouble.clone(),
                })
                .collect(),
            diagnostics: self.files.diagnostics(),
        }
    }
}

// === impl RootFolder ===

impl RootFolder {
    fn set_trouble(&mut self, message: String) {
        if self
            .trouble
            .as_ref()
            .is_some_and(|known| known.message == message)
        {
            return;
        }
        tracing::warn!(target: "folder", "{} {message}", self.path.display());
        self.trouble = Some(Trouble {
            message,
            since: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        });
    }
}

#[cfg(test)]
mod tests;
