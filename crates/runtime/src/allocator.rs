//! The C library's allocator, told to keep what bulk transfers will ask for again.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "mallopt and its kind are C functions")
)]

use std::time::Duration;

use tokio::time;

use crate::memory::cgroup;

/// What has been free at two looks is not about to be used again.
const LOOK: Duration = Duration::from_secs(5);

/// And is worth giving back from this many bytes on.
const UNUSED: u64 = 1 << 20;
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
    let mut least = unused().unwrap_or_default();
    let mut before = least;
    loop {
        time::sleep(LOOK).await;
        let Some(mut now) = unused() else {
            return;
        };
        if now.min(before) > least + UNUSED {
            give_back();
            now = unused().unwrap_or(now);
            least = now;
        }
        least = least.min(now);
        before = now;
    }
}

/// Bytes of this process's memory that hold nothing of the allocator's users. Most is the program
/// itself.
fn unused() -> Option<u64> {
    Some(cgroup::resident()?.saturating_sub(used()?))
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
