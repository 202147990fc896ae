//! `weft fetch`: one HTTP request, as the demo's pods make it.

use axum::http::Method;

use crate::bookinfo;
use crate::command::{Global, block_on};
use crate::exit::{Exit, OrExit, Result};

const EXAMPLES: &str = "\
Examples:
  weft fetch http://productpage:9080/productpage
  weft fetch -X DELETE http://reviews:9080/reviews/0
";

/// Ask a URL and print the JSON it answers with
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    url: String,
    /// The method of the request
    #[arg(short = 'X', long, default_value_t = Method::GET)]
    method: Method,
}

impl Arguments {
    pub(crate) fn run(self, _global: &Global) -> Result {
        let answer = block_on(async {
            bookinfo::ask(self.method, &self.url)
                .await
                .map_err(anyhow::Error::msg)
                .or_exit(Exit::Failed)
        })?;
        anstream::println!("{answer}");
        Ok(())
    }
}
