//! The user's objects: what a folder of YAML holds, and edits that touch one document of it.
//!
//! Edits are made in the text, so that comments and order of everything else in a file stay.

mod documents;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use control_plane::folder;
use control_plane::source::Event;
use istio_compat::diagnostic::Diagnostic;
use istio_compat::kind::Kind;
use istio_compat::object::{Object, ObjectKey};
use istio_compat::parse::{Raw, parse};

use crate::exit::{Exit, OrExit, Result};
use crate::machine::record::Record;
use crate::objects::documents::Documents;
use crate::state::State;

/// The folder of a mesh, running or not.
pub(crate) struct Objects {
    folder: PathBuf,
    /// What the folder says, by key.
    objects: BTreeMap<ObjectKey, Object>,
}

/// What an edit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Configured,
    Unchanged,
}

// === impl Objects ===

impl Objects {
    pub(crate) fn open(state: &State) -> Result<Self> {
        // The one the running mesh watches; the default one where none runs.
        let folder = Record::read(&state.machine_json())
            .map_or_else(|| state.objects(), |record| record.folder);
        if folder == state.objects() {
            std::fs::create_dir_all(&folder)
                .with_context(|| format!("can't make {}", folder.display()))
                .or_exit(Exit::NotPermitted)?;
        }
        Self::read(folder)
    }

    pub(crate) fn read(folder: PathBuf) -> Result<Self> {
        let batch = folder::load(&folder, Raw::Keep).or_exit(Exit::BadInput)?;
        let objects = batch
            .events
            .into_iter()
            .filter_map(|event| match event {
                Event::Applied(object) => Some((object.key(), object)),
                Event::Deleted(_) => None,
            })
            .collect();
        Ok(Self { folder, objects })
    }

    /// The user's objects with what the running mesh made of them: pods of Deployments,
    /// statuses, allocated addresses; and with the control plane's waypoints.
    pub(crate) fn with_cluster(mut self, state: &State) -> Self {
        if let Ok(waypoints) = Self::read(state.waypoints()) {
            for (key, object) in waypoints.objects {
                self.objects.entry(key).or_insert(object);
            }
        }
        if let Ok(cluster) = Self::read(state.cluster()) {
            self.objects.extend(cluster.objects);
        }
        self
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key)
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects
            .values()
            .filter(move |object| object.kind() == kind)
    }

    /// Puts a document in the folder: in place of the object of the same key, or in a file
    /// of its own.
    pub(crate) fn put(&mut self, object: &Object, text: &str) -> Result<Change> {
        let key = object.key();
        let change = match self.objects.get(&key) {
            Some(known) if known.raw == object.raw => return Ok(Change::Unchanged),
            Some(known) => {
                let path = self.path_of(known);
                let mut documents = Documents::read(&path)?;
                documents.replace(known, text)?;
                documents.write()?;
                Change::Configured
            }
            None => {
                documents::write(&self.folder.join(file_name(&key)), text)?;
                Change::Created
            }
        };
        *self = Self::read(self.folder.clone())?;
        Ok(change)
    }

    /// Takes an object out of the folder, and its file with it where nothing else is there.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Result<bool> {
        let Some(known) = self.objects.get(key) else {
            return Ok(false);
        };
        let mut documents = Documents::read(&self.path_of(known))?;
        documents.remove(known)?;
        documents.write()?;
        *self = Self::read(self.folder.clone())?;
        Ok(true)
    }

    fn path_of(&self, object: &Object) -> PathBuf {
        self.folder.join(&*object.origin.file)
    }
}

/// The documents of an input, each with the text it was written in.
pub(crate) struct Input {
    pub(crate) objects: Vec<(Object, String)>,
    pub(crate) warnings: Vec<Diagnostic>,
}

impl Input {
    /// Reads one file; objects without a namespace get `namespace`. Every mistake is reported,
    /// and one is enough for nothing to be taken.
    pub(crate) fn parse(
        name: &str,
        content: &[u8],
        namespace: Option<&str>,
    ) -> std::result::Result<Self, Vec<Diagnostic>> {
        let parsed = parse(name, content, Raw::Keep).map_err(|rejected| rejected.errors)?;
        let text = String::from_utf8_lossy(content);
        let documents = documents::split(&text);
        let mut objects = Vec::new();
        for object in parsed.objects {
            let unnamed = object.kind().is_namespaced()
                && object
                    .raw
                    .as_ref()
                    .is_some_and(|raw| raw["metadata"].get("namespace").is_none());
            match namespace {
                Some(namespace) if unnamed => {
                    let mut raw = object.to_json(&[]);
                    raw["metadata"]["namespace"] = namespace.into();
                    let written = crate::yaml::to_string(&raw).unwrap_or_default();
                    let mut moved = parse(name, written.as_bytes(), Raw::Keep)
                        .map_err(|rejected| rejected.errors)?;
                    objects.extend(moved.objects.pop().map(|object| (object, written)));
                }
                _ => {
                    let written = documents
                        .iter()
                        .filter(|document| document.holds(&object))
                        .map(|document| document.text.trim_matches('\n').to_owned() + "\n")
                        .next()
                        // An item of a List, or JSON: no text of its own.
                        .unwrap_or_else(|| {
                            crate::yaml::to_string(&object.to_json(&[])).unwrap_or_default()
                        });
                    objects.push((object, written));
                }
            }
        }
        Ok(Self {
            objects,
            warnings: parsed.warnings,
        })
    }
}

/// `shop.authorizationpolicy.allow-web.yaml`, `namespace.shop.yaml`.
fn file_name(key: &ObjectKey) -> String {
    let kind = key.kind.name().to_ascii_lowercase();
    match &*key.namespace {
        "" => format!("{kind}.{}.yaml", key.name),
        namespace => format!("{namespace}.{kind}.{}.yaml", key.name),
    }
}

/// `authorizationpolicy.security.istio.io/allow-web`, as kubectl names an object.
pub(crate) fn display_name(key: &ObjectKey) -> String {
    let kind = key.kind.name().to_ascii_lowercase();
    match key.kind.api_version().split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", key.name),
        None => format!("{kind}/{}", key.name),
    }
}

/// The files to read for `-f`: the file itself, or those of a folder, sorted.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files: Vec<_> = std::fs::read_dir(path)
        .with_context(|| format!("reading {}", path.display()))
        .or_exit(Exit::BadInput)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .and_then(|extension| extension.to_str())
                .is_some_and(|extension| ["yaml", "yml", "json"].contains(&extension))
        })
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
