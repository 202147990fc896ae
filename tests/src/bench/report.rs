//! One run of the benchmark: a mesh, every load on every path in turn, a table and JSON of it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::handshake::{self, BothEnds};
use super::load::{LOADS, Load, Run};
use super::memory::{self, Memory};
use super::system::{Reach, System, Ztunnels};
use super::{objects, table};
use crate::lab::Lab;

// No doc comment: clap would take it for the program's description.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Only the loads whose name has this in it; `idle` and `handshakes` are what is no load.
    #[arg(long)]
    only: Option<String>,
    /// Runs of each load on each path; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each run.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Another ztunnel's program, to measure beside ours under the same control plane.
    #[arg(long)]
    ztunnel: Option<PathBuf>,
    /// Also writes every run here.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Connections that are opened and left alone.
    #[arg(long, default_value_t = 10_000)]
    idle: usize,
}

/// Everything measured.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) conditions: Conditions,
    pub(super) loads: Vec<Row>,
    pub(super) handshakes: Vec<OfSystem<Vec<BothEnds>>>,
    pub(super) memory: Vec<OfSystem<Memory>>,
}

/// What figures are worth nothing without.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conditions {
    pub(super) kernel: String,
    pub(super) cores: usize,
    pub(super) congestion_control: String,
    pub(super) rounds: usize,
    pub(super) seconds: f64,
    pub(super) idle_connections: usize,
}

/// A load at one reach, on each system.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    #[serde(rename = "load", serialize_with = "name")]
    pub(super) load: &'static Load,
    pub(super) reach: Reach,
    pub(super) bar: Option<f64>,
    pub(super) systems: Vec<OfSystem<Vec<Run>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfSystem<T> {
    pub(super) system: System,
    pub(super) runs: T,
}

/// Distributions' default; what it is matters less than that all namespaces have the same.
const CONGESTION_CONTROL: &str = "cubic";

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut systems = vec![System::Plain, System::Weft];
    systems.extend(arguments.ztunnel.as_ref().map(|_| System::Other));
    let lab = start(&systems, arguments.ztunnel.as_deref())?;
    let congestion_control = set_congestion_control(&lab, &systems)?;
    let ztunnels = Ztunnels::of(&lab)?;
    let wanted = |name: &str| {
        let only = arguments.only.as_deref();
        only.is_none_or(|only| name.contains(only))
    };
    let mut report = Report {
        conditions: Conditions {
            kernel: lab
                .exec("switch", &["cat", "/proc/sys/kernel/osrelease"])?
                .trim()
                .to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            congestion_control,
            rounds: arguments.rounds,
            seconds: arguments.seconds,
            idle_connections: arguments.idle,
        },
        loads: Vec::new(),
        handshakes: Vec::new(),
        memory: Vec::new(),
    };
    let meshed = || systems.iter().copied().filter(|one| *one != System::Plain);
    if wanted("idle") {
        // Before any load: what loads leave behind is used again.
        for system in meshed() {
            let runs = Memory::measure(&lab, &ztunnels, system, arguments.idle)?;
            report.memory.push(OfSystem { system, runs });
        }
    }
    for reach in Reach::ALL {
        for load in LOADS.iter().filter(|load| wanted(load.name)) {
            let row = measure(&lab, &ztunnels, load, reach, &systems, arguments)?;
            eprintln!("{}", table::line(&row));
            report.loads.push(row);
        }
    }
    if wanted("handshakes") {
        handshake::prepare(&lab, &systems)?;
        for system in meshed() {
            let mut runs = Vec::new();
            for _ in 0..arguments.rounds {
                match handshake::measure(&lab, &ztunnels, system, arguments.seconds) {
                    Ok(run) => runs.push(run),
                    // What another ztunnel can't take costs its own figures only.
                    Err(error) if system == System::Other => {
                        eprintln!("handshakes of {}: {error:#}", system.name());
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            report.handshakes.push(OfSystem { system, runs });
        }
    }
    for OfSystem { system, runs } in &mut report.memory {
        runs.after = memory::resident(&lab, &ztunnels, *system)?;
    }
    print!("{}", table::markdown(&report));
    if let Some(path) = &arguments.json {
        let file = File::create(path).with_context(|| path.display().to_string())?;
        serde_json::to_writer_pretty(file, &report)?;
    }
    Ok(())
}

/// A mesh with the pods of every system; another ztunnel gets nodes of its own.
fn start(systems: &[System], other: Option<&Path>) -> Result<Lab> {
    let mut lab = Lab::stopped()?;
    for system in systems {
        let name = format!("{}.yaml", system.name());
        lab.write(&name, &objects::pods(*system))?;
    }
    let mut arguments = vec!["--nodes".to_owned(), "2".to_owned()];
    if let Some(other) = other {
        "4".clone_into(&mut arguments[1]);
        let program = std::path::absolute(other)?;
        ensure!(program.is_file(), "no program at {}", program.display());
        for node in System::Other.nodes() {
            arguments.extend([
                "--ztunnel".to_owned(),
                format!("{node}={}", program.display()),
            ]);
        }
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    lab.start(&arguments)?;
    Ok(lab)
}

/// Gives every pod the same congestion control, where the host allows it to namespaces; which one
/// the pods then have.
fn set_congestion_control(lab: &Lab, systems: &[System]) -> Result<String> {
    const FILE: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
    let set = format!("echo {CONGESTION_CONTROL} 2>/dev/null >{FILE} || true; cat {FILE}");
    let mut found = Vec::new();
    for system in systems {
        for pod in ["client", "near", "far"] {
            let pod = format!("{}/{pod}", system.name());
            found.push(lab.exec(&pod, &["sh", "-c", &set])?.trim().to_owned());
        }
    }
    found.dedup();
    ensure!(found.len() == 1, "the pods differ: {found:?}");
    Ok(found.remove(0))
}

/// Runs the load on each system in turn, as often as wanted.
fn measure(
    lab: &Lab,
    ztunnels: &Ztunnels,
    load: &'static Load,
    reach: Reach,
    systems: &[System],
    arguments: &Arguments,
) -> Result<Row> {
    let mut row = Row {
        load,
        reach,
        bar: load.bar(reach),
        systems: Vec::new(),
    };
    for system in systems {
        row.systems.push(OfSystem {
            system: *system,
            runs: Vec::new(),
        });
    }
    for _ in 0..arguments.rounds {
        for OfSystem { system, runs } in &mut row.systems {
            let run = load.run(lab, ztunnels, *system, reach, arguments.seconds);
            runs.push(run.with_context(|| format!("{}, {}", load.name, system.name()))?);
        }
    }
    Ok(row)
}

fn name<S: serde::Serializer>(load: &&'static Load, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(load.name)
}
