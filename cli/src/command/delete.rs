//! `weft delete`: takes objects out of the folder.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft delete -f policy.yaml
  weft delete pod web -n shop
  weft delete authorizationpolicy allow-web -n shop
";

/// Delete objects of the folder
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The kind, when no file is given
    kind: Option<String>,
    name: Option<String>,
    /// The objects in this file or folder
    #[arg(short = 'f', long = "filename", value_name = "FILE", conflicts_with_all = ["kind", "name"])]
    files: Vec<std::path::PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
