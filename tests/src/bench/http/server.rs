//! The server: answers every request with the same few bytes.

use std::net::Ipv6Addr;

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{CONTENT, HTTP1_PORT, HTTP2_PORT};

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Serves both ports until killed.
pub async fn run() -> Result<()> {
    let http1 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP1_PORT)).await?;
    let http2 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HTTP2_PORT)).await?;
    loop {
        tokio::select! {
            Ok((stream, _)) = http1.accept() => drop(tokio::spawn(serve_http1(stream))),
            Ok((stream, _)) = http2.accept() => drop(tokio::spawn(serve_http2(stream))),
        }
    }
}

/// Requests without content only.
async fn serve_http1(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let response = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {CONTENT}\r\n\r\n{}",
        "x".repeat(CONTENT)
    );
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        while let Some(at) = buffer.windows(HEAD_END.len()).position(|w| w == HEAD_END) {
            let _ = buffer.split_to(at + HEAD_END.len());
            stream.write_all(response.as_bytes()).await?;
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn serve_http2(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut connection = h2::server::Builder::new()
        .max_concurrent_streams(1000)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, respond) = request?;
        tokio::spawn(answer(request, respond));
    }
    Ok(())
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) -> Result<()> {
    let grpc = is_grpc(request.headers());
    let mut body = request.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let mut response = Response::new(());
    let kind = if grpc {
        "application/grpc"
    } else {
        "text/plain"
    };
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(kind));
    let mut stream = respond.send_response(response, false)?;
    if grpc {
        stream.send_data(message(CONTENT), false)?;
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        stream.send_trailers(trailers)?;
    } else {
        stream.send_data(Bytes::from(vec![b'x'; CONTENT]), true)?;
    }
    Ok(())
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A gRPC message: not compressed, its length, its bytes.
pub(super) fn message(length: usize) -> Bytes {
    let mut message = vec![0; 5 + length];
    message[1..5].copy_from_slice(&(length as u32).to_be_bytes());
    message.into()
}
