//! The raw system calls of this crate, the only place with `unsafe`.
#![expect(
    unsafe_code,
    reason = "taking over descriptors and forking have no safe wrapper"
)]
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Takes over a descriptor just received with `SCM_RIGHTS`.
pub(crate) fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the kernel installed it in our table for us alone; nobody else knows its number.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}
