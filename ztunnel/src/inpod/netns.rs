//! Which network namespace a descriptor names.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::proxy::netns;

/// The same for every descriptor of one namespace, for as long as the namespace exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

/// Checks that a descriptor is a network namespace's, by a short visit, and says which.
pub(super) fn identify(fd: OwnedFd) -> io::Result<(Arc<OwnedFd>, NetnsId)> {
    let file = File::from(fd);
    let metadata = file.metadata()?;
    let id = NetnsId {
        device: metadata.dev(),
        inode: metadata.ino(),
    };
    let fd = OwnedFd::from(file);
    // The kernel lets nobody enter anything else this way.
    netns::within(Some(&fd), || Ok(()))?;
    Ok((Arc::new(fd), id))
}

#[cfg(test)]
impl NetnsId {
    pub(super) fn for_tests(inode: u64) -> Self {
        Self { device: 0, inode }
    }
}
