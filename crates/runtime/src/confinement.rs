//! What a program gives up for good, so that whoever takes it over gains little by it.
//!
//! - [`capabilities`]: all but those that its work needs
//! - [`system_calls`]: all but those that its work needs (seccomp)
//!
//! Each step says what failed; none is skipped in silence.

pub mod capabilities;
pub mod system_calls;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Keeps keys out of core dumps, and other processes of the same user out of this one's memory.
///
/// The process is no longer dumpable (`PR_SET_DUMPABLE`, prctl(2)) and its limit of core files is
/// 0. Needs no privilege.
pub fn without_core_dumps() -> Result<(), Errno> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}
