//! `weft port-forward`: a local port that leads into the mesh.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft port-forward web 8080:80 -n shop
  weft port-forward svc/reviews 9080
  weft port-forward node/node-1 15000
";

/// Make a local port lead to a pod, a service or a node
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A pod, svc/NAME or node/NAME
    target: String,
    /// LOCAL:REMOTE, or one number for both; may be given more than once
    #[arg(required = true, value_name = "PORTS")]
    ports: Vec<String>,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: std::net::IpAddr,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
