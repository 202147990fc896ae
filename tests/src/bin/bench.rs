//! `bench`: what the mesh costs, as ratios to plain TCP between the same pods in the same run.

use std::future::Future;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use serde::Serialize;
use tests::bench::{apply, client, http, report, server, tunnel};
use tokio::task::LocalSet;

/// What the mesh costs, as ratios to plain TCP between the same pods in the same run
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Bench {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    report: report::Arguments,
}

#[derive(Subcommand)]
enum Command {
    /// How long a route takes to be in force.
    Apply {
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// The server, in a pod.
    Serve,
    /// A server that takes one connection a tunnel, in a pod outside the mesh.
    ServeTunnels {
        namespace: String,
        /// The folder of the mesh's authority.
        #[arg(long)]
        authority: PathBuf,
    },
    /// One run of one load, in a pod; prints its figures as JSON.
    Client(client::Arguments),
    /// Connections that are opened and left alone until standard input ends, in a pod.
    Idle {
        host: String,
        #[arg(long)]
        connections: usize,
    },
    /// What a server says to whoever connects.
    Count { host: String, port: u16 },
    /// HTTP through a waypoint, ours and Envoy's, instead of TCP through the mesh.
    Http {
        /// Only the loads whose name has this in it.
        #[arg(long)]
        only: Option<String>,
        /// Runs of each load on each path; the median counts.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Seconds of each run.
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
    },
    /// The HTTP server, in a pod.
    ServeHttp,
    /// One run of one load of HTTP, in a pod; prints its figures as JSON.
    ClientHttp(http::client::Arguments),
}

fn main() -> Result<()> {
    let bench = Bench::parse();
    match bench.command {
        None => report::run(&bench.report),
        Some(Command::Apply { rounds }) => apply::run(rounds),
        Some(Command::Serve) => block_on(server::run()),
        Some(Command::ServeTunnels {
            namespace,
            authority,
        }) => block_on(tunnel::serve(&authority, &namespace)),
        Some(Command::Client(load)) => print(&block_on(client::run(&load))?),
        Some(Command::Idle { host, connections }) => block_on(client::idle(&host, connections)),
        Some(Command::Count { host, port }) => {
            println!("{}", block_on(tunnel::count(&host, port))?);
            Ok(())
        }
        Some(Command::Http {
            only,
            rounds,
            seconds,
        }) => http::report::run(only.as_deref(), rounds, seconds),
        Some(Command::ServeHttp) => block_on(http::server::run()),
        Some(Command::ClientHttp(load)) => print(&block_on(http::client::run(&load))?),
    }
}

/// On one thread: neither end of a path may take the cores the mesh needs.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, future)
}

fn print(figures: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(figures)?);
    Ok(())
}
