//! The loads of the table, and one run of one of them.

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use super::client;
use super::system::{Reach, System, Ztunnels};
use super::tally::Measured;
use crate::lab::Lab;

/// A row of the table.
pub(super) struct Load {
    pub(super) name: &'static str,
    shape: client::Load,
    connections: usize,
    size: usize,
    /// Exchanges a second, of an open loop.
    rate: Option<f64>,
    pub(super) figure: Figure,
    /// The ratios to reach: between nodes, on one node.
    bars: Option<(f64, f64)>,
}

/// What a row compares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Median microseconds: a lower ratio is better.
    Median,
    /// The 99th percentile, likewise.
    Tail,
    /// Thousands each second.
    Rate,
    /// Gigabits each second.
    Bandwidth,
}

/// What one run gave.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Run {
    #[serde(flatten)]
    pub(super) measured: Measured,
    /// Seconds that the ztunnels' processors spent on an exchange or a byte.
    pub(super) processor: f64,
}

const SMALL: usize = 64;
const LARGE: usize = 1024;

const fn row(
    name: &'static str,
    shape: client::Load,
    connections: usize,
    figure: Figure,
    bars: Option<(f64, f64)>,
) -> Load {
    Load {
        name,
        shape,
        connections,
        size: SMALL,
        rate: None,
        figure,
        bars,
    }
}

pub(super) const LOADS: &[Load] = &[
    row(
        "request/response, 1 connection, 64 B, median",
        client::Load::Request,
        1,
        Figure::Median,
        Some((1.5, 1.25)),
    ),
    Load {
        size: LARGE,
        ..row(
            "request/response, 1 connection, 1 KiB, median",
            client::Load::Request,
            1,
            Figure::Median,
            None,
        )
    },
    row(
        "request/response, 64 connections, 64 B",
        client::Load::Request,
        64,
        Figure::Rate,
        Some((0.45, 0.55)),
    ),
    Load {
        size: LARGE,
        ..row(
            "request/response, 64 connections, 1 KiB",
            client::Load::Request,
            64,
            Figure::Rate,
            Some((0.40, 0.50)),
        )
    },
    Load {
        rate: Some(5_000.0),
        ..row(
            "64 connections, 64 B, at 5,000 requests a second, p99",
            client::Load::Request,
            64,
            Figure::Tail,
            None,
        )
    },
    row(
        "connect, one request, close; 16 at a time",
        client::Load::Connect,
        16,
        Figure::Rate,
        Some((0.35, 0.45)),
    ),
    Load {
        rate: Some(1_000.0),
        ..row(
            "connect, one request, close; at 1,000 a second, p99",
            client::Load::Connect,
            16,
            Figure::Tail,
            None,
        )
    },
    row(
        "bulk to the server, 1 connection",
        client::Load::Up,
        1,
        Figure::Bandwidth,
        Some((0.25, 0.50)),
    ),
    row(
        "bulk to the client, 1 connection",
        client::Load::Down,
        1,
        Figure::Bandwidth,
        Some((0.25, 0.50)),
    ),
    row(
        "bulk to the server, 8 connections",
        client::Load::Up,
        8,
        Figure::Bandwidth,
        Some((0.30, 0.60)),
    ),
    row(
        "bulk to the client, 8 connections",
        client::Load::Down,
        8,
        Figure::Bandwidth,
        Some((0.30, 0.60)),
    ),
];

// === impl Load ===

impl Load {
    pub(super) fn bar(&self, reach: Reach) -> Option<f64> {
        let (between_nodes, one_node) = self.bars?;
        Some(match reach {
            Reach::BetweenNodes => between_nodes,
            Reach::OneNode => one_node,
        })
    }

    pub(super) fn run(
        &self,
        lab: &Lab,
        ztunnels: &Ztunnels,
        system: System,
        reach: Reach,
        seconds: f64,
    ) -> Result<Run> {
        let carriers = system.carriers(reach);
        let host = format!("{}.{}", reach.server(), system.name());
        let mut command = vec![
            host,
            format!("--connections={}", self.connections),
            format!("--size={}", self.size),
            format!("--seconds={seconds}"),
        ];
        command.extend(self.rate.map(|rate| format!("--rate={rate}")));
        let before = ztunnels.processor_seconds(lab, &carriers)?;
        let measured = client(lab, &system.client(), self.shape, &command)?;
        let spent = ztunnels.processor_seconds(lab, &carriers)? - before;
        Ok(Run {
            measured,
            processor: spent / measured.total as f64,
        })
    }
}

/// Runs the benchmark's client in a pod.
pub(super) fn client(
    lab: &Lab,
    pod: &str,
    shape: client::Load,
    arguments: &[String],
) -> Result<Measured> {
    let shape = shape.to_possible_value().context("a load")?;
    let mut command = vec!["bench", "client", shape.get_name()];
    command.extend(arguments.iter().map(String::as_str));
    Ok(serde_json::from_str(&lab.exec(pod, &command)?)?)
}

// === impl Figure ===

impl Figure {
    /// Of a run, in [`Figure::unit`].
    pub(super) fn of(self, run: &Run) -> f64 {
        match self {
            Self::Median => run.measured.median,
            Self::Tail => run.measured.p99,
            Self::Rate => run.measured.rate / 1e3,
            Self::Bandwidth => run.measured.rate * 8.0 / 1e9,
        }
    }

    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Median | Self::Tail => "µs",
            Self::Rate => "k/s",
            Self::Bandwidth => "Gb/s",
        }
    }

    /// Processor time in [`Figure::processor_unit`].
    pub(super) fn processor(self, run: &Run) -> f64 {
        match self {
            Self::Median | Self::Tail | Self::Rate => run.processor * 1e6,
            Self::Bandwidth => run.processor * 1e9,
        }
    }

    pub(super) fn processor_unit(self) -> &'static str {
        match self {
            Self::Median | Self::Tail | Self::Rate => "µs each",
            Self::Bandwidth => "s/GB",
        }
    }

    pub(super) fn reaches(self, ratio: f64, bar: f64) -> bool {
        match self {
            Self::Median | Self::Tail => ratio <= bar,
            Self::Rate | Self::Bandwidth => ratio >= bar,
        }
    }
}
