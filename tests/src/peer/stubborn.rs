//! Servers and clients that nobody wishes for: they don't read, don't close, or come in crowds.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::client::{connect, connect_from};

/// Connections a server keeps for good.
static KEPT: Mutex<Vec<TcpStream>> = Mutex::new(Vec::new());

/// How long a writer must be stuck to count as stalled.
const STALLED: Duration = Duration::from_secs(1);
/// How often a slow client says something.
const BETWEEN_BYTES: Duration = Duration::from_secs(10);
/// How long connections are waited for to be cut.
const CUT: Duration = Duration::from_secs(600);

/// What became of a crowd of connections.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crowd {
    pub open: usize,
    pub failed: usize,
    /// The first few failures, as text.
    pub failures: Vec<String>,
}

/// Never reads and never closes.
pub(super) fn deaf(stream: TcpStream) -> Result<()> {
    keep(stream);
    Ok(())
}

/// Reads to the end and never ends its own direction.
pub(super) fn endless(mut stream: TcpStream) -> Result<()> {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer)? > 0 {}
    keep(stream);
    Ok(())
}

fn keep(stream: TcpStream) {
    if let Ok(mut kept) = KEPT.lock() {
        kept.push(stream);
    }
}

/// Opens connections, ends its own direction of each, and waits until somebody cuts them.
pub fn half_close(target: &str, count: usize) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = connect(target)?;
        stream.write_all(b"all there is")?;
        stream.shutdown(Shutdown::Write)?;
        stream.set_read_timeout(Some(CUT))?;
        streams.push(stream);
    }
    println!("half-closed {count}");
    let mut cut = 0;
    for mut stream in streams {
        match stream.read(&mut [0]) {
            Ok(0) => cut += 1,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => cut += 1,
            other => bail!("neither cut nor closed: {other:?}"),
        }
    }
    println!("cut {cut}");
    Ok(())
}

/// Downloads a byte over each of some connections, to the server's end, and closes its own
/// direction of them only when the input ends.
pub fn late_close(target: &str, count: usize) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = connect(target)?;
        stream.write_all(b"1\n")?;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.set_read_timeout(Some(CUT))?;
        let length = stream.read_to_end(&mut Vec::new())?;
        ensure!(length == 1, "{length} bytes came");
    }
    println!("ended {count}");
    let _ = io::stdin().read_to_end(&mut Vec::new());
    drop(streams);
    println!("closed {count}");
    Ok(())
}

/// Opens connections one after the other, each with an echo, and holds them until the input ends.
/// Prints what became of them, and at the end how many still echo.
pub fn crowd(target: &str, count: usize) -> Result<()> {
    let mut crowd = Crowd::default();
    let mut streams = Vec::new();
    for _ in 0..count {
        match connect(target).and_then(|mut stream| echo(&mut stream).map(|()| stream)) {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                crowd.failed += 1;
                if crowd.failures.len() < 5 {
                    crowd.failures.push(format!("{error:#}"));
                }
            }
        }
    }
    crowd.open = streams.len();
    println!("{}", serde_json::to_string(&crowd)?);
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let alive = streams.iter_mut().filter_map(|stream| echo(stream).ok());
    println!("alive {}", alive.count());
    Ok(())
}

fn echo(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"beat\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    ensure!(line == "beat\n", "echoed {line:?}");
    Ok(())
}

/// Opens connections and writes to all of them at once, `each` at most so many bytes, until none
/// takes any more. Prints how many bytes that were and how many connections were cut, holds the
/// others until the input ends, and prints how many are there then.
pub fn pour(target: &str, count: usize, each: u64) -> Result<()> {
    // Who is short of memory because of the first takes no more of them.
    let connected = (0..count).map(|_| connect(target));
    let connected = connected.collect::<Result<Vec<_>>>()?;
    let pouring = connected.into_iter().map(|stream| pour_into(stream, each));
    report(pouring.map(thread::spawn).collect())
}

/// The same to a port that echoes, of which nothing is read, once all connections are made.
pub fn flood(target: &str, count: usize) -> Result<()> {
    let connected = (0..count).map(|_| {
        let mut stream = connect(target)?;
        echo(&mut stream)?;
        Ok(stream)
    });
    let connected = connected.collect::<Result<Vec<_>>>()?;
    let pouring = connected
        .into_iter()
        .map(|stream| pour_into(stream, u64::MAX));
    report(pouring.map(thread::spawn).collect())
}

/// What one connection took, and the connection, unless it was cut.
type Poured = io::Result<(Option<TcpStream>, u64)>;

fn pour_into(mut stream: TcpStream, most: u64) -> impl FnOnce() -> Poured {
    move || {
        stream.set_write_timeout(Some(STALLED))?;
        let chunk = vec![b'x'; 64 << 10];
        let mut poured = 0_u64;
        while poured < most {
            match stream.write(&chunk) {
                Ok(amount) => poured += amount as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok((Some(stream), poured));
                }
                Err(error) if is_cut(error.kind()) => return Ok((None, poured)),
                Err(error) => return Err(error),
            }
        }
        Ok((Some(stream), poured))
    }
}

fn report(pouring: Vec<JoinHandle<Poured>>) -> Result<()> {
    let count = pouring.len();
    let mut total = 0;
    let mut held = Vec::new();
    for thread in pouring {
        match thread.join() {
            Ok(Ok((stream, poured))) => {
                total += poured;
                held.extend(stream);
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => bail!("a writer panicked"),
        }
    }
    println!("poured {total}, cut {}", count - held.len());
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let alive = held.iter().filter(|stream| is_open(stream));
    println!("alive {}", alive.count());
    Ok(())
}

/// Whether it was not cut, as far as is known without waiting.
fn is_open(stream: &TcpStream) -> bool {
    let read = stream
        .set_nonblocking(true)
        .and_then(|()| stream.peek(&mut [0]));
    match read {
        Ok(amount) => amount > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

/// Opens connections and sends a byte on each from time to time, which is never all there is to say.
/// Prints how many are open, and when the input has ended how many still are.
pub fn dribble(target: &str, count: usize) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(connect(target)?);
    }
    println!("open {}", streams.len());
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::SeqCst);
    });
    let pause = BETWEEN_BYTES / u32::try_from(count)?;
    while !ended.load(Ordering::SeqCst) {
        for stream in &mut streams {
            // One that was cut is counted in the end.
            let _ = stream.write_all(b"x");
            thread::sleep(pause);
            if ended.load(Ordering::SeqCst) {
                break;
            }
        }
    }
    let alive = streams.iter().filter(|stream| is_open(stream));
    println!("alive {}", alive.count());
    Ok(())
}

fn is_cut(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Opens connections and says nothing on them, or only these bytes. Their own ports are those `from`
/// one on, or the kernel's choice. Prints `open COUNT` and then, when the other side has closed all
/// of them, `closed MILLISECONDS`, the time that took.
pub fn silent(target: &str, count: usize, start: &[u8], from: Option<u16>) -> Result<()> {
    let began = Instant::now();
    let mut ports = from.map(|first| first..);
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = match &mut ports {
            Some(ports) => connect_from(ports.next().context("no such port")?, target)?,
            None => connect(target)?,
        };
        // It may be closed already: too many.
        let _ = stream.write_all(start);
        stream.set_read_timeout(Some(CUT))?;
        streams.push(stream);
    }
    println!("open {}", streams.len());
    for mut stream in streams {
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("closed {}", began.elapsed().as_millis());
    Ok(())
}
