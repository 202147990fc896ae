//! `ztunnel`: reads the configuration and runs the tunnel.

use std::process::ExitCode;

use anyhow::Context;
use ztunnel::config::Config;
use ztunnel::handover::upgrade;
use ztunnel::{app, startup};

const HELP: &str = "\
The node's zero-trust tunnel of the Weft service mesh.

Examples:
  ztunnel            run the tunnel (the same as `ztunnel proxy`)
  RUST_LOG=info,access=off ztunnel proxy
  PROXY_MODE=dedicated PROXY_WORKLOAD_INFO=shop/web-0/web ztunnel
  ztunnel upgrade    start the program that is installed now, and have the running one hand
                     everything over to it

Usage: ztunnel [proxy|upgrade|version|help]

It is configured by the environment variables of Istio's ztunnel, among them XDS_ADDRESS,
CA_ADDRESS, NODE_NAME, INPOD_UDS, PROXY_MODE, RUST_LOG and LOG_FORMAT.
";

/// The arguments or the configuration are wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // Istio's DaemonSet names what is run, as its other proxies need.
        [] | ["proxy"] | ["proxy", "ztunnel"] => proxy(),
        ["upgrade"] => upgrade(),
        ["version" | "--version" | "-V"] => {
            println!("ztunnel {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "ztunnel: unknown arguments {}\n\n{HELP}",
                arguments.join(" ")
            );
            ExitCode::from(USAGE)
        }
    }
}

fn proxy() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("ztunnel: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ztunnel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// For a service manager's reload: its exit code says whether a new process serves.
fn upgrade() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("ztunnel: {error}");
            return ExitCode::from(USAGE);
        }
    };
    let path = config.handover_uds.as_deref();
    let path = path.context("there is no handover (ZTUNNEL_HANDOVER_UDS)");
    let asked = path.and_then(upgrade::run);
    match asked {
        Ok(pid) => {
            println!("ztunnel: process {pid} serves now");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ztunnel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    startup::confine(&config)?;
    let _flush = runtime::logs::install(config.log_format, config.log_levels.clone())?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting ztunnel");
    for oddity in &config.oddities {
        tracing::warn!(oddity, "a setting is not understood and ignored");
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(app::run(config))
}
