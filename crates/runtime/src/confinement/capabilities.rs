//! Capabilities (capabilities(7)): what root may do, in pieces.

pub use caps::Capability;
use caps::{CapSet, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;

/// Why capabilities could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum CapabilityError {
    #[error("can't forbid new privileges: {0}")]
    NoNewPrivileges(#[from] Errno),
    #[error("can't give up capabilities: {0}")]
    Drop(#[from] caps::errors::CapsError),
}

/// Gives up every capability but those of `kept` that the process has; new ones can't be gained,
/// by running another program either (`PR_SET_NO_NEW_PRIVS`).
///
/// Must be called while the process has one thread: capabilities are each thread's own.
pub fn keep(kept: &[Capability]) -> Result<(), CapabilityError> {
    prctl::set_no_new_privs()?;
    let kept: CapsHashSet = kept.iter().copied().collect();
    // What may be inherited needs CAP_SETPCAP to change; without new privileges it gives nothing.
    for capability in caps::read(None, CapSet::Bounding)?.difference(&kept) {
        if caps::drop(None, CapSet::Bounding, *capability).is_err() {
            break;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    let held = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = held.intersection(&kept).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}
