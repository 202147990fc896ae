//! The allocator of every program: jemalloc, and when freed memory goes back to the kernel. BoringSSL,
//! which is C, has its little from the C library.
//!
//! What a burst of connections took is free in a moment, and the threads that have freed it are
//! idle then. jemalloc tidies up while it is asked for memory: until then each thread's cache would
//! hold some freed bytes on each of many pages, and all of these stay. So every thread tidies up
//! now and then: see [`tidy_up`].
#![cfg_attr(
    not(fuzzing),
    expect(unsafe_code, reason = "jemalloc and its settings are C's")
)]

use std::time::Duration;

use tokio::time;

/// How often a thread tidies up.
const TIDY: Duration = Duration::from_secs(2);

/// Gives back what this thread's cache holds, again and again, and of all free pages those that have
/// been free for some seconds. To be run on each thread that lives as long as the process.
pub async fn tidy_up() {
    loop {
        time::sleep(TIDY).await;
        jemalloc::flush_cache();
        jemalloc::decay();
    }
}

/// Gives all free pages back to the kernel: after something large that won't come again soon,
/// such as reading the whole mesh. Takes milliseconds.
pub fn give_back() {
    jemalloc::flush_cache();
    jemalloc::purge();
}

#[cfg(not(fuzzing))]
mod jemalloc {
    use std::ffi::CStr;
    use std::ptr::null_mut;

    use tikv_jemallocator::Jemalloc;

    #[global_allocator]
    static ALLOCATOR: Jemalloc = Jemalloc;

    /// Read by jemalloc before anything else runs. Freed pages are kept for five seconds, for bulk
    /// would fault each of them in again and again; and none is a huge one, of which a few
    /// connections would keep all.
    #[unsafe(export_name = "_rjem_malloc_conf")]
    static SETTINGS: &[u8; 30] = b"dirty_decay_ms:5000,thp:never\0";

    pub(super) fn flush_cache() {
        command(c"thread.tcache.flush");
    }

    // The number stands for all arenas.

    pub(super) fn decay() {
        command(c"arena.4096.decay");
    }

    pub(super) fn purge() {
        command(c"arena.4096.purge");
    }

    fn command(name: &CStr) {
        // SAFETY: the name ends, and a command neither takes nor returns anything.
        let failed = unsafe {
            tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0)
        };
        debug_assert_eq!(failed, 0, "{name:?}");
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
}

/// A fuzzer looks over every allocation itself.
#[cfg(fuzzing)]
mod jemalloc {
    pub(super) fn flush_cache() {}
    pub(super) fn decay() {}
    pub(super) fn purge() {}
}
