//! `weft bookinfo`: one service of the demo application, as its pods run it.

use crate::bookinfo::{self, Service};
use crate::command::{Global, block_on};
use crate::exit::{Exit, OrExit, Result};

const EXAMPLES: &str = "\
Examples:
  weft bookinfo productpage
  weft bookinfo reviews --version v2 --port 9080
";

/// Serve one service of the demo application
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, disable_version_flag = true)]
pub(crate) struct Arguments {
    #[arg(value_enum)]
    service: Service,
    #[arg(long, default_value = "v1")]
    version: String,
    #[arg(long, default_value_t = 9080)]
    port: u16,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        block_on(async {
            bookinfo::serve(self.service, self.version, self.port)
                .await
                .or_exit(Exit::Failed)
        })
    }
}
