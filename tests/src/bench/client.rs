//! The client of the benchmark: each run of a load prints its figures.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::pace::{Pace, Window};
use super::tally::{Measured, Tally};
use super::tunnel;
use super::{BULK_BUFFER, ECHO_PORT, SINK_PORT, SOURCE_PORT, raise_descriptor_limit};

/// A shape of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// Requests and responses on open connections.
    Request,
    /// Connect, one request, close.
    Connect,
    /// Bytes to the server.
    Up,
    /// Bytes to the client.
    Down,
    /// As `connect`, over a tunnel of the client's own that is made and closed each time.
    Handshake,
}

/// A run of one load.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    pub load: Load,
    pub host: String,
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
    /// Bytes of a request and of its response.
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Exchanges a second in all; none: as many as go.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// The folder of the mesh's authority, for tunnels of the client's own.
    #[arg(long)]
    pub authority: Option<PathBuf>,
    /// Counts the connections that fail, where otherwise the first one ends the run.
    #[arg(long)]
    pub count_failures: bool,
}

/// Connections that are opened at a time, to be left alone then.
const OPENING: usize = 32;

/// Runs a load against the server and measures it after a short warm-up.
pub async fn run(arguments: &Arguments) -> Result<Measured> {
    // Once: what is measured is connections, not names.
    let server = resolve(&arguments.host, arguments.load.port()).await?;
    let tunnels = match arguments.load {
        Load::Handshake => {
            let authority = arguments.authority.as_ref().context("--authority")?;
            Some(Rc::new(tunnel::Client::new(authority)?))
        }
        Load::Request | Load::Connect | Load::Up | Load::Down => None,
    };
    let duration = Duration::from_secs_f64(arguments.seconds);
    let (window, size) = (Window::of(duration), arguments.size);
    let count_failures = arguments.count_failures;
    let mut clients = JoinSet::new();
    for index in 0..arguments.connections {
        let pace = Pace::new(window, arguments.rate, index, arguments.connections)?;
        match arguments.load {
            Load::Request => clients.spawn_local(requests(server, size, pace)),
            Load::Connect => clients.spawn_local(connects(server, size, pace, count_failures)),
            Load::Up => clients.spawn_local(up(server, window)),
            Load::Down => clients.spawn_local(down(server, window)),
            Load::Handshake => {
                let tunnels = tunnels.clone().context("no tunnels")?;
                clients.spawn_local(async move { tunnels.connects(server, size, pace).await })
            }
        };
    }
    let mut all = Tally::default();
    while let Some(one) = clients.join_next().await {
        all.merge(&one??)?;
    }
    Ok(all.measured(duration))
}

/// Opens connections, says so, and leaves them alone until standard input ends.
pub async fn idle(host: &str, connections: usize) -> Result<()> {
    raise_descriptor_limit()?;
    let server = resolve(host, ECHO_PORT).await?;
    let mut open = Vec::with_capacity(connections);
    let mut opening = JoinSet::new();
    for _ in 0..connections {
        if opening.len() >= OPENING {
            open.extend(opening.join_next().await.transpose()?.transpose()?);
        }
        opening.spawn_local(async move {
            let mut stream = connect(server).await?;
            stream.write_all(b"hello").await?;
            stream.read_exact(&mut [0; 5]).await?;
            anyhow::Ok(stream)
        });
    }
    while let Some(one) = opening.join_next().await {
        open.push(one??);
    }
    println!("open");
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    for stream in open {
        stream.set_zero_linger()?;
    }
    Ok(())
}

// === impl Load ===

