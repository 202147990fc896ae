//! `weft ztunnel`: replaces the nodes' tunnels while they are used.

use std::path::PathBuf;

use clap::Subcommand;

use crate::command::{Global, Output};
use crate::control::client::{Client, unexpected};
use crate::control::{Reply, Request, Upgraded};
use crate::exit::{Exit, Result};

const EXAMPLES: &str = "\
Examples:
  weft ztunnel upgrade
  weft ztunnel upgrade --node node-1 ./target/release/ztunnel
";

/// Replace the nodes' tunnels
#[derive(Debug, Subcommand)]
#[command(before_help = EXAMPLES)]
pub(crate) enum Command {
    Upgrade(UpgradeArguments),
}

/// Put another ztunnel in the place of the one that runs, without losing a connection
///
/// The new process gets the listening sockets of the former, and takes over once it knows the
/// mesh and has its certificates; connections that are open go on in the former until they end.
/// One that does not get as far changes nothing. Without --node, node after node.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct UpgradeArguments {
    /// On this node only
    #[arg(long)]
    node: Option<String>,
    /// The program to run from here on [default: the one that runs, as it is on the disk now]
    path: Option<PathBuf>,
}

// === impl Command ===

impl Command {
    pub(crate) fn run(self, global: &Global) -> Result {
        match self {
            Self::Upgrade(arguments) => arguments.run(global),
        }
    }
}

// === impl UpgradeArguments ===

impl UpgradeArguments {
    fn run(self, global: &Global) -> Result {
        let program = match &self.path {
            Some(path) => Some(std::path::absolute(path)?),
            None => None,
        };
        if let Some(program) = &program
            && !program.is_file()
        {
            let why = format!("{} is not a program", program.display());
            return Err(Exit::BadInput.because(why));
        }
        let mut client = Client::connect(&global.state()?)?;
        let nodes = match self.node {
            Some(node) => vec![node],
            None => {
                let nodes = client.status()?.nodes.into_iter();
                nodes.map(|node| node.name).collect()
            }
        };
        for node in nodes {
            let request = Request::UpgradeZtunnel {
                node: node.clone(),
                program: program.clone(),
            };
            let upgraded = match client.call(&request, &[])? {
                Reply::Upgraded(upgraded) => upgraded,
                Reply::Failed(why) => {
                    return Err(Exit::Failed.because(format!("{node}: not upgraded: {why}")));
                }
                other => return Err(unexpected(other)),
            };
            match global.output {
                Output::Json => {
                    let line = serde_json::json!({ "node": node, "upgraded": upgraded });
                    anstream::println!("{line}");
                }
                Output::Table | Output::Wide | Output::Yaml | Output::Name => {
                    anstream::println!("{}", told(&node, &upgraded));
                }
            }
        }
        Ok(())
    }
}

fn told(node: &str, upgraded: &Upgraded) -> String {
    let how = match upgraded.handed_over {
        true => "took over from",
        false => "listens in the place of (nothing was handed over)",
    };
    format!(
        "{node}: {} (pid {}) {how} pid {}, {} ms after its start",
        upgraded.version, upgraded.pid, upgraded.former, upgraded.milliseconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_says_whether_sockets_were_handed_over() {
        let mut upgraded = Upgraded {
            pid: 12,
            former: 7,
            version: "ztunnel 0.1.0".into(),
            milliseconds: 320,
            handed_over: true,
        };
        let told_of = |upgraded: &Upgraded| told("node-1", upgraded);
        assert_eq!(
            told_of(&upgraded),
            "node-1: ztunnel 0.1.0 (pid 12) took over from pid 7, 320 ms after its start"
        );
        upgraded.handed_over = false;
        assert!(told_of(&upgraded).contains("nothing was handed over"));
    }
}
