//! The client: as many requests as go (closed loop), or so many a second (open loop).

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};

use super::super::pace::{Pace, Window};
use super::super::tally::{Measured, Tally};
use super::{CONTENT, Speech, server};

/// A run of one load.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    pub speech: Speech,
    pub host: String,
    #[arg(long, default_value = "/bench")]
    pub path: String,
    #[arg(long, default_value_t = 16)]
    pub connections: usize,
    /// Requests at a time on a connection of HTTP/2.
    #[arg(long, default_value_t = 8)]
    pub streams: usize,
    /// Requests a second in all; none: as many as go.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

/// Runs a load and measures it after a short warm-up.
pub async fn run(arguments: &Arguments) -> Result<Measured> {
    let host = (arguments.host.as_str(), arguments.speech.port());
    let server = lookup_host(host)
        .await
        .with_context(|| format!("looking up {}", arguments.host))?
        .next()
        .context("no address")?;
    let streams = match arguments.speech {
        Speech::Http1 => 1,
        Speech::Http2 | Speech::Grpc => arguments.streams,
    };
    let clients = arguments.connections * streams;
    let duration = Duration::from_secs_f64(arguments.seconds);
    let window = Window::of(duration);
    let pace = |client| Pace::new(window, arguments.rate, client, clients);
    let mut tasks = tokio::task::JoinSet::new();
    for connection in 0..arguments.connections {
        let (host, path) = (arguments.host.clone(), arguments.path.clone());
        match arguments.speech {
            Speech::Http1 => drop(tasks.spawn(http1(server, host, path, pace(connection)?))),
            Speech::Http2 | Speech::Grpc => {
                let sender = http2_connection(server).await?;
                for stream in 0..streams {
                    let pace = pace(connection * streams + stream)?;
                    let request = http2_request(arguments.speech, &host, &path)?;
                    tasks.spawn(http2(sender.clone(), request, pace));
                }
            }
        }
    }
    let mut all = Tally::default();
    while let Some(one) = tasks.join_next().await {
        all.merge(&one??)?;
    }
    Ok(all.measured(duration))
}

async fn http1(server: SocketAddr, host: String, path: String, mut pace: Pace) -> Result<Tally> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: bench\r\n\r\n");
    let mut buffer = BytesMut::with_capacity(4096);
    let mut tally = Tally::default();
    while let Some(due) = pace.next().await? {
        stream.write_all(request.as_bytes()).await?;
        let length = loop {
            if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4 + CONTENT;
            }
            ensure!(stream.read_buf(&mut buffer).await? > 0, "closed");
        };
        ensure!(
            buffer.starts_with(b"HTTP/1.1 200"),
            "answered {:?}",
            String::from_utf8_lossy(&buffer)
        );
        while buffer.len() < length {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "closed");
        }
        buffer.clear();
        tally.exchange(due, pace.window.start);
    }
    Ok(tally)
}

async fn http2_connection(server: SocketAddr) -> Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(stream)
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn http2_request(speech: Speech, host: &str, path: &str) -> Result<(Request<()>, Option<Bytes>)> {
    let request = Request::builder().uri(format!("http://{host}{path}"));
    Ok(match speech {
        Speech::Http1 | Speech::Http2 => (request.body(())?, None),
        Speech::Grpc => {
            let request = request
                .method(Method::POST)
                .header("content-type", "application/grpc")
                .header("te", "trailers");
            (request.body(())?, Some(server::message(CONTENT)))
        }
    })
}

async fn http2(
    sender: SendRequest<Bytes>,
    (request, content): (Request<()>, Option<Bytes>),
    mut pace: Pace,
) -> Result<Tally> {
    let mut tally = Tally::default();
    while let Some(due) = pace.next().await? {
        let mut sender = sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request.clone(), content.is_none())?;
        if let Some(content) = &content {
            stream.send_data(content.clone(), true)?;
        }
        let response = response.await?;
        ensure!(response.status() == 200, "answered {response:?}");
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data?.len())?;
        }
        if content.is_some() {
            let trailers = body.trailers().await?.context("no trailers")?;
            ensure!(trailers["grpc-status"] == "0", "{trailers:?}");
        }
        tally.exchange(due, pace.window.start);
    }
    Ok(tally)
}
