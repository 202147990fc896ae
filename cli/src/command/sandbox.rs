//! The hidden `weft sandbox`: the first process of a pod, started by the machine alone.
use crate::exit::Result;

/// The first process of a pod
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self) -> Result {
        Ok(crate::machine::sandbox::main()?)
    }
}
