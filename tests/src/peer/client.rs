//! The client half of the tests' application: one exchange each, blocking, and what it saw.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};

use super::serve::read_full;
use super::{FNV_OFFSET, Pattern, checksum};

/// How long one exchange may take, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What a load run counted.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    pub succeeded: u64,
    pub failed: u64,
    /// The first few failures, as text.
    pub failures: Vec<String>,
    /// The longest that one exchange took.
    pub slowest_millis: u64,
}

pub fn get(target: &str) -> Result<()> {
    print!("{}", request(&mut connect(target)?)?);
    Ok(())
}

pub fn udp(target: &str) -> Result<()> {
    let address = target
        .to_socket_addrs()
        .with_context(|| format!("resolving {target}"))?
        .next()
        .context("no address")?;
    let unspecified = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(unspecified)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut buffer = [0; 16];
    for _ in 0..5 {
        socket.send_to(b"ping", address)?;
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            ensure!(&buffer[..length] == b"ping", "another datagram came back");
            ensure!(from == address, "answered by {from}");
            println!("echoed");
            return Ok(());
        }
    }
    bail!("no datagram came back from {address}")
}

pub fn resolve(name: &str) -> Result<()> {
    let mut addresses: Vec<_> = (name, 0)
        .to_socket_addrs()
        .with_context(|| format!("resolving {name}"))?
        .map(|address| address.ip())
        .collect();
    addresses.sort();
    addresses.dedup();
    for address in addresses {
        println!("{address}");
    }
    Ok(())
}

pub fn banner(target: &str) -> Result<()> {
    let mut stream = connect(target)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    lines
        .read_line(&mut line)
        .context("waiting for the banner")?;
    ensure!(line.starts_with("220 "), "the server said {line:?}");
    stream.write_all(b"hello\n")?;
    let mut echo = String::new();
    lines.read_line(&mut echo)?;
    ensure!(echo == "hello\n", "echoed {echo:?}");
    print!("{line}");
    Ok(())
}

pub fn upload(target: &str, bytes: u64) -> Result<()> {
    let mut stream = connect(target)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    let mut pattern = Pattern::default();
    let mut buffer = vec![0; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let length = left.min(buffer.len() as u64) as usize;
        pattern.fill(&mut buffer[..length]);
        stream.write_all(&buffer[..length])?;
        left -= length as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let expected = format!("{bytes} {:016x}\n", pattern.checksum());
    ensure!(
        line == expected,
        "sent {expected:?}, the server saw {line:?}"
    );
    println!("uploaded {bytes}");
    Ok(())
}

pub fn download(target: &str, bytes: u64) -> Result<()> {
    let mut stream = connect(target)?;
    stream.set_read_timeout(Some(Duration::from_secs(120)))?;
    stream.write_all(format!("{bytes}\n").as_bytes())?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut state) = (0_u64, FNV_OFFSET);
    loop {
        let length = read_full(&mut stream, &mut buffer)?;
        state = checksum(state, &buffer[..length]);
        total += length as u64;
        if length < buffer.len() {
            break;
        }
    }
    let mut pattern = Pattern::default();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(buffer.len() as u64) as usize;
        pattern.fill(&mut buffer[..length]);
        left -= length as u64;
    }
    ensure!(total == bytes, "{total} of {bytes} bytes came");
    ensure!(state == pattern.checksum(), "the bytes differ");
    println!("downloaded {bytes}");
    Ok(())
}

/// Echoes a line every 20 ms; prints `open` first and `closed AFTER` when it breaks.
pub fn hold(target: &str) -> Result<()> {
    let mut stream = connect(target)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if line == "stop" {
                stopping.store(true, Ordering::SeqCst);
            }
        }
    });
    let mut echoed = 0_u64;
    let mut exchange = || -> Result<()> {
        stream.write_all(b"beat\n")?;
        let mut line = String::new();
        lines.read_line(&mut line)?;
        ensure!(line == "beat\n", "echoed {line:?}");
        Ok(())
    };
    loop {
        if stop.load(Ordering::SeqCst) {
            println!("stopped after {echoed}");
            return Ok(());
        }
        if let Err(error) = exchange() {
            println!("closed after {echoed}: {error:#}");
            bail!("closed");
        }
        if echoed == 0 {
            println!("open");
        }
        echoed += 1;
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn load(target: &str, connections: usize, seconds: f64, keep_alive: bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let report = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| load_one(target, deadline, keep_alive)))
            .collect();
        let mut total = LoadReport::default();
        for client in clients {
            let report = client.join().unwrap_or_default();
            total.succeeded += report.succeeded;
            total.failed += report.failed;
            total.failures.extend(report.failures);
            total.slowest_millis = total.slowest_millis.max(report.slowest_millis);
        }
        total.failures.truncate(5);
        total
    });
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn load_one(target: &str, deadline: Instant, keep_alive: bool) -> LoadReport {
    let mut report = LoadReport::default();
    let mut kept: Option<TcpStream> = None;
    while Instant::now() < deadline {
        let started = Instant::now();
        let outcome = match kept.take() {
            Some(stream) => Ok(stream),
            None => connect(target),
        }
        .and_then(|mut stream| request(&mut stream).map(|_| stream));
        let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        report.slowest_millis = report.slowest_millis.max(took);
        match outcome {
            Ok(stream) => {
                report.succeeded += 1;
                kept = keep_alive.then_some(stream);
            }
            Err(error) => {
                report.failed += 1;
                if report.failures.len() < 5 {
                    report.failures.push(format!("{error:#}"));
                }
            }
        }
    }
    report
}

pub fn http(target: &str, path: &str) -> Result<()> {
    let mut stream = connect(target)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    let (head, body) = reply.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    print!("{body}");
    Ok(())
}

pub(super) fn connect(target: &str) -> Result<TcpStream> {
    connect_with(target, |address| {
        TcpStream::connect_timeout(&address, TIMEOUT)
    })
}

/// Connects with a port of one's own that is chosen here, not by the kernel.
pub(super) fn connect_from(port: u16, target: &str) -> Result<TcpStream> {
    connect_with(target, |address| {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
        socket.connect_timeout(&address.into(), TIMEOUT)?;
        Ok(socket.into())
    })
}

fn connect_with(
    target: &str,
    connect: impl Fn(SocketAddr) -> io::Result<TcpStream>,
) -> Result<TcpStream> {
    let addresses: Vec<_> = target
        .to_socket_addrs()
        .with_context(|| format!("resolving {target}"))?
        .collect();
    let mut last = None;
    for address in addresses {
        match connect(address) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("connecting to {target}")),
        None => bail!("{target} has no address"),
    }
}

fn request(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"GET /\n").context("sending")?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .context("waiting for the answer")?;
    ensure!(!line.is_empty(), "closed without an answer");
    Ok(line)
}
