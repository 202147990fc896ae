//! `weft ztunnel-config`: what a node's ztunnel holds, from its admin port or a saved dump.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::command::{Global, Output, block_on};
use crate::control::Target;
use crate::control::client::Client;
use crate::exit::{Exit, OrExit, Result};
use crate::http;
use crate::table::Table;

const EXAMPLES: &str = "\
Examples:
  weft ztunnel-config workloads
  weft ztunnel-config certificates --node node-2
  weft ztunnel-config connections -o json
  weft ztunnel-config all --node node-1 -o json > dump.json
  weft ztunnel-config policies -f dump.json
";

/// The admin port of every ztunnel, on its node's loopback.
const ADMIN_PORT: u16 = 15000;

/// Show what a node's ztunnel holds
///
/// Without --node, every node's; workloads, services and policies are the same on all of them
/// once they are in sync.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// What to show
    #[arg(value_enum)]
    section: Section,
    /// Of this node's ztunnel
    #[arg(long)]
    node: Option<String>,
    /// From a saved configuration dump
    #[arg(short = 'f', long, conflicts_with = "node")]
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    #[value(aliases = ["workload", "w"])]
    Workloads,
    #[value(aliases = ["service", "svc", "s"])]
    Services,
    #[value(aliases = ["policy", "pol", "p"])]
    Policies,
    #[value(aliases = ["certificate", "certs", "cert"])]
    Certificates,
    #[value(aliases = ["connection", "cons"])]
    Connections,
    All,
}

// === impl Arguments ===

impl Arguments {
    pub(crate) fn run(self, global: &Global) -> Result {
        let dumps = self.dumps(global)?;
        let single = self.file.is_some() || self.node.is_some();
        match global.output {
            Output::Json | Output::Yaml => {
                let mut selected: BTreeMap<_, _> = dumps
                    .into_iter()
                    .map(|(node, dump)| (node, self.section.select(dump, global)))
                    .collect();
                let value = if single {
                    selected
                        .pop_first()
                        .map(|(_, value)| value)
                        .unwrap_or_default()
                } else {
                    json!(selected)
                };
                global.output.print_value(&value)?;
            }
            Output::Table | Output::Wide | Output::Name => {
                for (index, (node, dump)) in dumps.iter().enumerate() {
                    if !single && dumps.len() > 1 {
                        let gap = if index == 0 { "" } else { "\n" };
                        anstream::println!("{gap}{node}:");
                    }
                    self.section.print(dump, global);
                }
            }
        }
        Ok(())
    }

    /// The configuration dumps asked for, by node.
    fn dumps(&self, global: &Global) -> Result<BTreeMap<String, Value>> {
        if let Some(file) = &self.file {
            let bytes = std::fs::read(file)
                .with_context(|| format!("reading {}", file.display()))
                .or_exit(Exit::BadInput)?;
            let dump = serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is not a configuration dump", file.display()))
                .or_exit(Exit::BadInput)?;
            return Ok([(file.display().to_string(), dump)].into());
        }
        let state = global.state()?;
        let nodes = match &self.node {
            Some(node) => vec![node.clone()],
            None => Client::connect(&state)?
                .status()?
                .nodes
                .into_iter()
                .map(|node| node.name)
                .collect(),
        };
        block_on(async {
            let mut dumps = BTreeMap::new();
            for node in nodes {
                let target = Target::Node(node.clone());
                let bytes = http::get_from(&state, target, ADMIN_PORT, "/config_dump").await?;
                let dump = serde_json::from_slice(&bytes)
                    .with_context(|| format!("{node}'s ztunnel sent something else than JSON"))?;
                dumps.insert(node, dump);
            }
            Ok(dumps)
        })
    }
}

// === impl Section ===

impl Section {
    /// The part of a dump that JSON and YAML show.
    fn select(self, mut dump: Value, global: &Global) -> Value {
        let key = match self {
            Self::Workloads => "workloads",
            Self::Services => "services",
            Self::Policies => "policies",
            Self::Certificates => "certificates",
            Self::Connections => "workloadState",
            Self::All => return dump,
        };
        let mut section = dump[key].take();
        if let (Some(rows), Some(namespace)) = (section.as_array_mut(), &global.namespace)
            && self != Self::Certificates
        {
            rows.retain(|row| row["namespace"] == **namespace);
        }
        section
    }

    fn print(self, dump: &Value, global: &Global) {
        match self {
            Self::All => {
                for (index, (title, section)) in [
                    ("workloads", Self::Workloads),
                    ("services", Self::Services),
                    ("policies", Self::Policies),
                    ("certificates", Self::Certificates),
                    ("connections", Self::Connections),
                ]
                .into_iter()
                .enumerate()
                {
                    let gap = if index == 0 { "" } else { "\n" };
                    anstream::println!("{gap}{title}:");
                    section.print(dump, global);
                }
            }
            Self::Connections => anstream::print!("{}", connections(dump)),
            Self::Workloads | Self::Services | Self::Policies | Self::Certificates => {
                let rows = self.select(dump.clone(), global);
                let table = match self {
                    Self::Workloads => workloads(&rows),
                    Self::Services => services(&rows, &dump["ejections"]),
                    Self::Policies => policies(&rows),
                    _ => certificates(&rows),
                };
                anstream::print!("{table}");
            }
        }
    }
}

fn workloads(rows: &Value) -> Table {
    let mut table = Table::new(&[
        "NAMESPACE",
        "POD NAME",
        "ADDRESS",
        "NODE",
        "WAYPOINT",
        "PROTOCOL",
    ]);
    for row in items(rows) {
        table.row([
            text(&row["namespace"]),
            text(&row["name"]),
            joined(&row["workloadIps"]),
            text(&row["node"]),
            waypoint(&row["waypoint"]),
            text(&row["protocol"]),
        ]);
    }
    table.sorted()
}

