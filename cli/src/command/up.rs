//! `weft up`: starts the mesh on this machine.
use std::path::PathBuf;

use crate::command::Global;
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft up
  weft up -f ./objects --nodes 3
  weft up --detach && weft status
  weft up --ztunnel ./another/ztunnel
";

/// Start the mesh on this machine
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The folder of YAML, watched [default: objects/ in the state folder]
    #[arg(short = 'f', long = "folder", value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=100), value_name = "N")]
    nodes: u8,
    /// The ztunnel program [default: the one beside weft]
    #[arg(long, value_name = "PATH")]
    ztunnel: Option<PathBuf>,
    /// The control-plane program [default: the one beside weft]
    #[arg(long, value_name = "PATH")]
    control_plane: Option<PathBuf>,
    /// Return when the mesh is ready and leave it running
    #[arg(long)]
    detach: bool,
    /// A folder with ca-cert.pem, ca-key.pem, root-cert.pem and cert-chain.pem to sign with
    #[arg(long, value_name = "FOLDER")]
    cacerts: Option<PathBuf>,
    /// The trust domain of every identity
    #[arg(long, default_value = "cluster.local", value_name = "NAME")]
    trust_domain: String,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        Err(Exit::Failed.because("not there yet"))
    }
}
