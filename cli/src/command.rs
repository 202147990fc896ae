//! What can be typed: the top of the command line, one file per verb.
//!
//! A verb's file holds its arguments, its help text, which begins with examples, and its `run`.
mod apply;
mod bookinfo;
mod completion;
mod delete;
mod demo;
mod down;
mod exec;
mod fetch;
mod get;
mod logs;
mod named_pod;
mod port_forward;
mod run;
mod sandbox;
mod status;
mod trust;
mod up;
mod waypoint;
mod why;
mod ztunnel;
mod ztunnel_config;

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, print, println};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::exit::{self, Exit, Result};
use crate::state::State;
use crate::yaml;

const EXAMPLES: &str = "\
Examples:
  weft demo                                  a mesh with an application in it, to look at
  weft up -f ./objects --detach              the mesh over a folder of YAML
  weft run --name web --port 8080 -- ./web   a process as a pod of the mesh
  weft status                                one screen: what runs, what is captured
  weft down                                  stops it and leaves the machine as it was
";

/// An ambient-mode service mesh on this machine.
#[derive(Debug, Parser)]
#[command(name = "weft", version, before_help = EXAMPLES, after_help = exit::TABLE, propagate_version = true)]
struct Weft {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The state folder [default: /var/lib/weft as root, else ~/.local/state/weft]
    #[arg(
        long,
        global = true,
        env = "WEFT_STATE",
        hide_env_values = true,
        value_name = "FOLDER"
    )]
    pub(crate) state: Option<PathBuf>,
    /// The namespace to work in
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// How to print
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub(crate) output: Output,
    /// No colours; also NO_COLOR, and when not writing to a terminal
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Arguments),
    Down(down::Arguments),
    Apply(apply::Arguments),
    Get(get::Arguments),
    Delete(delete::Arguments),
    Run(run::Arguments),
    Exec(exec::Arguments),
    Logs(logs::Arguments),
    PortForward(port_forward::Arguments),
    Status(status::Arguments),
    #[command(subcommand)]
    Waypoint(waypoint::Command),
    Why(why::Arguments),
    #[command(subcommand)]
    Trust(trust::Command),
    #[command(subcommand)]
    Ztunnel(ztunnel::Command),
    #[command(visible_alias = "zc")]
    ZtunnelConfig(ztunnel_config::Arguments),
    Demo(demo::Arguments),
    Completion(completion::Arguments),
    #[command(hide = true)]
    Bookinfo(bookinfo::Arguments),
    #[command(hide = true)]
    Sandbox(sandbox::Arguments),
    #[command(hide = true)]
    Fetch(fetch::Arguments),
}

/// Parses, runs, and says what went wrong; the library's one entry.
pub fn main() -> ExitCode {
    let weft = match weft()
        .try_get_matches()
        .and_then(|matches| Weft::from_arg_matches(&matches))
    {
        Ok(weft) => weft,
        Err(error) => {
            // Help and version are not failures; everything else clap reports is wrong usage.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            let _ = error.print();
            return ExitCode::from(exit.code());
        }
    };
    if weft.global.no_color {
        anstream::ColorChoice::Never.write_global();
    }
    match weft.command.run(&weft.global) {
        Ok(code) => code,
        Err(failure) => {
            let style = anstyle::AnsiColor::Red.on_default().bold();
            eprintln!("{style}error:{style:#} {:#}", failure.error);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// The whole command line, for parsing and for completion scripts.
pub(crate) fn weft() -> clap::Command {
    Weft::command()
}

/// Runs a command's asynchronous part.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

// === impl Command ===

impl Command {
    fn run(self, global: &Global) -> Result<ExitCode> {
        match self {
            Self::Up(arguments) => arguments.run(global)?,
            Self::Down(arguments) => arguments.run(global)?,
            Self::Apply(arguments) => arguments.run(global)?,
            Self::Get(arguments) => arguments.run(global)?,
            Self::Delete(arguments) => arguments.run(global)?,
            Self::Run(arguments) => arguments.run(global)?,
            Self::Exec(arguments) => return arguments.run(global),
            Self::Logs(arguments) => arguments.run(global)?,
            Self::PortForward(arguments) => arguments.run(global)?,
            Self::Status(arguments) => arguments.run(global)?,
            Self::Waypoint(command) => return command.run(global),
            Self::Why(arguments) => return arguments.run(global),
            Self::Trust(command) => command.run(global)?,
            Self::Ztunnel(command) => command.run(global)?,
            Self::ZtunnelConfig(arguments) => arguments.run(global)?,
            Self::Demo(arguments) => arguments.run(global)?,
            Self::Completion(arguments) => arguments.run(global)?,
            Self::Bookinfo(arguments) => arguments.run(global)?,
            Self::Sandbox(arguments) => arguments.run()?,
            Self::Fetch(arguments) => arguments.run(global)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

// === impl Output ===

impl Output {
    /// Prints a value where it is to be read by programs; whether it was.
    pub(crate) fn print_value(self, value: &impl Serialize) -> Result<bool> {
        match self {
            Self::Json => println!("{}", serde_json::to_string_pretty(value)?),
            Self::Yaml => print!("{}", yaml::to_string(value)?),
            Self::Table | Self::Wide | Self::Name => return Ok(false),
        }
        Ok(true)
    }
}

// === impl Global ===

impl Global {
    pub(crate) fn state(&self) -> Result<State> {
        State::resolve(self.state.as_deref())
    }

    pub(crate) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        weft().debug_assert();
    }

    #[test]
    fn every_help_begins_with_examples() {
        fn check(parent: &clap::Command) {
            for command in parent
                .get_subcommands()
                .filter(|command| !command.is_hide_set())
            {
                let help = command.clone().render_long_help().to_string();
                assert!(
                    help.starts_with("Examples:\n"),
                    "{} {}",
                    parent.get_name(),
                    command.get_name()
                );
                check(command);
            }
        }
        check(&weft());
    }
}
