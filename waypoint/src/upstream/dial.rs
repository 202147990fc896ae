//! Connections to endpoints: a CONNECT in a shared tunnel, or plain TCP.

use std::sync::Arc;

use futures::FutureExt;
use hbone::client::{self, ConnectError, ConnectRequest, OpenError, Tunnel};
use hbone::pool;
use hbone::settings::Settings;
use http::HeaderMap;
use identity::WorkloadCertificate;
use mesh::destination::{Hop, Transport};
use mesh::identity::Identity;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time;

use super::link::Link;
use crate::limits::Limits;
use crate::message::UpstreamError;
use crate::revocation::Reporter;
use crate::transport::Socket;
use crate::worker::Certificates;

/// Makes connections in the name of the waypoint.
pub(crate) struct Dialer {
    pub(crate) certificates: Arc<dyn Certificates>,
    pub(crate) tunnels: pool::Pool,
    pub(crate) settings: Rc<Settings>,
    /// What every CONNECT says besides its target.
    pub(crate) headers: HeaderMap,
    pub(crate) limits: Rc<Limits>,
}

// === impl Dialer ===

impl Dialer {
    pub(crate) async fn connect(&self, hop: &Hop) -> Result<Link, UpstreamError> {
        let connecting = async {
            match &hop.transport {
                Transport::Tcp => match connect(hop.target).await {
                    Ok(tcp) => Ok(Link::Tcp(Socket(tcp))),
                    Err(error) => Err(UpstreamError::Connect(format!("{}: {error}", hop.target))),
                },
                Transport::Hbone { address, expected } => {
                    self.tunnel(hop, *address, expected).await
                }
                Transport::DoubleHbone(crossing) => {
                    let reason = format!("{}: is in another network", crossing.authority);
                    Err(UpstreamError::Connect(reason))
                }
                // Endpoints known by name only are resolved by nodes.
                Transport::Resolve { hostname, port } => Err(UpstreamError::Connect(format!(
                    "{hostname}:{port}: only addresses are dialled"
                ))),
            }
        };
        match time::timeout(self.limits.connect_timeout, connecting).await {
            Ok(result) => result,
            Err(_) => Err(UpstreamError::Connect(format!("{}: timed out", hop.target))),
        }
    }

    async fn tunnel(
        &self,
        hop: &Hop,
        address: SocketAddr,
        expected: &Arc<[Identity]>,
    ) -> Result<Link, UpstreamError> {
        let certificate = self.certificates.current();
        let certificate = certificate.map_err(UpstreamError::Connect)?;
        let tls = certificate.client_config(expected);
        let key = pool::Key {
            source: certificate.identity().clone(),
            pod: "".into(),
            expected: expected.clone(),
            workload: Some(hop.workload.uid.clone()),
            destination: address,
        };
        let dial = || {
            let (tls, settings) = (tls.clone(), self.settings.clone());
            let certificate = certificate.clone();
            async move {
                let connected = time::timeout(settings.handshake_timeout, connect(address)).await;
                let tcp = match connected {
                    Ok(Ok(tcp)) => tcp,
                    Ok(Err(error)) => return Err(ConnectError::Tcp(address, Arc::new(error))),
                    Err(_) => return Err(ConnectError::TcpTimeout(address)),
                };
                let shaken = client::handshake(tcp, tls, &settings).await;
                if matches!(shaken, Err(ConnectError::Revoked)) {
                    Reporter::Source.count_revocation();
                }
                let tunnel = shaken?;
                cut_when_revoked(&certificate, &tunnel);
                Ok(tunnel)
            }
        };
        let request = ConnectRequest::to(hop.target, self.headers.clone());
        match self.tunnels.open(&key, &tls, dial, request, None).await {
            Ok(opened) => Ok(Link::Tunnel(opened.stream)),
            Err(OpenError::Status(status)) => Err(UpstreamError::Refused(status.to_string())),
            Err(
                error @ (OpenError::Connect(_)
                | OpenError::Tunnel(_)
                | OpenError::ResponseTimeout
                | OpenError::NoSign(_)),
            ) => Err(UpstreamError::Connect(error.to_string())),
        }
    }
}

fn cut_when_revoked(certificate: &WorkloadCertificate, tunnel: &Tunnel) {
    let revocation = certificate.revocation_of(tunnel.peer_chain());
    if let Some(revoked) = Reporter::Source.tracked(revocation) {
        tunnel.cut_when(revoked.map(|()| Reporter::Source.count_revocation()));
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}
