//! `web`: the tests' web application, both ends of it. The clients print JSON.

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::web::{client, load, raw, server, watch};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says what it was asked, over HTTP/1.1 and HTTP/2.
    Serve {
        /// Name that answers carry.
        #[arg(long, default_value = "web")]
        name: String,
        #[arg(long, default_values_t = [8080])]
        port: Vec<u16>,
    },
    /// One request; prints the answer.
    Ask(client::Arguments),
    /// Sends bytes as they are, each argument (hexadecimal) on a connection of its own; prints a
    /// list of what came back.
    Raw {
        target: String,
        bytes: Vec<String>,
        /// There is an answer on each, however late.
        #[arg(long)]
        answered: bool,
    },
    /// Requests one after another; prints what became of them.
    Load(load::Arguments),
    /// Requests until it is ended; prints a line whenever a header of the answers changes.
    Watch(watch::Arguments),
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match Arguments::parse().command {
        Command::Serve { name, port } => runtime.block_on(server::run(&name, &port)),
        Command::Ask(arguments) => {
            let answer = runtime.block_on(client::ask(&arguments))?;
            println!("{}", serde_json::to_string(&answer)?);
            Ok(())
        }
        Command::Raw {
            target,
            bytes,
            answered,
        } => {
            let answers = runtime.block_on(raw::exchange(&target, &bytes, answered))?;
            println!("{}", serde_json::to_string(&answers)?);
            Ok(())
        }
        Command::Watch(arguments) => runtime.block_on(watch::run(&arguments)),
        Command::Load(arguments) => {
            let report = runtime.block_on(load::run(&arguments))?;
            println!("{}", serde_json::to_string(&report)?);
            Ok(())
        }
    }
}
