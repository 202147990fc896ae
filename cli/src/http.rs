//! One HTTP request over a connection that is already open: the admin and API ports of the pieces.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty};
use hyper::Method;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::time;

use crate::control::client::{Client, unexpected};
use crate::control::{Reply, Request, Target};
use crate::exit::{Exit, OrExit, Result};
use crate::state::State;

/// What only tells something and has not by then does not answer: the kernel takes connections for
/// a process that is stopped, too.
const PATIENCE: Duration = Duration::from_secs(5);

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
    let stream = control_plane(state).await?;
    get(stream, path)
        .await
        .context(SILENT)
        .or_exit(Exit::Unreachable)
}

/// Has the control plane do something, which it may refuse.
pub(crate) async fn post_to_control_plane(state: &State, path: &str) -> Result<Bytes> {
    let stream = control_plane(state).await?;
    ask(stream, Method::POST, path).await.or_exit(Exit::Failed)
}

const SILENT: &str = "the control plane does not answer";

async fn control_plane(state: &State) -> Result<UnixStream> {
    UnixStream::connect(state.api_socket())
        .await
        .context(SILENT)
        .or_exit(Exit::Unreachable)
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
) -> anyhow::Result<Bytes> {
    match time::timeout(PATIENCE, ask(stream, Method::GET, path)).await {
        Ok(answer) => answer,
        Err(_) => bail!("{path}: nothing within {} s", PATIENCE.as_secs()),
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: Method,
    path: &str,
) -> anyhow::Result<Bytes> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let request = hyper::Request::builder()
        .method(method)
        .uri(path)
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
