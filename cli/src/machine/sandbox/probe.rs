//! Probes: when to ask, how many answers count, and the asking itself.
//!
//! They come from inside the pod and carry ztunnel's mark, so that neither capture nor
//! policy ever stands between a container and its health.
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use istio_compat::kinds::IntOrString;
use istio_compat::kinds::container::Container;
use istio_compat::kinds::probe::{GrpcAction, HttpGetAction, Probe, Scheme, TcpSocketAction};
use tokio::net::{TcpSocket, TcpStream};

/// Packets with it are ztunnel's own: the redirect rules leave them alone.
const MARK: u32 = 1337;

/// Counts answers; a verdict changes after enough equal ones in a row.
#[derive(Debug)]
pub(super) struct Thresholds {
    success: u32,
    failure: u32,
    verdict: Option<bool>,
    last: bool,
    row: u32,
}

/// How a probe reaches the container.
pub(super) struct Target<'a> {
    pub(super) address: Option<IpAddr>,
    pub(super) container: &'a Container,
    pub(super) run: &'a dyn Fn(&[String]) -> anyhow::Result<tokio::process::Child>,
}

// === impl Thresholds ===

impl Thresholds {
    pub(super) fn new(probe: &Probe) -> Self {
        Self {
            success: probe.success_threshold.max(1),
            failure: probe.failure_threshold.max(1),
            verdict: None,
            last: false,
            row: 0,
        }
    }

    /// The verdict, if this answer changed it.
    pub(super) fn record(&mut self, success: bool) -> Option<bool> {
        self.row = if self.row > 0 && self.last == success {
            self.row.saturating_add(1)
        } else {
            1
        };
        self.last = success;
        let enough = if success { self.success } else { self.failure };
        if self.row < enough || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        self.verdict
    }
}

/// Asks once.
pub(super) async fn ask(probe: &Probe, target: &Target<'_>) -> anyhow::Result<()> {
    let limit = Duration::from_secs(u64::from(probe.timeout_seconds.max(1)));
    let asked = async {
        match (&probe.http_get, &probe.tcp_socket, &probe.exec, &probe.grpc) {
            (Some(action), _, _, _) => http_get(action, target).await,
            (_, Some(action), _, _) => tcp_socket(action, target).await,
            (_, _, Some(action), _) => exec(&action.command, target).await,
            (_, _, _, Some(action)) => grpc(action, target).await,
            (None, None, None, None) => bail!("the probe names nothing to ask"),
        }
    };
    tokio::time::timeout(limit, asked)
        .await
        .with_context(|| format!("no answer within {limit:?}"))?
}

async fn http_get(action: &HttpGetAction, target: &Target<'_>) -> anyhow::Result<()> {
    ensure!(
        action.scheme == Scheme::Http,
        "probes over HTTPS can't be asked on one machine: use tcpSocket or exec"
    );
    let (address, authority) = target.resolve(&action.port, &action.host)?;
    let stream = connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::task::spawn_local(connection);
    let path = if action.path.starts_with('/') {
        action.path.clone()
    } else {
        format!("/{}", action.path)
    };
    let mut request = http::Request::get(path)
        .header(http::header::USER_AGENT, "kube-probe/weft")
        .header(http::header::ACCEPT, "*/*");
    if !action
        .http_headers
        .iter()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request = request.header(http::header::HOST, authority);
    }
    for header in &action.http_headers {
        request = request.header(&header.name, &header.value);
    }
    let response = sender
        .send_request(request.body(Full::<Bytes>::default())?)
        .await;
    connection.abort();
    let status = response?.status();
    ensure!((200..400).contains(&status.as_u16()), "answered {status}");
    Ok(())
}

async fn tcp_socket(action: &TcpSocketAction, target: &Target<'_>) -> anyhow::Result<()> {
    let (address, _) = target.resolve(&action.port, &action.host)?;
    connect(address).await?;
    Ok(())
}

async fn exec(command: &[String], target: &Target<'_>) -> anyhow::Result<()> {
    let status = (target.run)(command)?.wait().await?;
    ensure!(
        status.success(),
        "{}",
        super::super::piece::describe(status)
    );
    Ok(())
}

/// `grpc.health.v1.Health/Check`, whose two messages have one field each.
async fn grpc(action: &GrpcAction, target: &Target<'_>) -> anyhow::Result<()> {
    let (address, authority) = target.resolve(&IntOrString::Int(action.port.into()), "")?;
    let stream = connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut message = Vec::new();
    if !action.service.is_empty() {
        // Field 1, a string; names are far shorter than the 127 bytes of a one-byte length.
        let length = u8::try_from(action.service.len())
            .ok()
            .filter(|length| *length < 128)
            .context("the probe's service name is too long")?;
        message.extend([0x0a, length]);
        message.extend_from_slice(action.service.as_bytes());
    }
    let mut frame = vec![
        0,
        0,
        0,
        0,
        u8::try_from(message.len()).context("the probe's service name is too long")?,
    ];
    frame.extend(message);
    let request = http::Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(Bytes::from(frame)))?;
    let answer = async {
        anyhow::Ok(
            sender
                .send_request(request)
                .await?
                .into_body()
                .collect()
                .await?
                .to_bytes(),
        )
    }
    .await;
    connection.abort();
    // Status 1 is SERVING.
    ensure!(answer?.get(5..7) == Some(&[0x08, 0x01]), "doesn't serve");
    Ok(())
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket2::SockRef::from(&socket).set_mark(MARK)?;
    socket
        .connect(address)
        .await
        .with_context(|| format!("can't connect to {address}"))
}

// === impl Target ===

impl Target<'_> {
    fn resolve(&self, port: &IntOrString, host: &str) -> anyhow::Result<(SocketAddr, String)> {
        let address = match host {
            "" => self.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host
                .parse()
                .with_context(|| format!("the probe's host {host:?} is no address"))?,
        };
        let port = port_number(port, self.container)?;
        let address = SocketAddr::new(address, port);
        Ok((address, address.to_string()))
    }
}

fn port_number(port: &IntOrString, container: &Container) -> anyhow::Result<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number)
            .ok()
            .filter(|number| *number > 0)
            .with_context(|| format!("{number} is no port")),
        IntOrString::String(name) => container
            .ports
            .iter()
            .find(|port| port.name == *name)
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok())
            .with_context(|| format!("the container has no port named {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds(success: u32, failure: u32) -> Thresholds {
        Thresholds::new(&Probe {
            success_threshold: success,
            failure_threshold: failure,
            ..Probe::default()
        })
    }

    #[test]
    fn a_verdict_needs_enough_equal_answers_in_a_row() {
        let mut thresholds = thresholds(2, 3);
        let verdicts = [
            true, true, false, false, true, false, false, false, false, true, true,
        ]
        .map(|answer| thresholds.record(answer));
        let changed = |value| Some(value);
        assert_eq!(
            verdicts,
            [
                None,
                changed(true),
                None,
                None,
                None,
                None,
                None,
                changed(false),
                None,
                None,
                changed(true)
            ]
        );
    }

    #[test]
    fn a_port_may_be_named() {
        let container: Container = serde_json::from_value(
            serde_json::json!({"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}),
        )
        .unwrap();
        assert_eq!(
            port_number(&IntOrString::String("http".into()), &container).unwrap(),
            8080
        );
        assert_eq!(port_number(&IntOrString::Int(9), &container).unwrap(), 9);
        assert!(port_number(&IntOrString::String("other".into()), &container).is_err());
        assert!(port_number(&IntOrString::Int(70000), &container).is_err());
    }
}
