//! Runs a check over a committed corpus, as the fuzzers of every crate need it.

use std::fs;
use std::path::Path;

/// Fewer than these are not what is committed.
const SEEDS: usize = 15;

/// Checks every file of `fuzz/corpus/TARGET` in the crate at `root`, and what is left of each when it breaks off.
#[track_caller]
pub(crate) fn replay(root: &str, target: &str, check: fn(&[u8])) {
    let folder = Path::new(root).join("fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("a committed corpus") {
        let path = entry.expect("a readable folder").path();
        let input = fs::read(&path).expect("a readable file");
        let checked = std::panic::catch_unwind(|| {
            check(&input);
            // Whatever breaks off must not panic either.
            (0..input.len())
                .step_by(input.len() / 64 + 1)
                .for_each(|end| check(&input[..end]));
        });
        assert!(checked.is_ok(), "{}", path.display());
        replayed += 1;
    }
    assert!(
        replayed >= SEEDS,
        "{} has {replayed} files",
        folder.display()
    );
}
