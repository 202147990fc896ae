//! `weft apply`: puts objects into the folder.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft apply -f policy.yaml
  weft apply -f ./objects/
  cat web.yaml | weft apply -f -
";

/// Create or change objects of the folder
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A file, a folder, or - for standard input; may be given more than once
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<std::path::PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
