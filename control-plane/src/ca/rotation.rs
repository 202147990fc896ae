//! Replacing the mesh's own root while it is used: *add* has everybody trust the next root too,
//! *switch* signs with it, *remove* has nobody trust the former. Which step is next is told by
//! the files alone, so that a crash at any moment leaves one of the states in between:
//!
//! ```text
//!           root-cert.pem     ca-key.pem   next-cert.pem   next-key.pem
//! Steady    root              of root      –               –
//! Added     root, next        of root      next            of next
//! Switched  next, root        of next      next            –
//! Steady    next              of next      –               –
//! ```
//! Between two steps every proxy must have got its certificates anew; who drives the steps
//! looks at that. The file of roots changes with each step, which is what tells proxies.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::SystemTime;

use identity::authority::Signer;
use serde::Serialize;
use zeroize::Zeroizing;

use super::store::{KEY, ORGANIZATION, ROOT, ROOT_LIFETIME, StoreError, write};

const NEXT_CERTIFICATE: &str = "next-cert.pem";
const NEXT_KEY: &str = "next-key.pem";

/// Where a rotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// One root, and no rotation.
    Steady,
    /// Two are trusted, the former signs.
    Added,
    /// Two are trusted, the next signs.
    Switched,
}

/// What takes a rotation on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Add,
    Switch,
    Remove,
}

/// The mesh's own authority, whatever a crash has left of a rotation: the roots in the order in
/// which they are published, the signing one first.
pub(super) fn load(folder: &Path, now: SystemTime) -> Result<(Signer, Phase), StoreError> {
    let key = Zeroizing::new(read(folder, KEY)?);
    let published = read(folder, ROOT)?;
    let next = read_if_there(folder, NEXT_CERTIFICATE)?;
    let unusable = |error| StoreError::Unusable {
        folder: folder.to_owned(),
        error,
    };
    let both = format!("{published}{}", next.as_deref().unwrap_or_default());
    let signer = Signer::one_of(&both, key.as_bytes(), now).map_err(unusable)?;
    if signer.roots() != published {
        put(folder, ROOT, signer.roots().as_bytes(), 0o644)?;
    }
    let next_key = read_if_there(folder, NEXT_KEY)?.map(Zeroizing::new);
    // One without the other is the rest of an addition that was never finished.
    let added = next
        .zip(next_key)
        .is_some_and(|(next, key)| Signer::one_of(&next, key.as_bytes(), now).is_ok());
    let phase = match (added, signer.root_count()) {
        (true, _) => Phase::Added,
        (false, 1) => Phase::Steady,
        (false, _) => Phase::Switched,
    };
    Ok((signer, phase))
}

/// Takes a step, which must be the next one; [`load`] then shows its outcome.
pub(super) fn take(folder: &Path, step: Step, now: SystemTime) -> Result<(), StoreError> {
    let (signer, phase) = load(folder, now)?;
    match (step, phase) {
        (Step::Add, Phase::Steady) => add(folder, now),
        (Step::Switch, Phase::Added) => switch(folder),
        (Step::Remove, Phase::Switched) => {
            let own = signer.own_root();
            put(folder, ROOT, own.as_bytes(), 0o644)?;
            let next = folder.join(NEXT_CERTIFICATE);
            fs::remove_file(&next).map_err(|error| StoreError::Write { path: next, error })
        }
        (Step::Add | Step::Switch | Step::Remove, _) => Err(StoreError::OutOfTurn { step, phase }),
    }
}

/// The key first: a root without its key could already have been handed out.
fn add(folder: &Path, now: SystemTime) -> Result<(), StoreError> {
    let unusable = |error| StoreError::Unusable {
        folder: folder.to_owned(),
        error,
    };
    let next = Signer::self_signed(ORGANIZATION, ROOT_LIFETIME, now).map_err(unusable)?;
    let key = next
        .key()
        .to_pem()
        .map_err(|error| unusable(error.into()))?;
    put(folder, NEXT_KEY, &key, 0o600)?;
    put(folder, NEXT_CERTIFICATE, next.roots().as_bytes(), 0o644)
}

/// One rename, so that there is one signer at every moment. The former key is gone with it.
fn switch(folder: &Path) -> Result<(), StoreError> {
    let path = folder.join(KEY);
    fs::rename(folder.join(NEXT_KEY), &path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|error| StoreError::Write { path, error })
}

fn put(folder: &Path, name: &str, content: &[u8], mode: u32) -> Result<(), StoreError> {
    write(folder, name, content, mode).map_err(|error| StoreError::Write {
        path: folder.join(name),
        error,
    })
}

fn read(folder: &Path, name: &str) -> Result<String, StoreError> {
    let path = folder.join(name);
    fs::read_to_string(&path).map_err(|error| StoreError::Read { path, error })
}

fn read_if_there(folder: &Path, name: &str) -> Result<Option<String>, StoreError> {
    match read(folder, name) {
        Err(StoreError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

// === impl Step ===

impl FromStr for Step {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "add" => Ok(Self::Add),
            "switch" => Ok(Self::Switch),
            "remove" => Ok(Self::Remove),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod handshakes;

#[cfg(test)]
mod tests;
