//! Loads with a fixed rate, whatever the answers: what arrives while something is being replaced
//! arrives all the same.

use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// How long one exchange may take, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A question that is not answered by then was lost.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of an answer.
const BYTES: usize = 64;

/// When the exchanges of a load begin.
#[derive(Clone, Copy, Args)]
pub struct Schedule {
    /// Exchanges a second.
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    count: u64,
    /// Says when it has begun, and goes on beyond their count until standard input ends.
    #[arg(long)]
    until_told: bool,
}

/// What a load with a fixed rate saw.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RateReport {
    pub succeeded: u64,
    pub failed: u64,
    /// The first few failures, as text.
    pub failures: Vec<String>,
    /// Exchanges a second that were begun, and that were asked for.
    pub rate: f64,
    pub asked: f64,
    /// Milliseconds.
    pub median: f64,
    pub p99: f64,
    pub longest: f64,
}

/// Opens connections: each asks for a few bytes and reads them to the end. The server closes first,
/// so that no port is held for long on this side.
pub async fn connections(target: &str, schedule: Schedule) -> Result<()> {
    let server = target
        .to_socket_addrs()
        .with_context(|| format!("resolving {target}"))?
        .next()
        .context("no address")?;
    run(schedule, move |_| connect(server)).await
}

/// Asks the pod's resolver for a name, with one datagram each time.
pub async fn questions(name: &str, schedule: Schedule) -> Result<()> {
    let text = std::fs::read_to_string("/etc/resolv.conf")?;
    let nameserver = text
        .lines()
        .find_map(|line| line.strip_prefix("nameserver "))
        .context("no nameserver")?;
    let server = SocketAddr::new(nameserver.trim().parse()?, 53);
    let name = name.to_owned();
    run(schedule, move |number| ask(server, name.clone(), number)).await
}

async fn run<F>(schedule: Schedule, exchange: impl Fn(u64) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    // A thread of its own, for the runtime would wait for the input's end before it ended itself.
    let input = || std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    let input = schedule.until_told.then(|| thread::spawn(input));
    let mut ticks = interval(Duration::from_secs_f64(1.0 / schedule.rate));
    // What the machine was too busy to begin in time is begun late, not left out.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut report, mut times) = (RateReport::default(), Vec::new());
    let mut running = JoinSet::new();
    let begun = Instant::now();
    let mut note = |ended: std::result::Result<(Result<()>, f64), _>| match ended {
        Ok((Ok(()), took)) => {
            report.succeeded += 1;
            times.push(took);
        }
        Ok((Err(error), _)) => {
            report.failed += 1;
            if report.failures.len() < 5 {
                report.failures.push(format!("{error:#}"));
            }
        }
        Err(error) => {
            let error: tokio::task::JoinError = error;
            report.failed += 1;
            report.failures.push(error.to_string());
        }
    };
    let mut count = 0;
    while count < schedule.count || input.as_ref().is_some_and(|input| !input.is_finished()) {
        ticks.tick().await;
        let exchange = exchange(count);
        if input.is_some() && count == 0 {
            println!("begun");
        }
        count += 1;
        running.spawn(async move {
            let started = Instant::now();
            let result = exchange.await;
            (result, started.elapsed().as_secs_f64() * 1000.0)
        });
        while let Some(ended) = running.try_join_next() {
            note(ended);
        }
    }
    let took = begun.elapsed().as_secs_f64();
    while let Some(ended) = running.join_next().await {
        note(ended);
    }
    (report.rate, report.asked) = (count as f64 / took, schedule.rate);
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times
            .get(index.min(times.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    (report.median, report.p99, report.longest) = (at(0.5), at(0.99), at(1.0));
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn connect(server: SocketAddr) -> Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let asked = format!("{BYTES}\n");
        stream.write_all(asked.as_bytes()).await.context("asking")?;
        let mut answer = Vec::with_capacity(BYTES);
        stream.read_to_end(&mut answer).await.context("reading")?;
        ensure!(answer.len() == BYTES, "{} bytes of {BYTES}", answer.len());
        Ok(())
    };
    timeout(TIMEOUT, exchange).await.context("no answer")?
}

async fn ask(server: SocketAddr, name: String, number: u64) -> Result<()> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0; 16], 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    socket.connect(server).await?;
    let id = (number % 0xffff) as u16;
    socket.send(&question(id, &name)).await.context("asking")?;
    let mut answer = [0; 512];
    let length = timeout(ANSWER, socket.recv(&mut answer))
        .await
        .context("no answer")?
        .context("reading")?;
    let answer = &answer[..length];
    match answer {
        [one, two, _, flags, _, _, _, count, ..]
            if [*one, *two] == id.to_be_bytes() && flags & 0x0f == 0 && *count > 0 =>
        {
            Ok(())
        }
        _ => bail!("answered {:02x?}", &answer[..answer.len().min(12)]),
    }
}

/// RFC 1035 §4.1: a header that asks for recursion, and one question for an address.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(63));
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
