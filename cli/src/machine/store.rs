//! `run/cluster`: what Kubernetes would know, one object per file, for the control plane to read.
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use istio_compat::object::{Document, Resource};

use super::file;

pub(crate) struct Store {
    folder: PathBuf,
    /// What each file says.
    written: BTreeMap<String, Vec<u8>>,
}

// === impl Store ===

impl Store {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            written: BTreeMap::new(),
        }
    }

    /// Does nothing when the file says so already. A failed write is tried again with the next call.
    pub(crate) fn put<T: Resource>(&mut self, object: &T) -> anyhow::Result<()> {
        let name = file_name(object);
        let content = serde_json::to_vec(&Document::new(object))?;
        if self.written.get(&name) == Some(&content) {
            return Ok(());
        }
        let path = self.folder.join(&name);
        file::write(&path, &content)?;
        self.written.insert(name, content);
        Ok(())
    }

    pub(crate) fn remove<T: Resource>(&mut self, object: &T) {
        let name = file_name(object);
        let _ = std::fs::remove_file(self.folder.join(&name));
        self.written.remove(&name);
    }

    /// Removes the objects of a kind that aren't wanted any more.
    pub(crate) fn retain<T: Resource>(&mut self, wanted: &[T]) {
        let prefix = format!("{}.", T::KIND.name());
        let wanted: BTreeSet<_> = wanted.iter().map(file_name).collect();
        self.written.retain(|name, _| {
            let keep = !name.starts_with(&prefix) || wanted.contains(name);
            if !keep {
                let _ = std::fs::remove_file(self.folder.join(name));
            }
            keep
        });
    }
}

fn file_name<T: Resource>(object: &T) -> String {
    let metadata = object.metadata();
    let kind = T::KIND.name();
    if metadata.namespace.is_empty() {
        format!("{kind}.{}.json", metadata.name)
    } else {
        format!("{kind}.{}.{}.json", metadata.namespace, metadata.name)
    }
}
