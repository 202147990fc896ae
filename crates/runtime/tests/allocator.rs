//! jemalloc as programs have it: linked from another crate. Memory is the whole process's, so this is
//! the only test of its process.
#![expect(unsafe_code, reason = "jemalloc is C's")]

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{from_mut, null_mut};
use std::time::Duration;

use runtime::allocator;
use runtime::memory::cgroup::resident;
use tokio::time;

/// What is not of a burst: stacks, the test's own lists.
const SMALL: u64 = 2 << 20;
const BURST: usize = 100_000;

/// Pieces of many sizes, all freed again by a thread that has nothing to do afterwards. What it keeps
/// of them holds on to nothing.
fn burst() -> u64 {
    let pieces: Vec<_> = (0..BURST).map(|at| vec![1_u8; 16 + at % 2048]).collect();
    let at_most = resident().expect("known");
    drop(pieces);
    at_most
}

fn setting<T: Copy>(name: &CStr, mut value: T) -> T {
    let mut size = size_of::<T>();
    let place = from_mut(&mut value).cast::<c_void>();
    // SAFETY: both settings are of the size that is said.
    let failed =
        unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), place, &mut size, null_mut(), 0) };
    assert_eq!((failed, size), (0, size_of::<T>()), "{name:?}");
    value
}

#[tokio::test]
async fn what_a_burst_has_freed_goes_back() {
    assert_eq!(setting(c"opt.dirty_decay_ms", 0_isize), 5000);
    let huge_pages: *const c_char = setting(c"opt.thp", c"".as_ptr());
    // SAFETY: jemalloc's texts end, and live for ever.
    assert_eq!(unsafe { CStr::from_ptr(huge_pages) }, c"never");

    burst();
    allocator::give_back();
    let before = resident().expect("known");
    assert!(burst() > before + 20 * SMALL);
    allocator::give_back();
    let after = resident().expect("known");
    assert!(after < before + SMALL, "{after}, and {before} before");

    burst();
    tokio::spawn(allocator::tidy_up());
    let back = async {
        while resident().expect("known") >= before + SMALL {
            time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = time::timeout(Duration::from_secs(60), back).await;
    assert!(waited.is_ok(), "{:?}, and {before} before", resident());
}
