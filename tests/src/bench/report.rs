//! The benchmark's table: each load on each path, as a ratio to plain TCP, beside its bar.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::client::{Load, Measured};
use crate::lab::Lab;

/// A row of the table.
struct Row {
    name: &'static str,
    load: Load,
    connections: usize,
    size: usize,
    figure: Figure,
    /// The ratios to reach: between nodes, on one node.
    bars: (f64, f64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Figure {
    /// Median microseconds: a lower ratio is better.
    Latency,
    /// Thousands each second.
    Rate,
    /// Gigabits each second.
    Bandwidth,
}

const ROWS: &[Row] = &[
    Row {
        name: "request/response, 1 connection, 64 B",
        load: Load::Request,
        connections: 1,
        size: 64,
        figure: Figure::Latency,
        bars: (1.5, 1.25),
    },
    Row {
        name: "request/response, 64 connections, 64 B",
        load: Load::Request,
        connections: 64,
        size: 64,
        figure: Figure::Rate,
        bars: (0.45, 0.55),
    },
    Row {
        name: "request/response, 64 connections, 1 KiB",
        load: Load::Request,
        connections: 64,
        size: 1024,
        figure: Figure::Rate,
        bars: (0.40, 0.50),
    },
    Row {
        name: "connect, one request, close; 16 at a time",
        load: Load::Connect,
        connections: 16,
        size: 64,
        figure: Figure::Rate,
        bars: (0.35, 0.45),
    },
    Row {
        name: "bulk to the server, 1 connection",
        load: Load::Up,
        connections: 1,
        size: 0,
        figure: Figure::Bandwidth,
        bars: (0.25, 0.50),
    },
    Row {
        name: "bulk to the client, 1 connection",
        load: Load::Down,
        connections: 1,
        size: 0,
        figure: Figure::Bandwidth,
        bars: (0.25, 0.50),
    },
    Row {
        name: "bulk to the server, 8 connections",
        load: Load::Up,
        connections: 8,
        size: 0,
        figure: Figure::Bandwidth,
        bars: (0.30, 0.60),
    },
];

const YAML: &str = include_str!("objects.yaml");

/// Idle connections opened to see what each costs.
const IDLE_CONNECTIONS: usize = 2000;

/// Runs every row, `rounds` times in turn on each path, and prints medians.
pub fn run(only: Option<&str>, rounds: usize, seconds: f64) -> Result<()> {
    let lab = Lab::up_with(YAML, &["--nodes", "2"])?;
    println!("{}", conditions(&lab, rounds, seconds)?);
    println!(
        "ztunnel memory: {:.1} MB before any load (bar 12)",
        resident(&lab)? as f64 / 1e6
    );
    println!(
        "{:<44} {:>12} {:>10} {:>7} {:>6} {:>12} {:>10} {:>7} {:>6}",
        "load", "plain", "mesh", "ratio", "bar", "plain, node", "mesh", "ratio", "bar"
    );
    for row in ROWS {
        if only.is_some_and(|only| !row.name.contains(only)) {
            continue;
        }
        let mut cells = String::new();
        for (server, bar) in [("far", row.bars.0), ("near", row.bars.1)] {
            let (mut plain, mut meshed) = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                plain.push(row.measure(&lab, "plain", server, seconds)?);
                meshed.push(row.measure(&lab, "meshed", server, seconds)?);
            }
            let (plain, meshed) = (median(plain), median(meshed));
            let ratio = meshed / plain;
            let reached = match row.figure {
                Figure::Latency => ratio <= bar,
                Figure::Rate | Figure::Bandwidth => ratio >= bar,
            };
            let mark = if reached { ' ' } else { '!' };
            let unit = row.figure.unit();
            cells += &format!(
                " {:>12} {:>10} {ratio:>6.2}{mark} {bar:>6}",
                format!("{plain:.1} {unit}"),
                format!("{meshed:.1}"),
            );
        }
        println!("{:<44}{cells}", row.name);
    }
    memory(&lab)
}

// === impl Row ===

impl Row {
    fn measure(&self, lab: &Lab, namespace: &str, server: &str, seconds: f64) -> Result<f64> {
        let (connections, size) = (self.connections.to_string(), self.size.to_string());
        let seconds = seconds.to_string();
        let load = clap::ValueEnum::to_possible_value(&self.load).context("a load")?;
        let output = lab.exec(
            &format!("{namespace}/client"),
            &[
                "bench",
                "client",
                load.get_name(),
                &format!("{server}.{namespace}"),
                "--connections",
                &connections,
                "--size",
                &size,
                "--seconds",
                &seconds,
            ],
        )?;
        let measured: Measured = serde_json::from_str(&output)?;
        Ok(match self.figure {
            Figure::Latency => measured.median,
            Figure::Rate => measured.rate / 1e3,
            Figure::Bandwidth => measured.rate * 8.0 / 1e9,
        })
    }
}

// === impl Figure ===

impl Figure {
    fn unit(self) -> &'static str {
        match self {
            Self::Latency => "µs",
            Self::Rate => "k/s",
            Self::Bandwidth => "Gb/s",
        }
    }
}

/// What a table is worth nothing without.
fn conditions(lab: &Lab, rounds: usize, seconds: f64) -> Result<String> {
    let of_pod = |path: &str| lab.exec("meshed/client", &["cat", path]);
    Ok(format!(
        "kernel {}, {} cores, congestion control {}, {rounds} rounds of {seconds} s",
        of_pod("/proc/sys/kernel/osrelease")?.trim(),
        std::thread::available_parallelism()?,
        of_pod("/proc/sys/net/ipv4/tcp_congestion_control")?.trim(),
    ))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// What the client's ztunnel holds after the loads, and for connections that do nothing.
fn memory(lab: &Lab) -> Result<()> {
    let before = resident(lab)?;
    let count = IDLE_CONNECTIONS.to_string();
    let mut idle = lab.exec_spawn(
        "meshed/client",
        &[
            "bench",
            "client",
            "idle",
            "far.meshed",
            "--connections",
            &count,
            "--seconds",
            "6",
        ],
    )?;
    std::thread::sleep(Duration::from_secs(4));
    let during = resident(lab)?;
    ensure!(idle.wait()?.success(), "the idle connections failed");
    println!(
        "ztunnel memory: {:.1} MB after the loads; {:.1} KB per idle connection and node (bar 6)",
        before as f64 / 1e6,
        (during.saturating_sub(before)) as f64 / 1e3 / IDLE_CONNECTIONS as f64
    );
    Ok(())
}

/// Resident bytes of node-1's ztunnel.
fn resident(lab: &Lab) -> Result<u64> {
    let status = lab.exec(
        "node/node-1",
        &["sh", "-c", "cat /proc/$(pgrep -o ^ztunnel)/status"],
    )?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
