//! Who may use an admin server, though it answers on loopback only.
//!
//! A page in a browser can send requests to loopback: by naming a host of its own that resolves there
//! (DNS rebinding), or without reading the answer (cross-site request forgery). And where an application
//! shares the namespace, it reaches the port as well. So:
//!
//! - the host asked for must be an address or `localhost`, else 403;
//! - what changes something must come from root or from the process's own user, and from no page, else 403.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use nix::unistd::Uid;

use crate::logs;

/// Both ends of an accepted connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) server: Option<SocketAddr>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Host,
    Page,
    User,
}

/// The middleware.
pub(super) async fn protect(
    ConnectInfo(ends): ConnectInfo<Ends>,
    request: Request,
    next: Next,
) -> Response {
    let user = || ends.client_user().ok().flatten();
    match judge(request.method(), request.headers(), user) {
        Ok(user) => {
            if let Some(user) = user {
                // Before it is carried out: it may be that nothing of this is logged any more.
                let (order, levels) = (request.uri().to_string(), logs::levels().to_string());
                tracing::info!(client = %ends.client, %user, order, levels, "order at the admin port");
            }
            next.run(request).await
        }
        Err(refusal) => {
            tracing::warn!(client = %ends.client, path = request.uri().path(), "{}", refusal.reason());
            (StatusCode::FORBIDDEN, format!("{}\n", refusal.reason())).into_response()
        }
    }
}

/// The user of an order; none where nothing can change.
fn judge(
    method: &Method,
    headers: &HeaderMap,
    user: impl FnOnce() -> Option<Uid>,
) -> Result<Option<Uid>, Refusal> {
    if headers
        .get(HOST)
        .is_some_and(|host| !is_here(host.as_bytes()))
    {
        return Err(Refusal::Host);
    }
    if method.is_safe() {
        return Ok(None);
    }
    let site = headers.get("sec-fetch-site");
    let from_elsewhere = site.is_some_and(|site| site != "none" && site != "same-origin");
    if headers.contains_key(ORIGIN) || from_elsewhere {
        return Err(Refusal::Page);
    }
    match user() {
        Some(user) if user.is_root() || user == Uid::effective() => Ok(Some(user)),
        _ => Err(Refusal::User),
    }
}

/// Whether a Host header names this machine in a way that no name server has a say in.
fn is_here(host: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

// === impl Ends ===

impl Ends {
    /// Who owns the client's socket, which is on this machine; `None` where it is not found.
    fn client_user(&self) -> io::Result<Option<Uid>> {
        let table = match self.client.is_ipv4() {
            true => "/proc/thread-self/net/tcp",
            false => "/proc/thread-self/net/tcp6",
        };
        let Some(server) = self.server else {
            return Ok(None);
        };
        Ok(owner(&fs::read_to_string(table)?, self.client, server))
    }
}

// === impl Refusal ===

impl Refusal {
    fn reason(&self) -> &'static str {
        match self {
            Self::Host => "ask for localhost or an address: other names could be anybody's",
            Self::Page => "web pages may not change anything here",
            Self::User => "only root and the process's own user may change anything here",
        }
    }
}

/// The user in the line of `/proc/net/tcp` (proc_pid_net(5)) whose socket has these two ends.
fn owner(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<Uid> {
    let (local, remote) = (hexadecimal(local), hexadecimal(remote));
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let ends = (fields.next()?, fields.next()?);
        let user = fields.nth(4)?;
        (ends == (&local, &remote)).then(|| user.parse().ok().map(Uid::from_raw))?
    })
}

/// An address as the kernel prints it there: words of 32 bits in this machine's byte order.
fn hexadecimal(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks_exact(4).map(|word| {
        let word = [word[0], word[1], word[2], word[3]];
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

#[cfg(test)]
mod tests;
