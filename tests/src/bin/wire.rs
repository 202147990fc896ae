//! `wire`: a bad cable between two interfaces of its network namespace.

use std::process::ExitCode;

use clap::Parser;
use tests::wire::forward;

#[derive(Parser)]
struct Arguments {
    first: String,
    second: String,
}

fn main() -> ExitCode {
    let Arguments { first, second } = Arguments::parse();
    match forward::run(&first, &second) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wire: {error:#}");
            ExitCode::FAILURE
        }
    }
}
