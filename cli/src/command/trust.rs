//! `weft trust`: the mesh's roots, replacing the one that signs while it is used, and revoking certificates.

mod progress;
mod revoke;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::command::{Global, block_on};
use crate::control::Target;
use crate::control::client::Client;
use crate::exit::{Exit, Result};
use crate::http;
use crate::state::State;
use crate::table::Table;

use progress::{Proxy, Roots};
use revoke::RevokeArguments;

const EXAMPLES: &str = "\
Examples:
  weft trust status
  weft trust rotate
  weft trust rotate --step add
  weft trust revoke shop/web
  weft trust revoke --certificate stolen.pem
";

/// The admin port of every proxy.
const ADMIN_PORT: u16 = 15000;
/// Proxies ask for new certificates within seconds of a change.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(300);

/// Show and replace the roots that the mesh trusts, and take certificates back
#[derive(Debug, Subcommand)]
#[command(before_help = EXAMPLES)]
pub(crate) enum Command {
    Status(StatusArguments),
    Rotate(RotateArguments),
    Revoke(RevokeArguments),
}

/// Show the roots, where a rotation is, and which proxies have followed
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct StatusArguments {}

/// Replace the root that signs, while it is used
///
/// In three steps: the next root is trusted besides the one that signs (add), then signs
/// (switch), then the former one is trusted no longer (remove). A step is taken once every proxy
/// has followed the one before, so that no handshake fails. What was interrupted is gone on with.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct RotateArguments {
    /// Only this step, which must be the next
    #[arg(long, value_enum)]
    step: Option<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    Add,
    Switch,
    Remove,
}

/// As the control plane tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Phase {
    Steady,
    Added,
    Switched,
}

#[derive(Debug, Serialize, Deserialize)]
struct Trust {
    phase: Phase,
    /// The signing one first; PEM.
    roots: String,
}

// === impl Command ===

impl Command {
    pub(crate) fn run(self, global: &Global) -> Result {
        let state = global.state()?;
        match self {
            Self::Status(_) => show(&state, global),
            Self::Rotate(arguments) => arguments.run(&state),
            Self::Revoke(arguments) => arguments.run(&state),
        }
    }
}

// === impl RotateArguments ===

impl RotateArguments {
    fn run(self, state: &State) -> Result {
        if let Some(step) = self.step {
            let before = trust(state)?;
            follow(state, &before)?;
            return follow(state, &take(state, step)?);
        }
        let mut trust = trust(state)?;
        let begun = trust.phase != Phase::Steady;
        if begun {
            anstream::println!("going on with the rotation that was begun");
        }
        loop {
            follow(state, &trust)?;
            let step = match trust.phase {
                Phase::Steady => Step::Add,
                Phase::Added => Step::Switch,
                Phase::Switched => Step::Remove,
            };
            trust = take(state, step)?;
            if step == Step::Remove {
                follow(state, &trust)?;
                anstream::println!("the root is replaced");
                return Ok(());
            }
        }
    }
}

fn trust(state: &State) -> Result<Trust> {
    let body = block_on(http::get_from_control_plane(state, "/api/v1/trust"))?;
    Ok(serde_json::from_slice(&body).context("the control plane's answer")?)
}

fn take(state: &State, step: Step) -> Result<Trust> {
    let path = format!("/api/v1/trust/{}", step.name());
    let body = block_on(http::post_to_control_plane(state, &path))?;
    anstream::println!("{}", step.told());
    Ok(serde_json::from_slice(&body).context("the control plane's answer")?)
}

