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
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// Checks that a descriptor is a network namespace's, by a short visit, and says which.
pub(super) fn identify(fd: OwnedFd) -> io::Result<(Arc<OwnedFd>, NetnsId)> {
    let id = NetnsId::of(Some(&fd))?;
    // The kernel lets nobody enter anything else this way.
    netns::within(Some(&fd), || Ok(()))?;
    Ok((Arc::new(fd), id))
}

// === impl NetnsId ===

impl NetnsId {
    /// Of a descriptor; of this process's own namespace where there is none.
    pub(crate) fn of(netns: Option<&OwnedFd>) -> io::Result<Self> {
        let file = match netns {
            Some(fd) => File::from(fd.try_clone()?),
            None => File::open("/proc/self/ns/net")?,
        };
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

#[cfg(test)]
impl NetnsId {
    pub(super) fn for_tests(inode: u64) -> Self {
        Self { device: 0, inode }
    }
}
