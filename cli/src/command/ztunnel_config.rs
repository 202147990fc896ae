//! `weft ztunnel-config`: what a node's ztunnel holds.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft ztunnel-config workloads
  weft ztunnel-config certificates --node node-2
  weft ztunnel-config all -f dump.json -o json
";

/// Show what a node's ztunnel holds
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to show
    section: String,
    /// Of this node's ztunnel
    #[arg(long)]
    node: Option<String>,
    /// From a saved configuration dump
    #[arg(short = 'f', long)]
    file: Option<std::path::PathBuf>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