/// Waits until every proxy has certificates that fit what is trusted now.
fn follow(state: &State, trust: &Trust) -> Result {
    let roots = Roots::read(&trust.roots);
    let deadline = Instant::now() + PATIENCE;
    let mut told = None;
    loop {
        let proxies = proxies(state, &roots)?;
        let behind: Vec<_> = proxies.iter().filter(|(_, one)| !one.followed()).collect();
        let done = proxies.len() - behind.len();
        if told != Some(done) {
            anstream::println!("  {done} of {} proxies have followed", proxies.len());
            told = Some(done);
        }
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let names: Vec<_> = behind.iter().map(|(name, _)| name.as_str()).collect();
            return Err(Exit::TryAgain.because(format!(
                "these have not followed within {} s: {}; nothing was lost, go on later with `weft trust rotate`",
                PATIENCE.as_secs(),
                names.join(", ")
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// How far each proxy's certificates are.
fn proxies(state: &State, roots: &Roots) -> Result<BTreeMap<String, Proxy>> {
    let dumps = dumps(state)?.into_iter();
    let proxies = dumps.map(|(name, dump)| {
        // One that does not answer has not followed as far as anybody knows.
        let proxy = dump.map_or_else(Proxy::silent, |dump| Proxy::of(&dump, roots));
        (name, proxy)
    });
    Ok(proxies.collect())
}

/// What proxies know: nodes' tunnels, and waypoints. None of one that does not answer.
fn dumps(state: &State) -> Result<BTreeMap<String, Option<Value>>> {
    let status = Client::connect(state)?.status()?;
    let nodes = status.nodes.into_iter().map(|node| {
        let name = format!("ztunnel/{}", node.name);
        (name, Target::Node(node.name))
    });
    let waypoints = status.pods.into_iter().filter(|pod| pod.waypoint);
    let waypoints = waypoints.map(|pod| {
        let name = format!("waypoint/{}/{}", pod.namespace, pod.name);
        let (namespace, pod) = (pod.namespace, pod.name);
        let target = Target::Pod {
            namespace,
            name: pod,
        };
        (name, target)
    });
    let targets: Vec<_> = nodes.chain(waypoints).collect();
    block_on(async {
        let mut dumps = BTreeMap::new();
        for (name, target) in targets {
            let dump = http::get_from(state, target, ADMIN_PORT, "/config_dump").await;
            let dump = dump.ok();
            dumps.insert(
                name,
                dump.and_then(|body| serde_json::from_slice(&body).ok()),
            );
        }
        Ok(dumps)
    })
}

fn show(state: &State, global: &Global) -> Result {
    let trust = trust(state)?;
    let roots = Roots::read(&trust.roots);
    let proxies = proxies(state, &roots)?;
    let report = serde_json::json!({
        "phase": trust.phase,
        "roots": roots.summaries(),
        "proxies": proxies,
    });
    if global.output.print_value(&report)? {
        return Ok(());
    }
    let mut table = Table::new(&["ROOT", "SIGNS", "NOT AFTER"]);
    for root in roots.summaries() {
        table.row([
            root.serial,
            if root.signs { "yes" } else { "no" }.to_owned(),
            root.not_after,
        ]);
    }
    anstream::print!("{}\n{table}\n", trust.phase.told());
    let mut table = Table::new(&["PROXY", "CERTIFICATES", "TRUST ALL ROOTS", "SIGNED BY IT"]);
    for (name, proxy) in &proxies {
        table.row([
            name.clone(),
            proxy.certificates.to_string(),
            proxy.trusting.to_string(),
            proxy.signed.to_string(),
        ]);
    }
    anstream::print!("{table}");
    Ok(())
}

// === impl Step, Phase ===

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Switch => "switch",
            Self::Remove => "remove",
        }
    }

    fn told(self) -> &'static str {
        match self {
            Self::Add => "added: the next root is trusted too",
            Self::Switch => "switched: the next root signs",
            Self::Remove => "removed: the former root is trusted no longer",
        }
    }
}

impl Phase {
    fn told(self) -> &'static str {
        match self {
            Self::Steady => "No rotation is under way.",
            Self::Added => {
                "A rotation is under way: the next root is trusted, and does not sign yet."
            }
            Self::Switched => {
                "A rotation is under way: the next root signs, the former is still trusted."
            }
        }
    }
}
