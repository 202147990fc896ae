//! The limit of file descriptors.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Every connection takes two descriptors: takes as many as the limit allows.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(hard)
    });
    match raised {
        Ok(limit) => tracing::debug!(limit, "descriptor limit"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of file descriptors"),
    }
}
