//! `weft waypoint list` and `status`: what the control plane knows of waypoints.

use std::process::ExitCode;

use anstream::{eprintln, print, println};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::command::{Global, Output, block_on};
use crate::exit::{Exit, Result};
use crate::http;
use crate::state::State;
use crate::table::Table;

const LIST_EXAMPLES: &str = "\
Examples:
  weft waypoint list
  weft waypoint list -A -o json
";

const STATUS_EXAMPLES: &str = "\
Examples:
  weft waypoint status
  weft waypoint status waypoint -n shop
  weft waypoint status -A -o yaml
";

/// List the waypoints of the running mesh
#[derive(Debug, clap::Args)]
#[command(before_help = LIST_EXAMPLES)]
pub(crate) struct ListArguments {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// Show whether waypoints are ready, and what is bound to them for which reasons
///
/// Exits with 2 where one is not ready.
#[derive(Debug, clap::Args)]
#[command(before_help = STATUS_EXAMPLES)]
pub(crate) struct StatusArguments {
    /// Only this one
    name: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

/// One waypoint, as the control plane tells it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Waypoint {
    pub(crate) namespace: String,
    pub(crate) name: String,
    class: Option<String>,
    exists: bool,
    on_demand: bool,
    traffic_type: Option<String>,
    pub(crate) ready: bool,
    pods: Vec<serde_json::Value>,
    conditions: Vec<serde_json::Value>,
    services: Vec<Bound>,
    workloads: Vec<Bound>,
}

/// A service or workload that is bound to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bound {
    kind: String,
    namespace: String,
    name: String,
    /// Why it can't use the waypoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    reasons: Vec<Reason>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Reason {
    pub(super) object: String,
    pub(super) reason: String,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
}

/// What the control plane answers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WaypointList {
    items: Vec<Waypoint>,
}

/// The waypoints of the running mesh.
pub(crate) fn waypoints(state: &State) -> Result<Vec<Waypoint>> {
    let body = block_on(http::get_from_control_plane(state, "/api/v1/waypoints"))?;
    let list: WaypointList = serde_json::from_slice(&body)?;
    Ok(list.items)
}

fn chosen(global: &Global, all: bool, name: Option<&str>) -> Result<Vec<Waypoint>> {
    let mut waypoints = waypoints(&global.state()?)?;
    waypoints.retain(|one| {
        (all || one.namespace == global.namespace()) && name.is_none_or(|name| one.name == name)
    });
    Ok(waypoints)
}

/// For programs; whether it was asked for.
fn print_value(output: Output, waypoints: &[Waypoint]) -> Result<bool> {
    output.print_value(&json!({
        "apiVersion": "weft.dev/v1",
        "kind": "WaypointList",
        "items": waypoints,
    }))
}

// === impl ListArguments ===

impl ListArguments {
    pub(super) fn run(self, global: &Global) -> Result {
        let waypoints = chosen(global, self.all_namespaces, None)?;
        if print_value(global.output, &waypoints)? {
            return Ok(());
        }
        if global.output == Output::Name {
            for one in &waypoints {
                println!("{}/{}", one.namespace, one.name);
            }
            return Ok(());
        }
        if waypoints.is_empty() {
            eprintln!(
                "There is no waypoint{}.",
                place(global, self.all_namespaces)
            );
            return Ok(());
        }
        let mut table = Table::new(&[
            "NAMESPACE",
            "NAME",
            "MADE",
            "CLASS",
            "TRAFFIC",
            "READY",
            "SERVICES",
            "WORKLOADS",
        ]);
        for one in waypoints {
            table.row([
                one.namespace.clone(),
                one.name.clone(),
                one.made().to_owned(),
                one.class.clone().unwrap_or_default(),
                one.traffic_type.clone().unwrap_or_default(),
                one.readiness(),
                one.services.len().to_string(),
                one.workloads.len().to_string(),
            ]);
        }
        print!("{}", table.sorted());
        Ok(())
    }
}

// === impl StatusArguments ===

impl StatusArguments {
    pub(super) fn run(self, global: &Global) -> Result<ExitCode> {
        let waypoints = chosen(global, self.all_namespaces, self.name.as_deref())?;
        if let (Some(name), true) = (&self.name, waypoints.is_empty()) {
            let place = place(global, self.all_namespaces);
            return Err(Exit::NotFound.because(format!("there is no waypoint {name:?}{place}")));
        }
        if !print_value(global.output, &waypoints)? {
            if waypoints.is_empty() {
                eprintln!(
                    "There is no waypoint{}.",
                    place(global, self.all_namespaces)
                );
            }
            let mut gap = "";
            for one in &waypoints {
                print!("{gap}{}", one.screen());
                gap = "\n";
            }
        }
        Ok(match waypoints.iter().all(|one| one.ready) {
            true => ExitCode::SUCCESS,
            false => ExitCode::from(Exit::Findings.code()),
        })
    }
}

fn place(global: &Global, all: bool) -> String {
    match all {
        true => String::new(),
        false => format!(" in namespace {}", global.namespace()),
    }
}

// === impl Waypoint ===

impl Waypoint {
    fn made(&self) -> &'static str {
        match (self.exists || self.on_demand, self.on_demand) {
            (false, _) => "missing",
            (true, true) => "on demand",
            (true, false) => "by a Gateway",
        }
    }

    /// For a table of waypoints.
    pub(crate) fn cells(&self) -> [String; 5] {
        [
            format!("{}/{}", self.namespace, self.name),
            self.made().to_owned(),
            self.readiness(),
            self.services.len().to_string(),
            self.workloads.len().to_string(),
        ]
    }

    fn readiness(&self) -> String {
        let ready = self.pods.iter().filter(|pod| pod["ready"] == true).count();
        format!("{ready}/{}", self.pods.len())
    }

    fn screen(&self) -> String {
        let bold = anstyle::Style::new().bold();
        let mut out = format!(
            "{bold}Waypoint {}/{}{bold:#}, {}, {} pods ready\n",
            self.namespace,
            self.name,
            self.made(),
            self.readiness(),
        );
        for condition in &self.conditions {
            if condition["status"] != "True" {
                let text = |key: &str| condition[key].as_str().unwrap_or_default();
                out += &format!(
                    "  {}: {}: {}\n",
                    text("type"),
                    text("reason"),
                    text("message")
                );
            }
        }
        let mut table = Table::new(&["BOUND", "BECAUSE", "WHERE"]);
        for bound in self.services.iter().chain(&self.workloads) {
            let mut first = format!("{} {}/{}", bound.kind, bound.namespace, bound.name);
            if let Some(refused) = &bound.refused {
                first += &format!(" (refused: the waypoint {refused})");
            }
            for reason in &bound.reasons {
                table.row([
                    std::mem::replace(&mut first, " ".to_owned()),
                    format!("{} {}", reason.object, reason.reason),
                    reason.place(),
                ]);
            }
        }
        match table.is_empty() {
            true => out += "  Nothing is bound to it.\n",
            false => out += &table.to_string(),
        }
        out
    }
}

// === impl Reason ===

impl Reason {
    pub(super) fn place(&self) -> String {
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            (None, _) => String::new(),
        }
    }
}
