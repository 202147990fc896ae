//! A tunnel held by hand through whatever its server does, down to the frames that say so.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Tunnel;
use super::flood::{DATA, END_HEADERS, GOAWAY, HEADERS, PING, PREFACE, SETTINGS, frame, request};

/// How long the server may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The only stream.
const STREAM: u32 = 1;
const ACK: u8 = 1;
/// What is to come back.
const WORD: &[u8] = b"still here";

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Prints `open` once the stream is, and waits until the server takes no more streams; then how it
/// said so, if the one that is open, to an application that echoes, still does.
pub async fn hold(tunnel: &Tunnel) -> Result<String> {
    tokio::time::timeout(PATIENCE, hold_on(tunnel))
        .await
        .context("no GOAWAY")?
}

async fn hold_on(tunnel: &Tunnel) -> Result<String> {
    let mut tls = tunnel.connect().await?;
    let mut start = PREFACE.to_vec();
    start.extend(frame(SETTINGS, 0, 0, &[]));
    start.extend(frame(
        HEADERS,
        END_HEADERS,
        STREAM,
        &request(&tunnel.authority),
    ));
    tls.write_all(&start).await?;
    tls.flush().await?;
    until(&mut tls, |frame| frame.kind == HEADERS).await?;
    println!("open");
    // The first one only announces the last stream that may still be under way.
    let last = |frame: &Frame| frame.kind == GOAWAY && number(&frame.payload, 0) == Some(STREAM);
    let goaway = until(&mut tls, last).await?;
    let code = number(&goaway.payload, 4).context("a short GOAWAY")?;
    tls.write_all(&frame(DATA, 0, STREAM, WORD)).await?;
    tls.flush().await?;
    let echo = until(&mut tls, |frame| frame.kind == DATA).await?;
    ensure!(
        echo.stream == STREAM && echo.payload == WORD,
        "another echo"
    );
    Ok(format!("goaway {code}, and the stream goes on"))
}

/// The first frame that is wanted; what must be acknowledged on the way is.
async fn until(
    tls: &mut TlsStream<TcpStream>,
    is_wanted: impl Fn(&Frame) -> bool,
) -> Result<Frame> {
    loop {
        let heard = read(tls).await?;
        if is_wanted(&heard) {
            return Ok(heard);
        }
        let acknowledgement = match heard.kind {
            SETTINGS if heard.flags & ACK == 0 => frame(SETTINGS, ACK, 0, &[]),
            PING if heard.flags & ACK == 0 => frame(PING, ACK, 0, &heard.payload),
            DATA | HEADERS => bail!("a frame of type {} out of its turn", heard.kind),
            _ => continue,
        };
        tls.write_all(&acknowledgement).await?;
        tls.flush().await?;
    }
}

async fn read(tls: &mut TlsStream<TcpStream>) -> Result<Frame> {
    let mut header = [0; 9];
    tls.read_exact(&mut header)
        .await
        .context("the tunnel ended")?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; length as usize];
    tls.read_exact(&mut payload)
        .await
        .context("the tunnel ended")?;
    Ok(Frame {
        kind: header[3],
        flags: header[4],
        stream: number(&header, 5).unwrap_or_default(),
        payload,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
