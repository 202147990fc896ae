//! The C library's allocator, told to keep what bulk transfers will ask for again.
#![cfg_attr(
    target_env = "gnu",
    expect(unsafe_code, reason = "mallopt and malloc_trim are C functions")
)]

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

/// Another C library's allocator has no such settings.
#[cfg(not(target_env = "gnu"))]
pub fn keep_buffers() {}

/// Another C library's allocator does as it sees fit.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}
