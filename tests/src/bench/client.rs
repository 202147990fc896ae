//! The client of the benchmark: each load prints one figure.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};

use super::{BULK_BUFFER, ECHO_PORT, SINK_PORT, SOURCE_PORT};

/// A shape of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Load {
    /// Requests and responses on open connections.
    Request,
    /// Connect, one request, close.
    Connect,
    /// Bytes to the server.
    Up,
    /// Bytes to the client.
    Down,
    /// Connections that are opened and left alone.
    Idle,
}

/// What one run of a load measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Exchanges, or bytes, each second.
    pub rate: f64,
    /// Microseconds per exchange: median and 99th percentile.
    pub median: f64,
    pub p99: f64,
}

/// How long a load runs before it is measured.
pub(super) const WARM_UP: Duration = Duration::from_millis(300);

// === impl Load ===

impl Load {
    fn port(self) -> u16 {
        match self {
            Self::Request | Self::Connect | Self::Idle => ECHO_PORT,
            Self::Up => SINK_PORT,
            Self::Down => SOURCE_PORT,
        }
    }
}

/// Runs a load against the server at `host` and measures it after a short warm-up.
pub async fn run(
    load: Load,
    host: &str,
    connections: usize,
    size: usize,
    duration: Duration,
) -> Result<Measured> {
    // Once: what is measured is connections, not names.
    let server = lookup_host((host, load.port()))
        .await
        .with_context(|| format!("looking up {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    let start = Instant::now() + WARM_UP;
    let end = start + duration;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..connections {
        clients.spawn(async move {
            match load {
                Load::Request => requests(server, size, start, end).await,
                Load::Connect => connects(server, size, start, end).await,
                Load::Up => up(server, start, end).await,
                Load::Down => down(server, start, end).await,
                Load::Idle => idle(server, end).await,
            }
        });
    }
    let mut all = Tally::default();
    while let Some(one) = clients.join_next().await {
        all.merge(one??);
    }
    Ok(all.measured(duration))
}

#[derive(Default)]
pub(super) struct Tally {
    amount: u64,
    /// Microseconds.
    latencies: Vec<f32>,
}

// === impl Tally ===

impl Tally {
    pub(super) fn merge(&mut self, other: Self) {
        self.amount += other.amount;
        self.latencies.extend(other.latencies);
    }

    pub(super) fn exchange(&mut self, began: Instant, start: Instant) {
        if began >= start {
            self.amount += 1;
            self.latencies.push(began.elapsed().as_secs_f32() * 1e6);
        }
    }

    pub(super) fn measured(mut self, duration: Duration) -> Measured {
        self.latencies.sort_by(f32::total_cmp);
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            self.latencies
                .get(index.min(self.latencies.len().saturating_sub(1)))
                .map_or(0.0, |latency| f64::from(*latency))
        };
        Measured {
            rate: self.amount as f64 / duration.as_secs_f64(),
            median: at(0.5),
            p99: at(0.99),
        }
    }
}

async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(server)
        .await
        .with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn requests(server: SocketAddr, size: usize, start: Instant, end: Instant) -> Result<Tally> {
    let mut stream = connect(server).await?;
    let (request, mut response) = (vec![1; size], vec![0; size]);
    let mut tally = Tally::default();
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(tally);
        }
        stream.write_all(&request).await?;
        stream.read_exact(&mut response).await?;
        tally.exchange(began, start);
    }
}

async fn connects(server: SocketAddr, size: usize, start: Instant, end: Instant) -> Result<Tally> {
    let (request, mut response) = (vec![1; size], vec![0; size]);
    let mut tally = Tally::default();
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(tally);
        }
        let mut stream = connect(server).await?;
        stream.write_all(&request).await?;
        stream.read_exact(&mut response).await?;
        // Ends with a reset: no port of the client waits in TIME_WAIT for the next round.
        stream.set_zero_linger()?;
        drop(stream);
        tally.exchange(began, start);
    }
}

async fn up(server: SocketAddr, start: Instant, end: Instant) -> Result<Tally> {
    let mut stream = connect(server).await?;
    let buffer = vec![7; BULK_BUFFER];
    let mut tally = Tally::default();
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(tally);
        }
        let written = stream.write(&buffer).await?;
        if now >= start {
            tally.amount += written as u64;
        }
    }
}

async fn down(server: SocketAddr, start: Instant, end: Instant) -> Result<Tally> {
    let mut stream = connect(server).await?;
    let mut buffer = vec![0; BULK_BUFFER];
    let mut tally = Tally::default();
    loop {
        let now = Instant::now();
        if now >= end {
            return Ok(tally);
        }
        let read = stream.read(&mut buffer).await?;
        if now >= start {
            tally.amount += read as u64;
        }
    }
}

async fn idle(server: SocketAddr, end: Instant) -> Result<Tally> {
    let mut stream = connect(server).await?;
    stream.write_all(b"hello").await?;
    stream.read_exact(&mut [0; 5]).await?;
    tokio::time::sleep_until(end.into()).await;
    Ok(Tally::default())
}
