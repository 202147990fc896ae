//! `weft logs`: what a pod or a piece of the mesh wrote.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft logs web -n shop
  weft logs web -f --tail 20
  weft logs control-plane
  weft logs ztunnel/node-1 -f
";

/// Show what a pod or a piece of the mesh wrote
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A pod, control-plane, ztunnel/NODE or machine
    target: String,
    /// Only this container's lines
    #[arg(short, long)]
    container: Option<String>,
    /// Keep showing what is added
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
