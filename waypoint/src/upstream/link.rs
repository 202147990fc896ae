//! One byte stream to an endpoint.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::transport::{Socket, Transport};

#[derive(Debug)]
pub(crate) enum Link {
    Tunnel(hbone::stream::Stream),
    Tcp(Socket<TcpStream>),
}

impl Transport for Link {
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Tunnel(stream) => Transport::poll_receive(stream, cx),
            Self::Tcp(socket) => socket.poll_receive(cx),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<()>> {
        match self {
            Self::Tunnel(stream) => Transport::poll_send(stream, cx, data),
            Self::Tcp(socket) => socket.poll_send(cx, data),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tunnel(stream) => stream.poll_finish(cx),
            Self::Tcp(socket) => socket.poll_finish(cx),
        }
    }

    fn abort(&mut self) {
        match self {
            Self::Tunnel(stream) => stream.abort(),
            Self::Tcp(socket) => hbone::copy::abort(&socket.0),
        }
    }
}
