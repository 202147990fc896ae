//! `weft get`: shows objects.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft get pods -A
  weft get services -n shop -o wide
  weft get authorizationpolicy allow-web -n shop -o yaml
";

/// Show objects
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The kind: pods, services, deployments, authorizationpolicies, …
    kind: String,
    name: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only those with these labels, as key=value,…
    #[arg(short = 'l', long)]
    selector: Option<String>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
