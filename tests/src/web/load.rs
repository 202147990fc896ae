//! Requests one after another on kept connections, counted by what became of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::client::{self, Connection};

#[derive(Clone, Debug, clap::Args)]
#[group(id = "load")]
pub struct Arguments {
    #[command(flatten)]
    pub ask: client::Arguments,
    #[arg(long, default_value_t = 4)]
    pub connections: usize,
    /// Stop after so long.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Stop after so many requests of each connection.
    #[arg(long)]
    pub count: Option<u64>,
    /// Milliseconds between two requests of a connection.
    #[arg(long, default_value_t = 0)]
    pub pause: u64,
}

/// What became of the requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub requests: u64,
    pub by_status: BTreeMap<u16, u64>,
    pub by_pod: BTreeMap<String, u64>,
    /// Without an answer.
    pub broken: u64,
    /// The first few reasons.
    pub reasons: Vec<String>,
    /// Milliseconds, the slowest.
    pub slowest: f64,
}

/// Runs until time or count is over.
pub async fn run(arguments: &Arguments) -> Result<Report> {
    let deadline = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..arguments.connections {
        clients.spawn(one(arguments.clone(), deadline));
    }
    let mut report = Report::default();
    while let Some(one) = clients.join_next().await {
        report.merge(one??);
    }
    Ok(report)
}

async fn one(arguments: Arguments, deadline: Instant) -> Result<Report> {
    let (request, address) = arguments.ask.request()?;
    let mut report = Report::default();
    let mut kept = None;
    while Instant::now() < deadline && arguments.count.is_none_or(|count| report.requests < count) {
        let began = Instant::now();
        let exchange = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Connection::open(&address, arguments.ask.speaks_http2()).await?,
            };
            let answer = client::read(connection.send(request.clone()).await?).await?;
            anyhow::Ok((connection, answer))
        };
        report.requests += 1;
        match exchange.await {
            Ok((connection, answer)) => {
                *report.by_status.entry(answer.status).or_default() += 1;
                *report.by_pod.entry(answer.pod().to_owned()).or_default() += 1;
                let closes = answer.header("connection") == Some("close");
                kept = (!closes).then_some(connection);
            }
            Err(error) => {
                report.broken += 1;
                if report.reasons.len() < 5 {
                    report.reasons.push(format!("{error:#}"));
                }
            }
        }
        report.slowest = report.slowest.max(began.elapsed().as_secs_f64() * 1e3);
        if arguments.pause > 0 {
            tokio::time::sleep(Duration::from_millis(arguments.pause)).await;
        }
    }
    Ok(report)
}

// === impl Report ===

impl Report {
    /// Requests that were answered with anything but success, or not at all.
    pub fn failed(&self) -> u64 {
        let succeeded: u64 = self
            .by_status
            .iter()
            .filter(|(status, _)| (200..400).contains(*status))
            .map(|(_, count)| count)
            .sum();
        self.requests - succeeded
    }

    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        self.broken += other.broken;
        for (status, count) in other.by_status {
            *self.by_status.entry(status).or_default() += count;
        }
        for (pod, count) in other.by_pod {
            *self.by_pod.entry(pod).or_default() += count;
        }
        self.reasons.extend(other.reasons);
        self.reasons.truncate(5);
        self.slowest = self.slowest.max(other.slowest);
    }
}
