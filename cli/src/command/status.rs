//! `weft status`: one screen of what runs.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft status
  weft status -o json
";

/// Show what runs, in one screen
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
