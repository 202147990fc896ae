//! `weft completion`: completion scripts.

use crate::command::{Global, weft};
use crate::exit::Result;

const EXAMPLES: &str = "\
Examples:
  source <(weft completion bash)
  weft completion zsh > ~/.zfunc/_weft
  weft completion fish > ~/.config/fish/completions/weft.fish
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
        clap_complete::generate(self.shell, &mut weft(), "weft", &mut std::io::stdout());
        Ok(())
    }
}
