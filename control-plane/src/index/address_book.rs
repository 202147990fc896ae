//! The addresses allocated to ServiceEntry hosts, written down so that a host keeps its
//! addresses over restarts and over its object going away for a while.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use istio_compat::kinds::service_entry::{ServiceEntry, ServiceEntryAddress};
use serde::{Deserialize, Serialize};

/// A host of a ServiceEntry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Host {
    namespace: String,
    name: String,
    host: String,
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    host: Host,
    addresses: Vec<IpAddr>,
}

/// What is written down, and where.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    lines: BTreeMap<Host, Vec<IpAddr>>,
    file: Option<PathBuf>,
    unsaved: bool,
}

// === impl AddressBook ===

impl AddressBook {
    /// The book kept in a file. One that can't be read is an error: giving away
    /// addresses that clients still hold would send them to the wrong service.
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        let mut book = Self {
            file: Some(file.to_owned()),
            ..Self::default()
        };
        match fs::read(file) {
            Ok(text) => {
                let lines: Vec<Line> = serde_json::from_slice(&text)?;
                let lines = lines.into_iter().map(|line| (line.host, line.addresses));
                book.lines = lines.collect();
                Ok(book)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(book),
            Err(error) => Err(error),
        }
    }

    /// The entry with the addresses it had, as its status would have them on Kubernetes.
    pub(super) fn recall(&self, entry: &ServiceEntry) -> Option<ServiceEntry> {
        if !entry.status.addresses.is_empty() {
            return None;
        }
        let mut addresses = Vec::new();
        for host in &entry.spec.hosts {
            for ip in self.lines.get(&Host::of(entry, host)).into_iter().flatten() {
                addresses.push(ServiceEntryAddress {
                    value: ip.to_string(),
                    host: host.clone(),
                });
            }
        }
        if addresses.is_empty() {
            return None;
        }
        let mut entry = entry.clone();
        entry.status.addresses = addresses;
        Some(entry)
    }

    /// Notes the addresses of a host.
    pub(super) fn note(&mut self, entry: &ServiceEntry, host: &str, addresses: &[IpAddr]) {
        let host = Host::of(entry, host);
        if self.lines.get(&host).map(Vec::as_slice) != Some(addresses) {
            self.lines.insert(host, addresses.to_vec());
            self.unsaved = true;
        }
    }

    /// Writes the book if it changed. What fails is tried again with the next change.
    pub(super) fn save(&mut self) -> io::Result<()> {
        let (true, Some(file)) = (self.unsaved, &self.file) else {
            return Ok(());
        };
        let lines: Vec<Line> = self
            .lines
            .iter()
            .map(|(host, addresses)| Line {
                host: host.clone(),
                addresses: addresses.clone(),
            })
            .collect();
        let written = file.with_extension("json.new");
        let mut out = File::create(&written)?;
        serde_json::to_writer(&mut out, &lines)?;
        out.flush()?;
        out.sync_all()?;
        fs::rename(&written, file)?;
        self.unsaved = false;
        Ok(())
    }
}

// === impl Host ===

impl Host {
    fn of(entry: &ServiceEntry, host: &str) -> Self {
        Self {
            namespace: entry.metadata.namespace.clone(),
            name: entry.metadata.name.clone(),
            host: host.to_ascii_lowercase(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> ServiceEntry {
        let mut entry = ServiceEntry::default();
        entry.metadata.name = name.to_owned();
        entry.spec.hosts = vec![format!("{name}.example.com")];
        entry
    }

    #[test]
    fn a_host_keeps_its_addresses_over_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("addresses.json");
        let mut book = AddressBook::open(&file).expect("no file is an empty book");
        book.note(&entry("a"), "A.example.com", &[[240, 240, 0, 7].into()]);
        book.save().expect("saves");
        let book = AddressBook::open(&file).expect("opens");
        let recalled = book.recall(&entry("a")).expect("known");
        assert_eq!(recalled.status.addresses[0].value, "240.240.0.7");
        assert_eq!(recalled.status.addresses[0].host, "a.example.com");
        assert_eq!(book.recall(&entry("b")), None);
    }

    #[test]
    fn a_book_that_cannot_be_read_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("addresses.json");
        fs::write(&file, "{").expect("writes");
        assert!(AddressBook::open(&file).is_err());
    }
}
