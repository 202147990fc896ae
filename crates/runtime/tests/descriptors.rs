//! The reserve of file descriptors, against the kernel's own limit. The limit and the numbers are
//! the whole process's, so this is the only test of its process.

use std::fs::File;

use nix::sys::resource::{Resource, setrlimit};
use runtime::descriptors::{are_short_now, raise_limit, unreserved};

#[test]
fn connections_get_all_but_what_is_reserved() {
    setrlimit(Resource::RLIMIT_NOFILE, 100, 128).expect("limits itself");
    raise_limit();

    let open = || unreserved(File::open("/dev/null").expect("opens"));
    let held: Vec<_> = std::iter::from_fn(|| open().ok()).collect();
    assert!((96..112).contains(&held.len()), "{}", held.len());
    assert!(open().is_err() && are_short_now());

    drop(held);
    assert!(open().is_ok() && !are_short_now());
}