fn services(rows: &Value, ejections: &Value) -> Table {
    let mut table = Table::new(&[
        "NAMESPACE",
        "SERVICE NAME",
        "SERVICE VIP",
        "WAYPOINT",
        "ENDPOINTS",
    ]);
    for row in items(rows) {
        let endpoints = row["endpoints"].as_object().map_or(0, Map::len);
        let members = row["members"].as_u64().unwrap_or(endpoints as u64);
        let vips: Vec<_> = items(&row["vips"])
            .map(|vip| match vip {
                Value::String(vip) => vip.rsplit('/').next().unwrap_or_default().to_owned(),
                other => text(&other["address"]),
            })
            .collect();
        let key = format!("{}/{}", text(&row["namespace"]), text(&row["hostname"]));
        let ejected: BTreeSet<_> = items(ejections)
            .filter(|one| one["service"] == *key)
            .map(|one| text(&one["workloadUid"]))
            .collect();
        let ejected = match ejected.len() {
            0 => String::new(),
            count => format!(" ({count} ejected)"),
        };
        table.row([
            text(&row["namespace"]),
            text(&row["name"]),
            vips.join(","),
            waypoint(&row["waypoint"]),
            format!("{endpoints}/{members}{ejected}"),
        ]);
    }
    table.sorted()
}

fn policies(rows: &Value) -> Table {
    let mut table = Table::new(&["NAMESPACE", "POLICY NAME", "ACTION", "SCOPE"]);
    for row in items(rows) {
        table.row([
            text(&row["namespace"]),
            text(&row["name"]),
            match row["dryRun"] == true {
                true => format!("{} (dry run)", text(&row["action"])),
                false => text(&row["action"]),
            },
            text(&row["scope"]),
        ]);
    }
    table.sorted()
}

fn certificates(rows: &Value) -> Table {
    let mut table = Table::new(&[
        "CERTIFICATE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ]);
    for row in items(rows) {
        let chains = [("certChain", "Leaf"), ("rootCerts", "Root")];
        let certificates = chains.iter().flat_map(|(key, kind)| {
            items(&row[*key])
                .enumerate()
                .map(|(index, certificate)| match (*kind, index) {
                    ("Leaf", 1..) => ("Intermediate", certificate),
                    _ => (*kind, certificate),
                })
        });
        let mut any = false;
        for (kind, certificate) in certificates {
            any = true;
            let (before, after) = (
                text(&certificate["validFrom"]),
                text(&certificate["expirationTime"]),
            );
            let now = chrono::Utc::now();
            let instant = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
            let valid = instant(&before).is_some_and(|from| from <= now)
                && instant(&after).is_some_and(|until| now < until);
            table.row([
                text(&row["identity"]),
                kind.to_owned(),
                text(&row["state"]),
                valid.to_string(),
                text(&certificate["serialNumber"]),
                after,
                before,
            ]);
        }
        if !any {
            let mut cells = vec![String::new(); 7];
            cells[0] = text(&row["identity"]);
            cells[2] = text(&row["state"]);
            cells[3] = "false".to_owned();
            table.row(cells);
        }
    }
    table
}

fn connections(dump: &Value) -> Table {
    let names: BTreeMap<String, String> = items(&dump["workloads"])
        .filter_map(|row| {
            let name = format!("{}.{}", text(&row["name"]), text(&row["namespace"]));
            Some((row["uid"].as_str()?.to_owned(), name))
        })
        .collect();
    let mut table = Table::new(&[
        "WORKLOAD",
        "DIRECTION",
        "LOCAL",
        "REMOTE",
        "REMOTE TARGET",
        "PROTOCOL",
    ]);
    for (uid, state) in dump["workloadState"].as_object().into_iter().flatten() {
        let workload = state["info"]["name"]
            .as_str()
            .map(|name| format!("{name}.{}", text(&state["info"]["namespace"])))
            .or_else(|| names.get(uid).cloned())
            .unwrap_or_else(|| uid.clone());
        for (key, direction) in [("inbound", "Inbound"), ("outbound", "Outbound")] {
            for connection in items(&state["connections"][key]) {
                let (local, remote, target) = match direction {
                    "Inbound" => ("actualDst", "src", ""),
                    _ => ("src", "actualDst", "originalDst"),
                };
                table.row([
                    workload.clone(),
                    direction.to_owned(),
                    text(&connection[local]),
                    text(&connection[remote]),
                    text(&connection[target]),
                    text(&connection["protocol"]),
                ]);
            }
        }
    }
    table.sorted()
}

fn items(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn joined(value: &Value) -> String {
    items(value).map(text).collect::<Vec<_>>().join(",")
}

fn waypoint(value: &Value) -> String {
    let destination = &value["destination"];
    match (
        destination["hostname"].as_object(),
        destination["address"].as_object(),
    ) {
        (Some(hostname), _) => text(&json!(hostname)["hostname"]),
        (_, Some(address)) => text(&json!(address)["address"]),
        _ => match destination {
            Value::String(text) => text.clone(),
            _ => "None".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_dump_reads_as_istioctl_prints_it() {
        let dump: Value =
            serde_json::from_str(include_str!("ztunnel_config/dump.json")).expect("a dump");
        let printed = [
            workloads(&dump["workloads"]).to_string(),
            services(&dump["services"], &dump["ejections"]).to_string(),
            policies(&dump["policies"]).to_string(),
            connections(&dump).to_string(),
        ]
        .join("\n");
        insta::assert_snapshot!(printed);
    }
}
