//! The authority's files: made once, written whole or not at all, and never guessed at.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use identity::authority::{Signer, SignerError};
use zeroize::Zeroizing;

use super::rotation::{self, Phase, Step};

pub(super) const ROOT: &str = "root-cert.pem";
pub(super) const KEY: &str = "ca-key.pem";
const CERTIFICATE: &str = "ca-cert.pem";
const CHAIN: &str = "cert-chain.pem";

pub(super) const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
pub(super) const ORGANIZATION: &str = "weft";

/// Why there is no authority to start with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{folder} holds {present} but no {missing}: put it back, or empty the folder to begin a new mesh"
    )]
    Incomplete {
        folder: PathBuf,
        present: String,
        missing: String,
    },
    #[error("{path} can't be read: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} can't be written: {error}")]
    Write { path: PathBuf, error: io::Error },
    #[error("the authority in {folder} can't be used: {error}")]
    Unusable { folder: PathBuf, error: SignerError },
    #[error("{step:?} is not the next step of a rotation that is {phase:?}")]
    OutOfTurn { step: Step, phase: Phase },
    #[error(
        "the authority is the operator's own: roots are replaced and certificates revoked where it was made"
    )]
    NotOurs,
}

/// Whether what `folder` holds is an operator's set.
pub(super) fn is_plugged(folder: &Path) -> bool {
    [CERTIFICATE, CHAIN]
        .iter()
        .any(|name| folder.join(name).exists())
}

/// Loads whatever set `folder` holds, and makes a new root if it holds none.
pub(super) fn load_or_create(folder: &Path, now: SystemTime) -> Result<Signer, StoreError> {
    let present = |name| folder.join(name).exists();
    if is_plugged(folder) {
        load_plugged(folder, now)
    } else if present(ROOT) || present(KEY) {
        load_own(folder, now)
    } else {
        create(folder, now)
    }
}

/// Loads an operator's set, which must be complete.
pub(super) fn load_plugged(folder: &Path, now: SystemTime) -> Result<Signer, StoreError> {
    require(folder, &[CERTIFICATE, KEY, ROOT, CHAIN])?;
    signer(folder, CERTIFICATE, CHAIN, now)
}

fn load_own(folder: &Path, now: SystemTime) -> Result<Signer, StoreError> {
    require(folder, &[KEY, ROOT])?;
    let key = folder.join(KEY);
    fs::set_permissions(&key, Permissions::from_mode(0o600))
        .map_err(|error| StoreError::Write { path: key, error })?;
    rotation::load(folder, now).map(|(signer, _)| signer)
}

/// The key is written first: a root without its key could already have been handed out.
fn create(folder: &Path, now: SystemTime) -> Result<Signer, StoreError> {
    let failed = |path: &Path, error| StoreError::Write {
        path: path.to_owned(),
        error,
    };
    let unusable = |error| StoreError::Unusable {
        folder: folder.to_owned(),
        error,
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| failed(folder, error))?;
    let signer = Signer::self_signed(ORGANIZATION, ROOT_LIFETIME, now).map_err(unusable)?;
    let key = signer
        .key()
        .to_pem()
        .map_err(|error| unusable(error.into()))?;
    for (name, content, mode) in [
        (KEY, key.as_slice(), 0o600),
        (ROOT, signer.roots().as_bytes(), 0o644),
    ] {
        write(folder, name, content, mode).map_err(|error| failed(&folder.join(name), error))?;
    }
    tracing::info!(folder = %folder.display(), "made a new root certificate");
    Ok(signer)
}

/// Under a temporary name first, synced before it gets its own: after a crash a file is whole or absent.
pub(super) fn write(folder: &Path, name: &str, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, folder.join(name)))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        // What is left of it is of no use; the error to report is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn require(folder: &Path, names: &[&str]) -> Result<(), StoreError> {
    let (present, missing): (Vec<&str>, Vec<&str>) = names
        .iter()
        .copied()
        .partition(|name| folder.join(name).exists());
    if missing.is_empty() {
        return Ok(());
    }
    Err(StoreError::Incomplete {
        folder: folder.to_owned(),
        present: match present.is_empty() {
            true => "nothing of an authority".to_owned(),
            false => present.join(", "),
        },
        missing: missing.join(", "),
    })
}

fn signer(
    folder: &Path,
    certificate: &str,
    chain: &str,
    now: SystemTime,
) -> Result<Signer, StoreError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).map_err(|error| StoreError::Read { path, error })
    };
    let key = read(KEY).map(Zeroizing::new)?;
    Signer::from_pem(
        &read(certificate)?,
        key.as_bytes(),
        &read(ROOT)?,
        &read(chain)?,
        now,
    )
    .map_err(|error| StoreError::Unusable {
        folder: folder.to_owned(),
        error,
    })
}

#[cfg(test)]
mod tests;
