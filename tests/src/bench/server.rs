//! The server of the benchmark.

use std::net::Ipv6Addr;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{BULK_BUFFER, ECHO_PORT, SINK_PORT, SOURCE_PORT, raise_descriptor_limit};

/// Serves every port until killed.
pub async fn run() -> Result<()> {
    raise_descriptor_limit()?;
    let sink = TcpListener::bind((Ipv6Addr::UNSPECIFIED, SINK_PORT)).await?;
    let source = TcpListener::bind((Ipv6Addr::UNSPECIFIED, SOURCE_PORT)).await?;
    let echo = TcpListener::bind((Ipv6Addr::UNSPECIFIED, ECHO_PORT)).await?;
    loop {
        tokio::select! {
            Ok((stream, _)) = echo.accept() => drop(tokio::spawn(echoing(stream))),
            Ok((stream, _)) = sink.accept() => drop(tokio::spawn(discarding(stream))),
            Ok((stream, _)) = source.accept() => drop(tokio::spawn(sending(stream))),
        }
    }
}

async fn echoing(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

async fn discarding(mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; BULK_BUFFER];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn sending(mut stream: TcpStream) -> Result<()> {
    let buffer = vec![7; BULK_BUFFER];
    loop {
        stream.write_all(&buffer).await?;
    }
}
