//! The C library's allocator, told to keep what bulk transfers will ask for again.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "mallopt and its kind are C functions")
)]

use std::time::Duration;

use tokio::time;

use crate::memory::cgroup;

/// What has been free at two looks is not about to be used again.
const LOOK: Duration = Duration::from_secs(3);

/// And is worth giving back from this many bytes on.
const UNUSED: u64 = 1 << 20;

/// At rest less is reason enough: a little that was used all over a burst's memory has kept many
/// times as much of it from being given back.
const LITTLE: u64 = 64 << 10;

/// Freed bytes each of its arenas keeps.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 8 << 20;
/// From this size on, memory comes from the kernel and goes back there: more than any buffer of a
/// connection.
#[cfg(target_env = "gnu")]
const MAPPED: libc::c_int = 4 << 20;

/// Keeps freed buffers instead of giving them back to the kernel each time, which would fault
/// every page in again. To be called before other threads run.
#[cfg(target_env = "gnu")]
pub fn keep_buffers() {
    // SAFETY: both parameters exist, and a value that is refused changes nothing.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}

/// Gives whole free pages back to the kernel, wherever they are: after something large that
/// won't come again soon, such as reading the whole mesh. Takes milliseconds.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: it touches nothing but memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// BoringSSL's tables of functions name the C++ operator `delete`, which it never calls. Without
/// one here, each process would load the whole C++ library for it: a megabyte.
///
/// # Safety
///
/// `memory` is free()'s: null, or allocated and not freed yet.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
#[unsafe(export_name = "_ZdlPvm")]
unsafe extern "C" fn delete(memory: *mut libc::c_void, _size: usize) {
    // SAFETY: by the contract.
    unsafe { libc::free(memory) }
}

/// Gives back, again and again, what a burst has left behind in the midst of what is used: the
/// allocator by itself only gives back what lies at its end.
pub async fn give_back_unused() {
    let Some(first) = Look::now() else {
        return;
    };
    let mut watch = Watch::since(first);
    loop {
        time::sleep(LOOK).await;
        let Some(now) = Look::now() else {
            return;
        };
        if watch.has_something_to_give_back(now) {
            give_back();
            watch = Watch::since(Look::now().unwrap_or(now));
        }
    }
}

/// What the process has of the kernel, and how much of that its allocator's users have.
#[derive(Clone, Copy, Debug)]
struct Look {
    resident: u64,
    used: u64,
}

/// What has been seen since memory was given back.
#[derive(Debug)]
struct Watch {
    least_unused: u64,
    most_used: u64,
    last: Look,
}

// === impl Look ===

impl Look {
    fn now() -> Option<Self> {
        let (resident, used) = (cgroup::resident()?, used()?);
        Some(Self { resident, used })
    }

    /// Bytes that hold nothing of the allocator's users. Most is the program itself.
    fn unused(self) -> u64 {
        self.resident.saturating_sub(self.used)
    }
}

// === impl Watch ===

impl Watch {
    fn since(look: Look) -> Self {
        Self {
            least_unused: look.unused(),
            most_used: look.used,
            last: look,
        }
    }

    /// Whether more is unused, or less used, than there was, at this look and the one before. The
    /// latter is what is left of a burst in the midst of which memory was given back: pages that
    /// were used in part then, and went on counting as unused, may be whole by now.
    fn has_something_to_give_back(&mut self, now: Look) -> bool {
        let unused = now.unused().min(self.last.unused());
        let used = now.used.max(self.last.used);
        let enough = match now.used.abs_diff(self.last.used) < LITTLE {
            true => LITTLE,
            false => UNUSED,
        };
        let wants = unused > self.least_unused + UNUSED || self.most_used > used + enough;
        self.least_unused = self.least_unused.min(now.unused());
        self.most_used = self.most_used.max(now.used);
        self.last = now;
        wants
    }
}

/// Bytes in use.
#[cfg(target_env = "gnu")]
fn used() -> Option<u64> {
    // SAFETY: it takes nothing and returns numbers.
    let info = unsafe { libc::mallinfo2() };
    u64::try_from(info.uordblks + info.hblkhd).ok()
}

/// Another C library's allocator does not tell.
#[cfg(not(target_env = "gnu"))]
fn used() -> Option<u64> {
    None
}

/// Another C library's allocator has no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn keep_buffers() {}

/// Another C library's allocator does as it sees fit.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Looks of so many mebibytes resident and used, and which of them give back; what is resident
    /// and used after that is the next one.
    fn check(looks: &[(u64, u64, bool)]) {
        let look = |(resident, used, _): (u64, u64, bool)| Look {
            resident: resident * MIB,
            used: used * MIB,
        };
        let mut watch = Watch::since(look(looks[0]));
        let mut given_back = false;
        for (at, one) in looks.iter().enumerate().skip(1) {
            if given_back {
                watch = Watch::since(look(*one));
                given_back = false;
                continue;
            }
            given_back = watch.has_something_to_give_back(look(*one));
            assert_eq!(given_back, one.2, "{at}: {one:?}");
        }
    }

    #[test]
    fn what_is_unused_at_two_looks_is_given_back() {
        check(&[
            (30, 20, false),
            (70, 60, false),
            (70, 20, false),
            (70, 20, true),
            (31, 20, false),
            (31, 20, false),
        ]);
    }

    #[test]
    fn what_is_used_again_at_the_next_look_is_kept() {
        check(&[
            (30, 20, false),
            (70, 60, false),
            (70, 20, false),
            (70, 60, false),
            (70, 20, false),
            (70, 60, false),
        ]);
    }

    #[test]
    fn what_a_burst_leaves_behind_that_was_given_back_of_before_is_given_back() {
        check(&[
            (30, 20, false),
            (70, 60, false),
            (70, 40, false),
            (70, 40, true),
            // Half of it lies among what is used.
            (60, 40, false),
            (40, 20, false),
            (40, 20, true),
        ]);
    }

    #[test]
    fn at_rest_a_little_less_used_is_reason_enough() {
        let look = |kibibytes: u64| Look {
            resident: 40 * MIB,
            used: kibibytes << 10,
        };
        let mut watch = Watch::since(look(21_000));
        for (used, given_back) in [(20_500, false), (20_300, false), (20_300, true)] {
            let wants = watch.has_something_to_give_back(look(used));
            assert_eq!(wants, given_back, "{used}");
        }
    }
}
