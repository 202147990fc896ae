//! `weft demo`: a mesh with an application in it.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft demo
";

/// A mesh with an application in it, to look at, until Ctrl-C
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