impl Load {
    fn port(self) -> u16 {
        match self {
            Self::Request | Self::Connect | Self::Handshake => ECHO_PORT,
            Self::Up => SINK_PORT,
            Self::Down => SOURCE_PORT,
        }
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    lookup_host((host, port))
        .await
        .with_context(|| format!("looking up {host}"))?
        .next()
        .with_context(|| format!("{host} has no address"))
}

async fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(server)
        .await
        .with_context(|| format!("connecting to {server}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn requests(server: SocketAddr, size: usize, mut pace: Pace) -> Result<Tally> {
    let mut stream = connect(server).await?;
    let (request, mut response) = (vec![1; size], vec![0; size]);
    let mut tally = Tally::default();
    while let Some(due) = pace.next().await? {
        stream.write_all(&request).await?;
        stream.read_exact(&mut response).await?;
        tally.exchange(due, pace.window.start);
    }
    Ok(tally)
}

async fn connects(
    server: SocketAddr,
    size: usize,
    mut pace: Pace,
    count_failures: bool,
) -> Result<Tally> {
    let (request, mut response) = (vec![1; size], vec![0; size]);
    let mut tally = Tally::default();
    while let Some(due) = pace.next().await? {
        match connect_once(server, &request, &mut response).await {
            Ok(()) => tally.exchange(due, pace.window.start),
            Err(_) if count_failures => tally.failure(),
            Err(error) => return Err(error),
        }
    }
    Ok(tally)
}

async fn connect_once(server: SocketAddr, request: &[u8], response: &mut [u8]) -> Result<()> {
    let mut stream = connect(server).await?;
    stream.write_all(request).await?;
    stream.read_exact(response).await?;
    // Ends with a reset: no port of the client waits in TIME_WAIT for the next round.
    Ok(stream.set_zero_linger()?)
}

async fn up(server: SocketAddr, window: Window) -> Result<Tally> {
    let mut stream = connect(server).await?;
    let buffer = vec![7; BULK_BUFFER];
    let mut tally = Tally::default();
    loop {
        let now = Instant::now();
        if now >= window.end {
            return Ok(tally);
        }
        let written = stream.write(&buffer).await?;
        tally.bytes(written, now, window.start);
    }
}

async fn down(server: SocketAddr, window: Window) -> Result<Tally> {
    let mut stream = connect(server).await?;
    let mut buffer = vec![0; BULK_BUFFER];
    let mut tally = Tally::default();
    loop {
        let now = Instant::now();
        if now >= window.end {
            return Ok(tally);
        }
        let read = stream.read(&mut buffer).await?;
        tally.bytes(read, now, window.start);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::time;

    use super::*;

    /// A server that answers at once, but for the first request after this moment.
    async fn stall(
        listener: TcpListener,
        size: usize,
        after: Instant,
        stall: Duration,
    ) -> Result<()> {
        let (mut stream, _) = listener.accept().await?;
        let (mut request, mut stalls) = (vec![0; size], Some(stall));
        while stream.read_exact(&mut request).await.is_ok() {
            if let Some(stall) = stalls.take_if(|_| Instant::now() >= after) {
                time::sleep(stall).await;
            }
            stream.write_all(&request).await?;
        }
        Ok(())
    }

    /// Of a client that sends its next request when the last is answered, one request has seen the
    /// stall, and the 99th percentile of hundreds nothing of it.
    #[tokio::test]
    async fn a_stall_is_seen_by_all_requests_that_were_due_meanwhile() {
        const STALL: Duration = Duration::from_millis(100);
        let (size, rate, duration) = (64, 1000.0, Duration::from_millis(300));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let window = Window::of(duration);
        let pace = Pace::new(window, Some(rate), 0, 1).expect("a timer");
        let client = requests(address, size, pace);
        let (tally, served) = tokio::join!(client, stall(listener, size, window.start, STALL));
        served.expect("served");
        let measured = tally.expect("answered").measured(duration);
        // None is left out for being late; a hundred of the three hundred had to wait.
        assert!((measured.rate - rate).abs() < 10.0, "{measured:?}");
        let milliseconds = |figure: f64| figure / 1e3;
        assert!(milliseconds(measured.max) > 98.0, "{measured:?}");
        assert!(milliseconds(measured.p99) > 90.0, "{measured:?}");
    }
}
