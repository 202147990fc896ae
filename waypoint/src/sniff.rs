//! What a client speaks whose port does not say, by its first bytes.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::deadline::Deadline;
use crate::transport::Transport;

/// RFC 9113 §3.4.
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is looked for.
const METHOD: usize = 32;

/// What was detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    Http1,
    Http2,
    /// TLS, another protocol, or nothing in time: the server may be the one to begin.
    Tcp,
}

/// Judges a connection's first bytes; none where more are needed.
pub fn detect(received: &[u8]) -> Option<Detected> {
    if received.starts_with(HTTP2_PREFACE) {
        return Some(Detected::Http2);
    }
    if HTTP2_PREFACE.starts_with(received) {
        return None;
    }
    let method = received.iter().position(|byte| !is_method(*byte));
    match method {
        Some(0) => Some(Detected::Tcp),
        Some(end) if end > METHOD || received[end] != b' ' => Some(Detected::Tcp),
        Some(end) => match received.get(end + 1) {
            // The four forms of a request target (RFC 9112 §3.2).
            Some(byte) if byte.is_ascii_alphanumeric() || b"/*[".contains(byte) => {
                Some(Detected::Http1)
            }
            Some(_) => Some(Detected::Tcp),
            None => None,
        },
        None if received.len() > METHOD => Some(Detected::Tcp),
        None => None,
    }
}

fn is_method(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'-' || byte == b'_'
}

/// Waits for enough bytes to tell, at most for `timeout`, and returns what it read.
pub(crate) async fn sniff<T: Transport>(
    transport: &mut T,
    timeout: Duration,
) -> io::Result<(Detected, Bytes)> {
    let mut deadline = Deadline::default();
    deadline.set(timeout);
    let mut received = Bytes::new();
    let detected = poll_fn(|cx| {
        loop {
            if let Some(detected) = detect(&received) {
                return Poll::Ready(Ok(detected));
            }
            match transport.poll_receive(cx) {
                Poll::Ready(Ok(data)) if data.is_empty() => return Poll::Ready(Ok(Detected::Tcp)),
                Poll::Ready(Ok(data)) if received.is_empty() => received = data,
                Poll::Ready(Ok(data)) => {
                    let mut joined = BytesMut::from(&received[..]);
                    joined.extend_from_slice(&data);
                    received = joined.freeze();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => break,
            }
        }
        deadline.poll_elapsed(cx).map(|()| Ok(Detected::Tcp))
    })
    .await?;
    Ok((detected, received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (received, detected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Detected::Http1)),
            (b"OPTIONS *", Some(Detected::Http1)),
            (b"CONNECT a:1", Some(Detected::Http1)),
            (b"PROPFIND /", Some(Detected::Http1)),
            (b"PUT http", Some(Detected::Http1)),
            (b"PUT", None),
            (b"P", None),
            (b"", None),
            (b"PRI ", None),
            (HTTP2_PREFACE, Some(Detected::Http2)),
            (b"PRI * HTTP/1.1", Some(Detected::Http1)),
            (b"\x16\x03\x01\x02", Some(Detected::Tcp)),
            (b"get / HTTP/1.1", Some(Detected::Tcp)),
            (b"EHLO\r\n", Some(Detected::Tcp)),
            (b"\x00", Some(Detected::Tcp)),
            (b" GET /", Some(Detected::Tcp)),
            (
                b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                Some(Detected::Tcp),
            ),
        ] {
            assert_eq!(detect(received), detected, "{received:?}");
        }
    }

    /// What a client says that knows no version before 1.3 is TLS, from the first byte on.
    #[test]
    fn cve_2020_8660_tls_1_3_is_tls() {
        let config = rustls::ClientConfig::builder_with_provider(identity::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "web.shop".try_into().expect("a name");
        let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("written");
        for end in 1..=hello.len() {
            assert_eq!(detect(&hello[..end]), Some(Detected::Tcp), "{end} bytes");
        }
    }
}
