//! `weft run`: a process as a pod of the mesh.
use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft run --name web --port 8080 -- ./server --verbose
  weft run --name web -n shop --service-account web --label app=web --port 8080 -- ./server
  weft run --name try --attach -- curl -s http://web.shop/
";

/// Run a process as a pod of the mesh: own namespace, address, identity, DNS, logs
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The pod's name
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Its identity's service account
    #[arg(long, default_value = "default", value_name = "NAME")]
    service_account: String,
    /// A port it serves, as PORT or NAME:PORT; may be given more than once
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,
    /// A label, as key=value; may be given more than once [default: app=NAME]
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// An environment variable, as NAME=VALUE; may be given more than once
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The node to run on
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Follow the logs, and delete the pod on Ctrl-C or when it ends
    #[arg(long)]
    attach: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
