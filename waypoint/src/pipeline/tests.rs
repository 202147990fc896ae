//! Whole requests through a pipeline whose upstream is a script.

pub(crate) mod harness;

mod routing;

mod naming;

mod retrying;

mod policies;

mod tokens;

mod streaming;
