//! One HTTP GET over a connection that is already open: the admin and API ports of the pieces.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::control::client::{Client, unexpected};
use crate::control::{Reply, Request, Target};
use crate::exit::{Exit, OrExit, Result};
use crate::state::State;

/// Asks a port of a place inside the machine; the body of a 200.
pub(crate) async fn get_from(
    state: &State,
    target: Target,
    port: u16,
    path: &str,
) -> Result<Bytes> {
    let mut client = Client::connect(state)?;
    match client.call(&Request::Dial { target, port }, &[])? {
        Reply::Connected => {}
        other => return Err(unexpected(other)),
    }
    let descriptor: OwnedFd = client
        .descriptor()
        .context("the machine sent no connection")?;
    let stream = TcpStream::from(descriptor);
    stream.set_nonblocking(true)?;
    get(tokio::net::TcpStream::from_std(stream)?, path)
        .await
        .or_exit(Exit::Unreachable)
}

/// Asks the control plane's API.
pub(crate) async fn get_from_control_plane(state: &State, path: &str) -> Result<Bytes> {
    let stream = UnixStream::connect(state.api_socket())
        .await
        .context("the control plane does not answer")
        .or_exit(Exit::Unreachable)?;
    get(stream, path).await.or_exit(Exit::Unreachable)
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> anyhow::Result<Bytes> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    driver.abort();
    if !status.is_success() {
        bail!("{path}: {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}
