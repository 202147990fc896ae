//! Starts the control plane: arguments, logs, metrics, then [`ControlPlane`].

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use control_plane::config::Args;
use control_plane::failure::{Failure, Kind};
use control_plane::serve::ControlPlane;
use runtime::confinement::capabilities::{self, Capability};
use runtime::confinement::{self, system_calls};
use runtime::logs;
use runtime::metrics::{Metrics, Settings};
use runtime::signals::Shutdown;

/// Series that nobody touched for so long are of proxies and peers that are gone.
const METRICS_IDLE: Duration = Duration::from_secs(3600);

/// The folders are the user's, who need not be the user that it runs as.
const CAPABILITIES: &[Capability] = &[Capability::CAP_DAC_OVERRIDE];

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Nothing is left to do when not even the error can be printed.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
                _ => Kind::Usage.exit_code().into(),
            };
        }
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logs::flush();
            eprintln!("control-plane: {failure}");
            failure.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), Failure> {
    let unavailable = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Unavailable, format!("can't start: {error}"))
    };
    confinement::without_core_dumps().map_err(|error| unavailable(&error))?;
    // While there is one thread: capabilities are each thread's own.
    capabilities::keep(CAPABILITIES).map_err(|error| unavailable(&error))?;
    let levels = args
        .log_level
        .parse()
        .map_err(|error| Failure::new(Kind::Usage, format!("--log-level: {error}")))?;
    let _flush = logs::install(args.log_format, levels).map_err(|error| unavailable(&error))?;
    let metrics = Metrics::install(&Settings {
        component: "pilot",
        version: env!("CARGO_PKG_VERSION"),
        buckets: &[],
        idle: METRICS_IDLE,
    })
    .map_err(|error| unavailable(&error))?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| unavailable(&error))?;
    metrics.add_runtime(runtime.handle());
    let shutdown = Shutdown::new();
    let outcome = runtime.block_on(async {
        tokio::spawn(runtime::allocator::tidy_up());
        let signals = tokio::spawn(shutdown.clone().listen());
        let control_plane = ControlPlane::open(args).await?;
        // Everything is open, and everything to come is done by the threads there are or their
        // successors.
        system_calls::leave_to_control_planes().map_err(|error| unavailable(&error))?;
        let outcome = control_plane.run(Some(metrics), shutdown).await;
        signals.abort();
        outcome
    });
    // A file being read on a slow disk must not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
