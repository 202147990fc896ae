//! `weft exec`: runs a command inside a pod.
use std::process::ExitCode;

use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft exec web -n shop -- curl -s http://reviews:9080/
  weft exec -t web -- bash
  weft exec node/node-1 -- nft list ruleset
  weft exec switch -- tcpdump -ni weft0
";

/// Run a command inside a pod; or, to look at the mesh itself, inside node/NAME or switch
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A pod, node/NAME, switch or control-plane
    target: String,
    /// The container whose environment and folder to use [default: the first]
    #[arg(short, long)]
    container: Option<String>,
    /// Pass standard input (always done; here for kubectl's users)
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    tty: bool,
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result<ExitCode> {
        Err(Exit::Failed.because("not there yet"))
    }
}
