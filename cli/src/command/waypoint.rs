//! `weft waypoint`: shows waypoints, why there are some, and manages those a user asks for.

mod manage;
mod show;
mod why;

use std::process::ExitCode;

use clap::Subcommand;

use crate::command::Global;
pub(crate) use crate::command::waypoint::show::{Waypoint, waypoints};
use crate::exit::Result;

const EXAMPLES: &str = "\
Examples:
  weft waypoint why reviews -n shop
  weft waypoint list -A
  weft waypoint status -n shop
  weft waypoint apply -n shop --enroll-namespace
  weft waypoint delete waypoint -n shop
";

/// Show and manage waypoints
///
/// A waypoint is made where something needs HTTP, and goes with the last reason for it. One
/// that is wanted for other reasons is asked for with a Gateway: `apply` puts it in the folder.
#[derive(Debug, Subcommand)]
#[command(before_help = EXAMPLES)]
pub(crate) enum Command {
    List(show::ListArguments),
    Status(show::StatusArguments),
    Why(why::Arguments),
    Generate(manage::GenerateArguments),
    Apply(manage::ApplyArguments),
    Delete(manage::DeleteArguments),
}

// === impl Command ===

impl Command {
    pub(crate) fn run(self, global: &Global) -> Result<ExitCode> {
        match self {
            Self::List(arguments) => arguments.run(global)?,
            Self::Status(arguments) => return arguments.run(global),
            Self::Why(arguments) => arguments.run(global)?,
            Self::Generate(arguments) => arguments.run(global)?,
            Self::Apply(arguments) => arguments.run(global)?,
            Self::Delete(arguments) => arguments.run(global)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
