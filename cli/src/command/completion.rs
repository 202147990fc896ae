//! `weft completion`: completion scripts.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  source <(weft completion bash)
  weft completion zsh > ~/.zfunc/_weft
";

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
