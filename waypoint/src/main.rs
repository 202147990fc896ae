//! `waypoint`: reads the configuration and runs the proxy.

use std::process::ExitCode;

use anyhow::Context;
use waypoint::config::Config;
use waypoint::{app, startup};

const HELP: &str = "\
The L7 proxy in front of services of the Weft service mesh.

Examples:
  waypoint           run the proxy (the same as `waypoint proxy`)
  RUST_LOG=debug ACCESS_LOG_ENCODING=JSON waypoint

Usage: waypoint [proxy|version|help]

It is configured by environment variables, among them XDS_ADDRESS, CA_ADDRESS, GATEWAY_NAME,
POD_NAME, POD_NAMESPACE, INSTANCE_IP, PATH_NORMALIZATION, RUST_LOG and LOG_FORMAT.
";

/// The arguments or the configuration are wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["proxy"] => proxy(),
        ["version" | "--version" | "-V"] => {
            println!("waypoint {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            let arguments = arguments.join(" ");
            eprintln!("waypoint: unknown arguments {arguments}\n\n{HELP}");
            ExitCode::from(USAGE)
        }
    }
}

fn proxy() -> ExitCode {
    let config = match Config::read() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("waypoint: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypoint: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    startup::confine()?;
    let _flush = runtime::logs::install(config.log_format, config.log_levels.clone())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        gateway = &*config.proxy.gateway,
        "starting waypoint"
    );
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(app::run(config))
}
