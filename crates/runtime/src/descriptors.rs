//! The limit of file descriptors, and the last of them, which connections leave alone so that
//! people, the control plane and certificates still get through.
//!
//! The kernel always hands out the lowest free number. So a descriptor's number says how many are
//! open at least, and nobody has to count.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::OnceLock;

use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;

/// From which numbers on descriptors are short, and reserved.
static THRESHOLDS: OnceLock<Thresholds> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thresholds {
    /// Nothing more is accepted; what has been may still open what it needs.
    short: u64,
    /// No connection gets any.
    reserved: u64,
}

/// Every connection takes two descriptors: takes as many as the limit allows, and reserves the
/// last of them.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(limit) => {
            let thresholds = THRESHOLDS.get_or_init(|| Thresholds::of(limit));
            tracing::debug!(limit, ?thresholds, "descriptor limit");
        }
        Err(error) => tracing::warn!(%error, "cannot raise the limit of file descriptors"),
    }
}

/// The descriptor, where a connection may have it.
pub fn unreserved<T: AsFd>(descriptor: T) -> io::Result<T> {
    match is_reserved(&descriptor) {
        true => Err(io::Error::other(
            "too many open files: the last descriptors are reserved",
        )),
        false => Ok(descriptor),
    }
}

/// Whether a connection that got this descriptor must do without it.
pub fn is_reserved(descriptor: &impl AsFd) -> bool {
    reaches(descriptor, |thresholds| thresholds.reserved)
}

/// Whether no other should be accepted after this descriptor.
pub fn are_short(descriptor: &impl AsFd) -> bool {
    reaches(descriptor, |thresholds| thresholds.short)
}

/// As [`are_short`], of the number that the next descriptor would have.
pub fn are_short_now() -> bool {
    match nix::fcntl::open("/dev/null", OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(next) => are_short(&next),
        Err(_) => true,
    }
}

fn reaches(descriptor: &impl AsFd, threshold: impl Fn(&Thresholds) -> u64) -> bool {
    THRESHOLDS
        .get()
        .is_some_and(|thresholds| at_least(descriptor.as_fd().as_raw_fd(), threshold(thresholds)))
}

fn at_least(descriptor: RawFd, threshold: u64) -> bool {
    u64::try_from(descriptor).is_ok_and(|number| number >= threshold)
}

impl Thresholds {
    /// An eighth, and no more than the process itself could ever want, twice.
    fn of(limit: u64) -> Self {
        let reserve = (limit / 8).min(64);
        Self {
            short: limit - 2 * reserve,
            reserved: limit - reserve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_reserved() {
        for (limit, short, reserved) in [
            (128, 96, 112),
            (1024, 896, 960),
            (1 << 20, 1048448, 1048512),
        ] {
            assert_eq!(Thresholds::of(limit), Thresholds { short, reserved });
        }
        assert!(at_least(112, 112) && !at_least(111, 112) && !at_least(-1, 112));
    }
}
