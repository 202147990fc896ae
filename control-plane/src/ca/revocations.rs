//! What has been taken back: a file of lists beside the key, one for each root that has signed any. It is
//! there from the start, so that proxies can follow it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use identity::authority::Signer;
use identity::serial::Serial;

use super::store::{ROOT_LIFETIME, StoreError, write};

const LISTS: &str = "crl.pem";

/// Makes the file with an empty list, where there is none.
pub(super) fn create_if_missing(
    folder: &Path,
    signer: &Signer,
    now: SystemTime,
) -> Result<(), StoreError> {
    match folder.join(LISTS).exists() {
        true => Ok(()),
        false => add(folder, signer, &[], now),
    }
}

/// Takes certificates back, besides those that are already.
pub(super) fn add(
    folder: &Path,
    signer: &Signer,
    revoked: &[Serial],
    now: SystemTime,
) -> Result<(), StoreError> {
    let path = folder.join(LISTS);
    let lists = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(StoreError::Read { path, error }),
        Ok(lists) => lists,
    };
    let lists = signer
        .revoke(&lists, revoked, ROOT_LIFETIME, now)
        .map_err(|error| StoreError::Unusable {
            folder: folder.to_owned(),
            error,
        })?;
    write(folder, LISTS, lists.as_bytes(), 0o644).map_err(|error| StoreError::Write { path, error })
}

#[cfg(test)]
mod tests {
    use identity::revocation::RevocationLists;

    use super::super::{Authority, Step};
    use super::*;

    #[test]
    fn what_is_revoked_stays_so_over_restarts_and_another_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let lists = || {
            let lists = fs::read_to_string(folder.path().join(LISTS)).expect("lists");
            RevocationLists::from_pem(&lists).expect("readable");
            lists
        };
        let revoke = |authority: &Authority, serial: &str| {
            let serial = serial.parse().expect("a number");
            authority.revoke(&[serial]).expect("revoked");
        };
        let authority = Authority::load_or_create(folder.path()).expect("made");
        let empty = lists();
        revoke(&authority, "1234567890");
        let one = lists();
        assert!(one.len() > empty.len(), "{one}");
        for step in [Step::Add, Step::Switch, Step::Remove] {
            authority.rotate(step).expect("taken");
        }
        drop(authority);
        let authority = Authority::load_or_create(folder.path()).expect("loaded");
        assert_eq!(lists(), one);
        revoke(&authority, "9876543210");
        assert!(
            lists().trim_end().ends_with(one.trim_end()),
            "the former root keeps its own"
        );
    }

    #[test]
    fn what_an_operators_authority_has_signed_is_not_ours_to_revoke() {
        let year = std::time::Duration::from_secs(365 * 86_400);
        let signer = Signer::self_signed("test", year, SystemTime::now()).expect("a root");
        let refused = Authority::new(signer).revoke(&[]);
        assert!(matches!(refused, Err(StoreError::NotOurs)));
    }
}
