//! METHOD, PATH and headers as people write them, in the one form that decisions see.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use mesh::authority::Authority;
use mesh::local_reply::Reason;
use mesh::path::PathNormalization;
use mesh::request::{Claims, Request, is_internal, remote_ip};

use super::answer::{Outcome, Stage, Step};
use crate::exit::{Exit, Result};

/// What somebody wants to send.
pub(super) struct Message {
    pub(super) method: Method,
    target: String,
    headers: HeaderMap,
}

/// The same as a waypoint reads it.
pub(super) struct Canonical {
    pub(super) method: Method,
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) path: String,
    pub(super) query: Option<String>,
    pub(super) headers: HeaderMap,
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) step: Step,
}

/// Why a request is refused before anything is decided about it.
pub(super) struct Malformed {
    pub(super) status: StatusCode,
    pub(super) why: String,
}

// === impl Message ===

impl Message {
    pub(super) fn read(method: &str, target: &str, headers: &[String]) -> Result<Self> {
        let method = method
            .parse()
            .map_err(|_| Exit::Usage.because(format!("{method:?} is no method")))?;
        let mut map = HeaderMap::new();
        for header in headers {
            let (name, value) = header
                .split_once(':')
                .ok_or_else(|| Exit::Usage.because(format!("-H {header:?} is not NAME: VALUE")))?;
            let name: HeaderName = name
                .trim()
                .parse()
                .map_err(|_| Exit::Usage.because(format!("{name:?} is no header's name")))?;
            let value: HeaderValue = value
                .trim()
                .parse()
                .map_err(|_| Exit::Usage.because(format!("{value:?} is no header's value")))?;
            map.append(name, value);
        }
        Ok(Self {
            method,
            target: target.to_owned(),
            headers: map,
        })
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Reads it as the waypoint does: one spelling of host and path, and no header that steers
    /// proxies.
    pub(super) fn canonical(
        &self,
        default_host: &str,
    ) -> std::result::Result<Canonical, Malformed> {
        let bad = |why: String| {
            let reply = Reason::BadRequest(why.clone().into()).reply();
            Malformed {
                status: reply.status,
                why,
            }
        };
        let target = PathNormalization::default()
            .target(&self.method, &self.target)
            .map_err(|error| bad(error.to_string()))?;
        let written = match (&target.absolute, self.headers.get(HOST)) {
            (Some((_, authority)), _) => authority.as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => default_host.as_bytes(),
        };
        let authority = Authority::parse(written).map_err(|error| bad(error.to_string()))?;
        let mut headers = self.headers.clone();
        headers.remove(HOST);
        while let Some(name) = headers.keys().find(|name| is_internal(name)).cloned() {
            headers.remove(name);
        }
        let host = authority.host.to_string();
        let mut details = Vec::new();
        if target.path != self.target.split('?').next().unwrap_or_default() {
            details.push(format!("{} is {}", self.target, target.path));
        }
        let at = match authority.port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        };
        let query = target.query.map(|query| format!("?{query}"));
        let text = format!(
            "{} {}{} for host {at}",
            self.method,
            target.path,
            query.unwrap_or_default()
        );
        Ok(Canonical {
            method: self.method.clone(),
            port: authority.port,
            path: target.path.into_owned(),
            query: target.query.map(str::to_owned),
            remote_ip: remote_ip(&headers),
            step: Step::new(Stage::Request, Outcome::Neutral, text).with(details),
            host,
            headers,
        })
    }
}

// === impl Canonical ===

impl Canonical {
    pub(super) fn request<'a>(&'a self, peer: IpAddr, claims: Option<&'a Claims>) -> Request<'a> {
        Request {
            method: &self.method,
            host: &self.host,
            port: self.port,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            remote_ip: self.remote_ip.unwrap_or(peer),
            claims,
        }
    }
}
