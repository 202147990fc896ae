//! The one form of a request that is matched, authorized and forwarded.

use std::borrow::Cow;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{HOST, HeaderMap};
use http::request::Parts;
use http::uri::{self, PathAndQuery};
use http::{Method, Uri};
use mesh::authority::Authority;
use mesh::local_reply::Reason;
use mesh::path::PathNormalization;
use mesh::request::{Claims, Request, remote_ip};

/// A request's address, in its one spelling.
#[derive(Clone, Debug)]
pub(crate) struct Canonical {
    host: Box<str>,
    port: Option<u16>,
    /// Both of these, as one text.
    authority: uri::Authority,
    pub(crate) target: PathAndQuery,
    pub(crate) remote_ip: IpAddr,
}

// === impl Canonical ===

impl Canonical {
    pub(crate) fn read(
        parts: &Parts,
        peer: IpAddr,
        normalization: PathNormalization,
    ) -> Result<Self, Reason> {
        let authority = match (parts.uri.authority(), parts.headers.get(HOST)) {
            (Some(authority), _) => authority.as_str().as_bytes(),
            (None, Some(host)) => host.as_bytes(),
            (None, None) => return Err(bad(&"neither authority nor host")),
        };
        let authority = Authority::parse(authority).map_err(|error| bad(&error))?;
        let received = parts.uri.path_and_query();
        // The origin form of OPTIONS without a path is `*` (RFC 9112 §3.2.4).
        let text = match received.map_or("", PathAndQuery::as_str) {
            "" if parts.method == Method::OPTIONS => "*",
            "" => "/",
            text => text,
        };
        let target = normalization.target(&parts.method, text);
        let target = target.map_err(|error| bad(&error))?;
        let same = |received: &&PathAndQuery| matches!(target.path, Cow::Borrowed(path) if path == received.path());
        let target = match received.filter(same) {
            Some(received) => received.clone(),
            None => join(&target.path, target.query)?,
        };
        Ok(Self {
            authority: spelled(parts.uri.authority(), &authority)?,
            host: authority.host.into(),
            port: authority.port,
            target,
            remote_ip: remote_ip(&parts.headers).unwrap_or(peer),
        })
    }

    /// As decisions see it.
    pub(crate) fn request<'a>(
        &'a self,
        method: &'a Method,
        headers: &'a HeaderMap,
        claims: Option<&'a Claims>,
    ) -> Request<'a> {
        Request {
            method,
            host: &self.host,
            port: self.port,
            path: self.target.path(),
            query: self.target.query(),
            headers,
            remote_ip: self.remote_ip,
            claims,
        }
    }

    /// As upstreams get it: with its authority, and no `host` beside it.
    pub(crate) fn uri(&self) -> Result<Uri, Reason> {
        let mut parts = uri::Parts::default();
        parts.scheme = Some(uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(self.target.clone());
        Uri::from_parts(parts).map_err(|error| bad(&error))
    }

    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    pub(crate) fn set_host(&mut self, host: &str) -> Result<(), Reason> {
        let authority = Authority {
            host: host.into(),
            port: None,
        };
        self.authority = spelled(None, &authority)?;
        (self.host, self.port) = (host.into(), None);
        Ok(())
    }

    pub(crate) fn set_path(&mut self, path: &str) -> Result<(), Reason> {
        self.target = join(path, self.target.query())?;
        Ok(())
    }

    pub(crate) fn set_query(&mut self, query: Option<&str>) -> Result<(), Reason> {
        self.target = join(self.target.path(), query)?;
        Ok(())
    }
}

/// The canonical spelling; what was received is shared where it is spelled so already.
fn spelled(
    received: Option<&uri::Authority>,
    authority: &Authority<'_>,
) -> Result<uri::Authority, Reason> {
    let Authority { host, port } = authority;
    if let Some(received) = received.filter(|received| port.is_none() && received.as_str() == host)
    {
        return Ok(received.clone());
    }
    let text = match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    };
    uri::Authority::from_maybe_shared(Bytes::from(text)).map_err(|error| bad(&error))
}

fn bad(error: &dyn std::fmt::Display) -> Reason {
    Reason::BadRequest(error.to_string().into())
}

fn join(path: &str, query: Option<&str>) -> Result<PathAndQuery, Reason> {
    let text = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|error| bad(&error))
}
