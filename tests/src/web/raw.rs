//! Bytes sent as they are: requests that no HTTP library would write.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_secs(2);
/// How long an answer may take of which it is known that there is one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends each of `bytes` (hexadecimal) on a connection of its own, all at a time, and returns
/// what came back on each until it was closed or silent. Where each `is_answered`, no answer begins
/// with silence.
pub async fn exchange(target: &str, bytes: &[String], is_answered: bool) -> Result<Vec<String>> {
    let patience = if is_answered { PATIENCE } else { SILENCE };
    let mut exchanges = Vec::new();
    for one in bytes {
        let (target, bytes) = (target.to_owned(), decode(one)?);
        exchanges.push(tokio::spawn(async move {
            once(&target, &bytes, patience).await
        }));
    }
    let mut answers = Vec::new();
    for one in exchanges {
        answers.push(
            one.await?
                .unwrap_or_else(|error| format!("broken: {error:#}")),
        );
    }
    Ok(answers)
}

async fn once(target: &str, bytes: &[u8], mut patience: Duration) -> Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(Ok(length)) = timeout(patience, stream.read(&mut buffer)).await {
        if length == 0 {
            break;
        }
        patience = SILENCE;
        answer.extend_from_slice(&buffer[..length]);
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn decode(text: &str) -> Result<Vec<u8>> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = std::str::from_utf8(pair)?;
            u8::from_str_radix(pair, 16).context("hexadecimal")
        })
        .collect()
}
