//! `bench`: what the mesh costs, as ratios to plain TCP between the same pods in the same run.

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tests::bench::client::{self, Load};
use tests::bench::{http, report, server};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only the loads whose name has this in it.
    #[arg(long)]
    only: Option<String>,
    /// Runs of each load on each path; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
}

#[derive(Subcommand)]
enum Command {
    /// The server, in a pod.
    Serve,
    /// HTTP through a waypoint, ours and Envoy's, instead of TCP through the mesh.
    Http,
    /// The HTTP server, in a pod.
    ServeHttp,
    /// One run of one load of HTTP, in a pod; prints its figures as JSON.
    ClientHttp(http::client::Arguments),
    /// One run of one load, in a pod; prints its figures as JSON.
    Client {
        load: Load,
        host: String,
        #[arg(long, default_value_t = 1)]
        connections: usize,
        #[arg(long, default_value_t = 64)]
        size: usize,
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments.command {
        None => report::run(
            arguments.only.as_deref(),
            arguments.rounds,
            arguments.seconds,
        ),
        Some(Command::Http) => http::report::run(
            arguments.only.as_deref(),
            arguments.rounds,
            arguments.seconds,
        ),
        Some(Command::ServeHttp) => runtime.block_on(http::server::run()),
        Some(Command::ClientHttp(load)) => {
            let measured = runtime.block_on(http::client::run(&load))?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
        Some(Command::Serve) => runtime.block_on(server::run()),
        Some(Command::Client {
            load,
            host,
            connections,
            size,
            seconds,
        }) => {
            let duration = Duration::from_secs_f64(seconds);
            let measured =
                runtime.block_on(client::run(load, &host, connections, size, duration))?;
            println!("{}", serde_json::to_string(&measured)?);
            Ok(())
        }
    }
}
