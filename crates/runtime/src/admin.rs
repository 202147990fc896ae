//! HTTP servers for people and machines that look after the process: axum routers on listeners.
//!
//! Kernels without IPv6 get the IPv4 listener only. What answers on loopback is the admin servers, which are
//! protected: see [`protection`].
//!
//! - `connections`: how many there may be, and for how long.
//! - [`protection`]: who may use an admin server.

mod connections;

mod protection;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use axum::{Router, middleware};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;

use self::connections::Reach;

/// Listeners that serve one router together.
#[derive(Debug)]
pub struct Listeners {
    listeners: Vec<TcpListener>,
}

// === impl Listeners ===

impl Listeners {
    /// 127.0.0.1 and ::1.
    pub fn localhost(port: u16) -> io::Result<Self> {
        let v4 = bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))?;
        // Port 0 asks for any free one; both families then share it.
        let port = v4.local_addr()?.port();
        let mut listeners = vec![v4];
        match bind(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port)) {
            Ok(v6) => listeners.push(v6),
            Err(error) if no_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { listeners })
    }

    /// Every address: `[::]` (which takes IPv4 too), or 0.0.0.0 where IPv6 is off or missing.
    pub fn wildcard(port: u16, ipv6: bool) -> io::Result<Self> {
        let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let listener = if ipv6 {
            match bind(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)) {
                Err(error) if no_ipv6(&error) => bind(v4)?,
                bound => bound?,
            }
        } else {
            bind(v4)?
        };
        Ok(Self {
            listeners: vec![listener],
        })
    }

    /// One address.
    pub fn address(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            listeners: vec![bind(address)?],
        })
    }

    /// Those that another process has made.
    pub fn inherited(listeners: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let listeners = listeners.into_iter().map(TcpListener::from_std);
        Ok(Self {
            listeners: listeners.collect::<io::Result<_>>()?,
        })
    }

    /// Duplicates of the sockets, for another process to inherit.
    pub fn duplicates(&self) -> io::Result<Vec<OwnedFd>> {
        let listeners = self.listeners.iter();
        listeners
            .map(|listener| listener.as_fd().try_clone_to_owned())
            .collect()
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Serves until dropped. What listens on loopback only is an admin server, and is protected as one.
    pub async fn serve(self, name: &'static str, router: Router) {
        let addresses = self.addresses();
        tracing::info!(server = name, ?addresses, "listening");
        let is_local = addresses.iter().all(|address| address.ip().is_loopback());
        let (reach, router) = match is_local {
            true => {
                let protected = router.layer(middleware::from_fn(protection::protect));
                (Reach::Loopback, protected)
            }
            false => (Reach::Anybody, router),
        };
        let mut servers = JoinSet::new();
        for listener in self.listeners {
            servers.spawn(connections::serve(name, listener, reach, router.clone()));
        }
        while servers.join_next().await.is_some() {}
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| {
        let code = error.raw_os_error();
        // The kind and number stay readable for callers; the text says which address.
        match code {
            Some(code) if no_ipv6(&error) => io::Error::from_raw_os_error(code),
            _ => io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")),
        }
    };
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(named)?;
    socket.set_reuseaddr(true).map_err(named)?;
    socket.bind(address).map_err(named)?;
    socket.listen(128).map_err(named)
}

/// The kernel has no IPv6, or none of its addresses.
fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_router_answers_on_every_loopback_address() {
        let listeners = Listeners::localhost(0).expect("binds");
        let addresses = listeners.addresses();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(listeners.serve("test", router));
        for address in addresses {
            let mut stream = TcpStream::connect(address).await.expect("connects");
            stream
                .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                .await
                .expect("writes");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("reads");
            assert!(answer.ends_with("hello"), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_in_the_error() {
        let taken = Listeners::localhost(0).expect("binds");
        let port = taken.addresses()[0].port();
        let error = Listeners::localhost(port).expect_err("taken");
        assert!(error.to_string().contains(&port.to_string()), "{error}");
    }
}
